# What a live patch does to code, without one: functions are hooked and let go, and a static key that `__schedule`
# asks is switched, while all processors run that code. Not a case: it is run where the machine died in one.
tracing=/sys/kernel/tracing
for cpu in $(seq $(nproc)); do
    (while :; do while read -r line; do :; done </proc/meminfo; done) &
    LOOPS="$LOOPS $!"
done
echo meminfo_proc_show >$tracing/set_ftrace_filter
for round in $(seq 400); do
    echo function >$tracing/current_tracer
    echo 1 >/proc/sys/kernel/sched_schedstats
    echo nop >$tracing/current_tracer
    echo 0 >/proc/sys/kernel/sched_schedstats
done
kill $LOOPS
