# The same by rpm, whose database knows nothing of what dpkg installed: hence --nodeps.
# then: off
cd /shared/rpm
rpm -i kpatch-patch-*-1-1.x86_64.rpm >/tmp/said 2>&1 && fail "the kernel's package is not needed"
cat /tmp/said
says "kernel-uname-r = $REL is needed"
must rpm -i --nodeps kpatch-patch-*-0-0.x86_64.rpm
nothing_loaded
must rpm -U --nodeps kpatch-patch-*-1-1.x86_64.rpm
says 'loading patch module: '
has_one
not_two
without_gap rpm -U --nodeps kpatch-patch-*-2-1.x86_64.rpm
has_two
must kpatch list
silent_on '_1_1'
[ "$(installed | wc -l)" = 1 ] || fail "installed are $(installed)"
without_gap rpm -e "$(rpm -qa 'kpatch-patch*')"
says 'stays patched until it is booted again'
has_two
[ -z "$(installed)" ] || fail "something is installed: $(installed)"
must kpatch unload --all
not_one
must rpm -i --nodeps kpatch-patch-*-2-1.x86_64.rpm
has_two
