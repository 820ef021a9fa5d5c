# An upgrade brings the first patch into force.
# then: reboot
repository 1
must apt-get -y upgrade
has_version 1-1
says 'loading patch module: /var/lib/kpatch/.*_1_1.ko'
has_one
not_two
must kpatch verify
must kpatch uname
says '+1-1$'
