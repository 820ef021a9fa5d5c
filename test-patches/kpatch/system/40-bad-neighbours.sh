# Neither a corrupt nor a foreign module keeps the others from being loaded, nor the network from coming up.
has_one
has_two
kpatch list
must journalctl -b -u kpatch.service
says 'aa_corrupt.ko: it is not a readable kernel module'
says '\[kpatch::runtime::release\]'
says '2 of 3 modules failed'
must systemctl is-active systemd-networkd.service
systemctl is-active kpatch.service && fail "the failure of kpatch.service does not show"
must kpatch uninstall aa_corrupt
must kpatch uninstall zz_foreign
must systemctl restart kpatch.service
must systemctl is-active kpatch.service
