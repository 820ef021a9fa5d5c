# One sentence, with what may help below it, and nothing is changed.
one_sentence() {
    refused "$@"
    [ "$(grep -vc '^  ' $SAID)" = 1 ] || fail "it says more than a sentence"
    nothing_loaded
    [ -z "$(ls -A /var/lib/kpatch 2>/dev/null)" ] || fail "something is installed"
}

cp $M/ordinary.ko /tmp/ordinary.ko
head -c 9000 $M/lp_one.ko >/tmp/short.ko
mkdir -p /tmp/directory.ko
one_sentence bad-module kpatch load /tmp/short.ko
one_sentence bad-module kpatch load /tmp/ordinary.ko
says 'is no live patch'
one_sentence not-a-file kpatch load /tmp/directory.ko
one_sentence no-such-module kpatch load /tmp/absent.ko
one_sentence release kpatch load $M/lp_foreign.ko
one_sentence build-id kpatch load $M/lp_other_build.ko
one_sentence path-given kpatch uninstall /var/lib/kpatch/lp_one.ko
one_sentence not-installed kpatch uninstall lp_one
one_sentence release kpatch install -k 5.10.0 $M/lp_one.ko
kpatch load && fail "no module is named"
kpatch nonsense && fail "no such command"
nothing_loaded
