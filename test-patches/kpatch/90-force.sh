refused no-transition kpatch force
sleep 1000 &
SLEEPER=$!
usleep 500000
kpatch load $M/lp_sleep.ko >/tmp/load 2>&1 &
LOADER=$!
while [ ! -e /sys/kernel/livepatch/lp_sleep ]; do usleep 50000; done
usleep 300000
must kpatch force
says "$SLEEPER sleep: sleeps in hrtimer_nanosleep"
wait $LOADER || { cat /tmp/load; fail "loading failed"; }
must kpatch list
says 'lp_sleep \[enabled\]'
kill $SLEEPER

# Now a task sleeps in the new function. Once the way back was forced, the kernel keeps the module for good.
sleep 1000 &
SLEEPER=$!
usleep 500000
kpatch unload lp_sleep >$SAID 2>&1 &
UNLOADER=$!
while [ "$(cat /sys/kernel/livepatch/lp_sleep/transition)" != 1 ]; do usleep 50000; done
usleep 300000
must kpatch force
wait $UNLOADER && fail "the module cannot be gone"
kill $SLEEPER
refused not-removed kpatch unload lp_sleep
must kpatch list
says '^lp_sleep \[replaced or disabled'
