rm -rf /var/lib/kpatch
REL=$(uname -r)
must kpatch install $M/lp_one.ko
must kpatch install $M/lp_two.ko
refused already-installed kpatch install $M/lp_one.ko
# What a crash or somebody else may leave there.
head -c 5000 $M/lp_one.ko >/var/lib/kpatch/$REL/aa_corrupt.ko
cp $M/lp_foreign.ko /var/lib/kpatch/$REL/
head -c 5000 $M/lp_one.ko >/var/lib/kpatch/$REL/.kpatch-half
refused some-failed kpatch load --all
says 'aa_corrupt.ko: it is not a readable kernel module'
says '2 of 4 modules failed'
has_two
must kpatch list
says "^lp_one ($REL)$"
must kpatch unload --all
nothing_loaded
must kpatch uninstall aa_corrupt
[ ! -e /var/lib/kpatch/$REL/.kpatch-half ] || fail "what is unfinished stays"
must kpatch uninstall lp_foreign
must kpatch uninstall lp-two
must kpatch load --all
has_one
must kpatch uninstall lp_one.ko
has_one
must kpatch unload --all
[ ! -e /var/lib/kpatch/$REL ] || fail "the empty directory stays"
