# Who removes the package is not opened to what it fixed, until the next boot.
# then: reboot
without_gap apt-get -y purge $PACKAGE
says 'stays patched until it is booted again'
has_two
[ ! -e /var/lib/kpatch/$REL ] || fail "something is installed: $(installed)"
