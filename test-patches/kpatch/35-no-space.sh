mkdir -p /var/lib/kpatch
mount -t tmpfs -o size=16k none /var/lib/kpatch
refused io kpatch install $M/lp_one.ko
says 'No space left'
[ -z "$(ls /var/lib/kpatch)" ] || fail "something is left: $(find /var/lib/kpatch)"
must kpatch list
silent_on "lp_one ("
mount -o remount,size=16m /var/lib/kpatch
must kpatch install $M/lp_one.ko
must kpatch uninstall lp_one
umount /var/lib/kpatch
# Without a place for records a patch is loaded all the same.
rm -rf /run/kpatch
mkdir -p /run/kpatch
mount -t tmpfs -o size=4k,nr_inodes=2 none /run/kpatch
must kpatch load $M/lp_one.ko
says 'loaded, but not since when'
has_one
must kpatch list
silent_on 'since 20'
must kpatch unload lp_one
umount /run/kpatch
