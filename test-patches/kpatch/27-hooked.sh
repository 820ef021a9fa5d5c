# Who else hooks a function: what redirects it is in the way, what only looks on is not.
tracing=/sys/kernel/tracing
must kpatch load $M/lp_hook.ko
refused hooked kpatch load $M/lp_one.ko
says 'kprobes: .* meminfo_proc_show+0x'
not_one
must kpatch load $M/lp_sleep.ko
must kpatch unload lp_sleep
# Where tracefs does not tell, the kernel does.
umount $tracing
umount /sys/kernel/debug
refused refused kpatch load $M/lp_one.ko
says 'hooked by something else'
not_one
! grep -q '^lp_one ' /proc/modules || fail "the refused module is there"
mount -t tracefs tracefs $tracing
mount -t debugfs debugfs /sys/kernel/debug
must kpatch unload lp_hook

echo meminfo_proc_show >$tracing/set_ftrace_filter
echo function >$tracing/current_tracer
must kpatch load $M/lp_one.ko
has_one
must kpatch verify
must kpatch unload lp_one
echo nop >$tracing/current_tracer
echo >$tracing/set_ftrace_filter
nothing_loaded
