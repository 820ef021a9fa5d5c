# The administrator's way out: nothing is loaded, neither at boot nor by an installation.
# boot: kpatch.enable=0
# then: off
nothing_loaded
not_one
installed | grep -q '_2_1.ko$' || fail "nothing is installed"
systemctl is-active kpatch.service && fail "kpatch.service runs"
must systemctl show -P ConditionResult kpatch.service
says '^no$'
repository 1
must rpm -e "$(rpm -qa 'kpatch-patch*')"
must apt-get -y install $PACKAGE
nothing_loaded
must kpatch load --all
has_one
