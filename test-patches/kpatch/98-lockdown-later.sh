# What lockdown hides is told as not seen, never as right.
# boot: module.sig_enforce=1
# key: enrolled
mount -t securityfs securityfs /sys/kernel/security
must kpatch load $M/lp_signed.ko
must kpatch verify
echo confidentiality >/sys/kernel/security/lockdown
refused verify kpatch verify
says 'unknown .*meminfo_proc_show'
says 'checks could not be made on this system'
silent_on 'WRONG'
must kpatch list
says '^lp_signed \[enabled\]'
has_one
must kpatch unload lp_signed
nothing_loaded
