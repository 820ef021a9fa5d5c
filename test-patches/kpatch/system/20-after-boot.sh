# It comes up patched, before the network does, and in an order that systemd can keep.
has_one
must systemctl is-active kpatch.service early.service systemd-networkd.service
must journalctl -b -u kpatch.service
says 'loading patch module: /var/lib/kpatch/.*_1_1.ko'
must journalctl -b
silent_on 'ordering cycle'
[ "$(started kpatch.service)" -gt 0 ] || fail "kpatch.service was not started"
[ "$(started kpatch.service)" -lt "$(started systemd-networkd.service)" ] || fail "the network came first"
[ "$(started kpatch.service)" -lt "$(started early.service)" ] || fail "what follows the network came first"
must kpatch list
says '^kpatch_.*_1_1 \[enabled\] since 20'
must kpatch verify
