# What the kernel rewrites and sorts is verified as well, however it stands.
must kpatch load $M/lp_calls.ko
tracing=/sys/kernel/tracing
mkdir $tracing/instances/second
for which in "0 0" "1 0" "1 1" "0 1" "0 0"; do
    echo "${which% *}" >$tracing/events/task/task_rename/enable
    echo "${which#* }" >$tracing/instances/second/events/task/task_rename/enable
    echo "${which% *}" >/proc/sys/kernel/sched_schedstats
    cat /proc/meminfo >/dev/null
    must kpatch verify
    says ' lead where the symbol table says'
    silent_on 'references: 0 lead'
    silent_on 'unknown'
done
rmdir $tracing/instances/second
must kpatch unload lp_calls
nothing_loaded
