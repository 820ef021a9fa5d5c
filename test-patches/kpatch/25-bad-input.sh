cp $M/ordinary.ko /tmp/ordinary.ko
head -c 9000 $M/lp_one.ko >/tmp/short.ko
mkdir -p /tmp/directory.ko
refused bad-module kpatch load /tmp/short.ko
refused bad-module kpatch load /tmp/ordinary.ko
says 'is no live patch'
refused not-a-file kpatch load /tmp/directory.ko
refused no-such-module kpatch load /tmp/absent.ko
refused release kpatch load $M/lp_foreign.ko
refused build-id kpatch load $M/lp_other_build.ko
refused path-given kpatch uninstall /var/lib/kpatch/lp_one.ko
refused not-installed kpatch uninstall lp_one
refused release kpatch install -k 5.10.0 $M/lp_one.ko
kpatch load && fail "no module is named"
kpatch nonsense && fail "no such command"
nothing_loaded
[ ! -e /var/lib/kpatch/5.10.0 ] || fail "a directory was made"
