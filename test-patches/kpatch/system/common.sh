# What the cases of a whole system use, after ../lib.sh.

REL=$(uname -r)
PACKAGE=kpatch-patch-$REL
export DEBIAN_FRONTEND=noninteractive

# repository N: from now on, apt knows the packages of that state of the world.
repository() {
    echo "deb [trusted=yes] file:/shared/$1 ./" >/etc/apt/sources.list
    must apt-get -qq update
}

# has_version VERSION: of the package with the live patch.
has_version() {
    found=$(dpkg-query -W -f '${Version}' $PACKAGE)
    [ "$found" = "$1" ] || fail "version $found of $PACKAGE is installed, not $1"
}

# without_gap COMMAND…: must succeed, and at no moment does /proc/meminfo show the first patch without effect.
without_gap() {
    (while :; do cat /proc/meminfo; done >/tmp/watched) &
    watcher=$!
    must "$@"
    kill $watcher
    [ "$(grep -c '^PERCPU:' /tmp/watched)" -ge 10 ] || fail "nobody looked"
    ! grep -q '^Percpu:' /tmp/watched || fail "there was a moment without the patch"
}

# started UNIT: when it was begun, microseconds since the boot.
started() { systemctl show -P ExecMainStartTimestampMonotonic "$1"; }

# The modules that are installed.
installed() { ls /var/lib/kpatch/$REL; }
