# A case on the bare kernel begins with nothing, whatever the last one left.
kpatch unload --all >/dev/null 2>&1
rm -rf /var/lib/kpatch /run/kpatch
