# Killed at each step; the next command goes on from what it finds.

# killed MOMENT CALL COMMAND…: dies there, and nowhere else.
killed() {
    moment=$1 call=$2
    shift 2
    echo "\$ killed $moment $call: $*"
    kill-at $moment $call "$@" >$SAID 2>&1
    status=$?
    cat $SAID
    [ $status -eq 137 ] || fail "it did not die there: status $status"
    must kpatch list
}

# Loading: nothing has happened.
killed before finit_module kpatch load $M/lp_v1.ko
nothing_loaded
must kpatch load $M/lp_v1.ko
has_one
must kpatch unload lp_v1

# The kernel has the module; what it began it ends.
killed after finit_module kpatch load $M/lp_v1.ko
must kpatch load $M/lp_v1.ko
has_one
must kpatch unload lp_v1
nothing_loaded

# In the transition. It can be taken back, or waited for.
sleep 1000 &
SLEEPER=$!
usleep 500000
killed before ppoll kpatch load $M/lp_sleep.ko
says 'lp_sleep \[enabling...\]'
must kpatch unload lp_sleep
nothing_loaded
killed before ppoll kpatch load $M/lp_sleep.ko
must kpatch load $M/lp_sleep.ko
says 'is being enabled already'
must kpatch list
says 'lp_sleep \[enabled\]'
kill $SLEEPER
must kpatch unload lp_sleep

# In force, but nobody noted since when.
killed before rename kpatch load $M/lp_v1.ko
silent_on 'since 20'
has_one
must kpatch load $M/lp_v1.ko
says 'enabled already'

# The replaced module is still there, without a patch, until it is unloaded.
killed before delete_module kpatch load $M/lp_v2.ko
has_two
says 'lp_v1'
must kpatch load $M/lp_v2.ko
has_two
must kpatch unload --all
nothing_loaded
must kpatch load $M/lp_v1.ko
killed after delete_module kpatch load $M/lp_v2.ko
has_two
silent_on 'lp_v1'
must kpatch unload lp_v2
nothing_loaded

# Unloading: still in force.
must kpatch load $M/lp_v1.ko
killed before write=/enabled kpatch unload lp_v1
says '^lp_v1 \[enabled\]'
has_one
killed after write=/enabled kpatch unload lp_v1
must kpatch unload lp_v1
nothing_loaded
not_one
must kpatch load $M/lp_v1.ko
killed before delete_module kpatch unload lp_v1
says 'lp_v1'
not_one
must kpatch unload lp_v1
nothing_loaded
must kpatch load $M/lp_v1.ko
killed after delete_module kpatch unload lp_v1
nothing_loaded
refused not-loaded kpatch unload lp_v1

# Installing: all of it or nothing.
for step in 'before write=.kpatch-' 'after write=.kpatch-' 'before fsync' 'after fsync' 'before rename'; do
    killed $step kpatch install $M/lp_v1.ko
    silent_on '^lp_v1 ('
    must kpatch load --all
    nothing_loaded
done
must kpatch install $M/lp_v1.ko
[ "$(ls -A /var/lib/kpatch/*/)" = lp_v1.ko ] || fail "what is unfinished stays: $(ls -A /var/lib/kpatch/*/)"
must kpatch uninstall lp_v1
killed after rename kpatch install $M/lp_v1.ko
says '^lp_v1 ('
refused already-installed kpatch install $M/lp_v1.ko
killed before unlink kpatch uninstall lp_v1
says '^lp_v1 ('
killed after unlink kpatch uninstall lp_v1
silent_on '^lp_v1 ('
refused not-installed kpatch uninstall lp_v1
must kpatch install $M/lp_v1.ko
must kpatch load --all
has_one
must kpatch unload --all
must kpatch uninstall lp_v1
