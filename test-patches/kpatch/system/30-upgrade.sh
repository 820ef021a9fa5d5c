# The next cumulative patch takes over. What a crash and a careless person leave among the modules stays for the boot.
# then: reboot
repository 2
without_gap apt-get -y upgrade
has_version 2-1
has_one
has_two
must kpatch list
silent_on '_1_1'
says '^kpatch_.*_2_1 \[enabled\]'
[ "$(installed | wc -l)" = 1 ] || fail "installed are $(installed)"
# An older version is no way back by itself.
must apt-get -y --allow-downgrades install $PACKAGE=1-1
says '\[kpatch::runtime::older\]'
has_two
must apt-get -y upgrade
has_version 2-1
has_two
module=/var/lib/kpatch/$REL/$(installed)
head -c 5000 $module >/var/lib/kpatch/$REL/aa_corrupt.ko
cp /shared/foreign.ko /var/lib/kpatch/$REL/zz_foreign.ko
