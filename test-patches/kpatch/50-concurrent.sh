for round in 1 2 3; do
    kpatch load $M/lp_one.ko >/tmp/first 2>&1 &
    FIRST=$!
    kpatch load $M/lp_two.ko >/tmp/second 2>&1 &
    SECOND=$!
    wait $FIRST || { cat /tmp/first; fail "the first fails"; }
    wait $SECOND || { cat /tmp/second; fail "the second fails"; }
    must kpatch list
    says '^lp_one \[enabled\]'
    says '^lp_two \[enabled\]'
    kpatch unload lp_one >/tmp/first 2>&1 &
    FIRST=$!
    kpatch unload --all >/tmp/second 2>&1 &
    wait $!
    wait $FIRST
    nothing_loaded
done
