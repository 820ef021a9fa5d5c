# A task that sleeps in the patched function.
sleep 1000 &
SLEEPER=$!
usleep 500000
refused stalled kpatch load --timeout 5 $M/lp_sleep.ko
says "$SLEEPER sleep: sleeps in hrtimer_nanosleep, which the patch changes"
says 'hrtimer_nanosleep+0x'
says 'it was undone and the module removed'
nothing_loaded

kpatch load $M/lp_sleep.ko >/tmp/load 2>&1 &
LOADER=$!
while [ ! -e /sys/kernel/livepatch/lp_sleep ]; do usleep 50000; done
usleep 500000
must kpatch list
says 'lp_sleep \[enabling...\]'
says "$SLEEPER sleep: sleeps in hrtimer_nanosleep"
must kpatch signal
says 'every 15 seconds by itself'
must kpatch uname
silent_on '+lp_sleep'
# It needs no lock to look on, but changes wait.
wait $LOADER || { cat /tmp/load; fail "loading failed"; }
cat /tmp/load
grep -q 'patch transition has stalled' /tmp/load || fail "the stall is not told"
grep -q 'transition complete (' /tmp/load || fail "the end is not told"
must kpatch list
says 'lp_sleep \[enabled\]'
[ -e /proc/$SLEEPER ] || fail "the sleeper is gone"
must kpatch unload lp_sleep
kill $SLEEPER
nothing_loaded
