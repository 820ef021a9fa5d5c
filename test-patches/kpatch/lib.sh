# What all cases of kpatch use; put before each of them. Here and in what follows, any POSIX shell will do.

PATH=/shared:$PATH
M=/shared
SAID=/tmp/said

fail() {
    echo "FAILED: $*"
    kpatch list
    exit 1
}

# must COMMAND…: succeeds. What it prints is kept for `says`.
must() {
    echo "\$ $*"
    "$@" >$SAID 2>&1
    status=$?
    cat $SAID
    [ $status -eq 0 ] || fail "status $status"
}

# refused CODE COMMAND…: fails with this error and exit status 1.
refused() {
    code=$1
    shift
    echo "\$ $*"
    "$@" >$SAID 2>&1
    status=$?
    cat $SAID
    [ $status -eq 1 ] || fail "status $status, not 1"
    grep -q "\[kpatch::runtime::$code\]" $SAID || fail "no error $code"
}

says() { grep -q -- "$1" $SAID || fail "it does not say \`$1\`"; }
silent_on() { ! grep -q -- "$1" $SAID || fail "it says \`$1\`"; }

# The effects of the patches one.patch and two.patch.
has_one() { grep -q '^PERCPU:' /proc/meminfo || fail "the first patch has no effect"; }
has_two() { grep -q '^MEMTOTAL:' /proc/meminfo || fail "the second patch has no effect"; }
not_one() { grep -q '^Percpu:' /proc/meminfo || fail "the first patch has an effect"; }
not_two() { grep -q '^MemTotal:' /proc/meminfo || fail "the second patch has an effect"; }

nothing_loaded() {
    [ -z "$(ls /sys/kernel/livepatch)" ] || fail "a live patch is loaded"
    ! grep -q '^lp_' /proc/modules || fail "a module is loaded"
}
