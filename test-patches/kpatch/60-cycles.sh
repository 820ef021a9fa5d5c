# The patched function is called all the time, on all processors.
for cpu in $(seq $(nproc)); do
    (while :; do cat /proc/meminfo >/dev/null; done) &
    LOOPS="$LOOPS $!"
done
for round in $(seq $CYCLES); do
    kpatch load $M/lp_v1.ko >$SAID 2>&1 || { cat $SAID; fail "round $round"; }
    has_one
    kpatch unload lp_v1 >$SAID 2>&1 || { cat $SAID; fail "round $round"; }
    not_one
done
kill $LOOPS
nothing_loaded
echo "$CYCLES rounds"
