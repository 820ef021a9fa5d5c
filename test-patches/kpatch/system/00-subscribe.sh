# The empty package subscribes a host.
repository 0
must apt-get -y install $PACKAGE
has_version 0-0
must systemctl is-enabled kpatch.service
must kpatch list
nothing_loaded
not_one
