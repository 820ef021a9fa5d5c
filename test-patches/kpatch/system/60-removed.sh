# Booted again, the kernel is its own; with nothing to load, the unit succeeds.
nothing_loaded
not_one
not_two
must systemctl is-active kpatch.service
