# A kernel that takes nothing unsigned, and trusts the key of the tests.
# boot: module.sig_enforce=1
# key: enrolled
refused unsigned kpatch load $M/lp_one.ko
says 'this kernel accepts signed modules only (module.sig_enforce)'
nothing_loaded
# Signed, but by a stranger; and by the right one, but not these bytes.
refused refused kpatch load $M/lp_stranger.ko
says 'no key that the kernel trusts signed it'
cp $M/lp_signed.ko /tmp/lp_signed.ko
printf X | dd of=/tmp/lp_signed.ko bs=1 seek=72 conv=notrunc 2>/dev/null
refused refused kpatch load /tmp/lp_signed.ko
nothing_loaded
not_one
must kpatch info $M/lp_signed.ko
says '^signed: *yes$'
must kpatch load $M/lp_signed.ko
has_one
must kpatch verify
must kpatch unload lp_signed
nothing_loaded
