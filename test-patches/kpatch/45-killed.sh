# Killed at every moment, as the delays grow; the next command goes on from what it finds.
delay=0
while [ $delay -lt 600000 ]; do
    kpatch load $M/lp_v1.ko >/dev/null 2>&1 &
    LOADER=$!
    usleep $delay
    kill -9 $LOADER 2>/dev/null
    wait $LOADER
    kpatch list >$SAID || fail "list"
    echo "killed after $delay: $(grep '^lp_' $SAID)"
    must kpatch load $M/lp_v1.ko
    has_one
    kpatch unload lp_v1 >/dev/null 2>&1 &
    LOADER=$!
    usleep $delay
    kill -9 $LOADER 2>/dev/null
    wait $LOADER
    kpatch list >$SAID || fail "list"
    echo "killed after $delay: $(grep '^lp_' $SAID)"
    # Gone, or there to be removed.
    must kpatch unload --all
    nothing_loaded
    not_one
    delay=$((delay * 3 / 2 + 10000))
done
