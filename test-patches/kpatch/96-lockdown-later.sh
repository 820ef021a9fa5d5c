# What lockdown hides is told as not seen, never as right.
# boot:
mount -t securityfs securityfs /sys/kernel/security
must kpatch load $M/lp_one.ko
must kpatch verify
echo confidentiality >/sys/kernel/security/lockdown
refused verify kpatch verify
says 'unknown .*meminfo_proc_show'
says 'checks could not be made on this system'
silent_on 'WRONG'
must kpatch list
says '^lp_one \[enabled\]'
has_one
must kpatch unload lp_one
nothing_loaded
