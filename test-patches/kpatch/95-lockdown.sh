# A kernel that is locked down takes signed modules only, and of those the ones whose key it trusts.
# boot: lockdown=integrity
mount -t securityfs securityfs /sys/kernel/security
refused unsigned kpatch load $M/lp_one.ko
says 'this kernel is locked down (integrity)'
nothing_loaded
refused refused kpatch load $M/lp_signed.ko
says 'no key that the kernel trusts signed it'
nothing_loaded
not_one
must kpatch list
