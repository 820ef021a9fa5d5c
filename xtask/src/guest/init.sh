#!/bin/busybox sh
# First process of the guest. Runs every case under /cases in order and reports on the second serial port, one fact a
# line, so that what the kernel prints on the first one cannot be mistaken for a result and the other way round.

/bin/busybox mkdir -p /bin /proc /sys /dev /tmp /run /mnt
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null

. /settings
exec 3>"/dev/$REPORT_TTY"
stty -F "/dev/$REPORT_TTY" raw 2>/dev/null

say() { echo "@@ $*" >&3; }
# Output of a program, each line marked, so that no text of a test can look like a fact.
quote() { sed 's/^/@> /' "$1" >&3; }
# Marks in the kernel log which case the following lines belong to.
mark() { echo "kpatch-guest: $*" >/dev/kmsg; }
# A hundredth of a second as a number that has no leading zero, which would make it octal.
centis() { read -r up idle </proc/uptime; echo $((${up%.*} * 100 + 1${up#*.} - 100)); }

# step NAME DETAIL…: the named step failed. ok NAME [DETAIL…]: it did what it should.
bad() { say step "$ID" fail "$@"; FAILED=1; }
ok() { say step "$ID" ok "$@"; }

# Runs the test of the case. Status 0: the patched behaviour shows. 1 to 125: it does not.
run_test() {
    rm -rf /tmp/work
    mkdir -p /tmp/work
    (cd /tmp/work && export FILES="$DIR/files" && exec timeout -s KILL "$TEST_SECONDS" sh "$DIR/test") </dev/null >/tmp/out 2>&1
}

# The test must fail: its patch is not there.
want_absent() {
    [ -n "$HAS_TEST" ] || return 0
    run_test
    status=$?
    if [ "$status" -eq 0 ]; then
        quote /tmp/out
        bad "$1" "the test succeeds although the patch is not active"
    elif [ "$status" -ge 126 ]; then
        quote /tmp/out
        bad "$1" "the test itself is broken or was stopped: status $status"
    elif grep -q ': not found$' /tmp/out; then
        # It may have gone on after that and failed for this reason alone.
        quote /tmp/out
        bad "$1" "the test calls a program that busybox does not have"
    else
        ok "$1"
    fi
}

want_present() {
    [ -n "$HAS_TEST" ] || return 0
    run_test
    status=$?
    if [ "$status" -eq 0 ]; then
        ok "$1"
    else
        quote /tmp/out
        bad "$1" "the test fails although the patch is active: status $status"
    fi
}

# load STEP FILE…: kernel modules of the image, dependencies first; those already present are left alone.
load() {
    step=$1
    shift
    for file in "$@"; do
        name=${file##*/}
        name=${name%.ko}
        name=$(echo "$name" | tr - _)
        [ -e "/sys/module/$name" ] && continue
        if ! insmod "/modules/$file" >/tmp/out 2>&1; then
            quote /tmp/out
            bad "$step" "cannot load $name"
            return 1
        fi
        LOADED="$name $LOADED"
    done
    ok "$step"
}

# Takes out what `load` put in, last first. What will not go is left: it is part of the image.
unload_loaded() {
    for name in $LOADED; do
        rmmod "$name" 2>/dev/null
    done
    LOADED=
}

# wait_for SECONDS CONDITION…: polls ten times a second.
wait_for() {
    left=$(($1 * 10))
    shift
    while ! "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        usleep 100000
    done
}
transition_over() { [ "$(cat "$LP/transition" 2>/dev/null)" = 0 ]; }
patch_gone() { [ ! -e "$LP" ]; }
module_gone() { rmmod "$MODULE" 2>/tmp/out; [ ! -e "/sys/module/$MODULE" ]; }

# Tasks that hold a transition up, with their stacks: the reason a person asks for first.
stalled_tasks() {
    for task in /proc/[0-9]*/task/[0-9]*; do
        [ "$(cat "$task/patch_state" 2>/dev/null)" = "$1" ] || continue
        echo "not switched: $(cat "$task/comm")"
        cat "$task/stack" 2>/dev/null
    done >/tmp/out
    quote /tmp/out
}

# What the kernel still knows of the module when it is gone: traced functions, messages of dynamic debug.
leftovers() {
    cat /sys/kernel/tracing/enabled_functions 2>/dev/null
    grep -F "[$MODULE]" /proc/dynamic_debug/control 2>/dev/null
}

unload_patch() {
    if [ -e "$LP" ]; then
        echo 0 >"$LP/enabled"
        if ! wait_for "$TRANSITION_SECONDS" patch_gone; then
            stalled_tasks 1
            bad disable "the transition back does not end"
            return 1
        fi
        ok disable
    fi
    if [ -e "/sys/module/$MODULE" ]; then
        if ! wait_for 10 module_gone; then
            quote /tmp/out
            bad unload "the module cannot be removed"
            return 1
        fi
        leftovers >/tmp/out
        if [ -s /tmp/out ]; then
            quote /tmp/out
            bad unload "something of the module is left behind"
            return 1
        fi
        ok unload
    fi
}

run_case() {
    DIR=/cases/$ID
    MODULE= BEFORE= AFTER= HAS_TEST= ABSENT_OBJECTS= FAILED= LOADED=
    . "$DIR/case"
    LP=/sys/kernel/livepatch/$MODULE

    if [ -n "$HAS_TEST" ] && ! sh -n "$DIR/test" 2>/tmp/out; then
        quote /tmp/out
        bad test "the test is not a valid shell script"
        return
    fi

    load load-before $BEFORE || return
    if [ -z "$MODULE" ]; then
        run_test
        status=$?
        quote /tmp/out
        say output "$ID"
        [ "$status" -eq 0 ] || bad test "status $status"
        return
    fi
    KEEP=$LOADED
    # The modules that come late are there, too, when the test shows that unpatched code fails it.
    if [ -n "$AFTER" ]; then
        LOADED=
        load load-after-unpatched $AFTER || return
    fi
    want_absent test-before
    if [ -n "$AFTER" ]; then
        for name in $LOADED; do
            if ! rmmod "$name" 2>/tmp/out; then
                quote /tmp/out
                bad load-after-unpatched "$name cannot be removed again"
                return
            fi
        done
        LOADED=$KEEP
    fi

    start=$(centis)
    if ! insmod "$DIR/$MODULE.ko" >/tmp/out 2>&1; then
        quote /tmp/out
        bad insmod "the kernel refuses the module"
        return
    fi
    ok insmod
    say time "$ID" insmod $(($(centis) - start))
    if [ ! -e "$LP" ]; then
        bad livepatch "the module is loaded but registers no live patch"
        return
    fi
    if ! wait_for "$TRANSITION_SECONDS" transition_over; then
        stalled_tasks 0
        bad transition "the transition does not end"
        return
    fi
    ok transition
    say time "$ID" transition $(($(centis) - start))
    if [ "$(cat "$LP/enabled")" != 1 ]; then
        bad enabled "the live patch is not enabled"
        return
    fi

    load load-after $AFTER || return
    objects=0
    for object in "$LP"/*/; do
        object=${object%/}
        objects=$((objects + 1))
        # Kernels before 6.1 do not tell.
        state=unknown
        [ -e "$object/patched" ] && read -r state <"$object/patched"
        functions=$(ls -d "$object"/*,* 2>/dev/null | wc -l)
        say object "$ID" "${object##*/}" "$state" "$functions"
        [ "$functions" -gt 0 ] || bad patched "${object##*/} has no function"
        case "$state:$ABSENT_OBJECTS" in
        0:) bad patched "${object##*/} is not patched" ;;
        esac
    done
    if [ "$objects" -gt 0 ]; then
        ok patched
    else
        bad patched "the live patch has no object"
    fi

    want_present test-patched
}

say ready "$(uname -r)"
for ID in $CASES; do
    mark begin "$ID"
    say begin "$ID"
    run_case
    tainted=
    if [ -n "$MODULE" ]; then
        unload_patch || tainted=1
    fi
    if [ -n "$MODULE" ] && [ -z "$tainted" ] && [ -z "$FAILED" ]; then
        want_absent test-after
    fi
    unload_loaded
    mark end "$ID"
    # The kernel log goes out on the other port: let it be complete before this case counts as over.
    usleep 50000
    say end "$ID" "${FAILED:-0}"
    if [ -n "$tainted" ]; then
        # A kernel with a patch that cannot be removed tells nothing about the next case.
        say restart
        reboot -f
    fi
done
say done
sync
reboot -f
