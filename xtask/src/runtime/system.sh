#!/bin/sh
# Runs the cases of a whole system, as init.sh does on the bare kernel, over as many boots as they want. A case counts as
# begun before it is: one that takes the machine down is not begun again.
exec 3>/dev/ttyS1
stty -F /dev/ttyS1 raw

say() { echo "@@ $*" >&3; }
mark() { echo "kpatch-guest: $*" >/dev/kmsg; }

cd /shared
done=$(cat done 2>/dev/null || echo 0)
while
    done=$((done + 1))
    line=$(sed -n "${done}p" list)
    [ -n "$line" ]
do
    echo $done >done
    sync
    set -- $line
    id=$1 file=$2 then=$3
    [ "$id" != 0 ] || say ready "$(uname -r)"
    mark begin "$id"
    say begin "$id"
    timeout -s KILL 600 sh "stages/$file" </dev/null >/tmp/out 2>&1
    status=$?
    sed 's/^/@> /' /tmp/out >&3
    say output "$id"
    [ $status -eq 0 ] || say step "$id" fail test "status $status"
    mark end "$id"
    sleep 1
    say end "$id" $status
    case $then in
    reboot)
        systemctl reboot
        exit
        ;;
    off)
        say "done"
        systemctl poweroff
        exit
        ;;
    esac
done
