# A module of which another build is loaded than the patch is for; it may be absent, or come later.
insmod $M/ordinary.ko || fail "the module cannot be loaded"
refused build-id kpatch load $M/lp_other_module.ko
says 'patches dummy, but is made for another build of it'
nothing_loaded
must kpatch load $M/lp_module.ko
must kpatch list
says '^dummy '
must kpatch verify
must kpatch unload lp_module
rmmod dummy
must kpatch load $M/lp_module.ko
must kpatch verify
says 'dummy: not loaded'
insmod $M/ordinary.ko || fail "the module cannot be loaded"
must kpatch verify
silent_on 'not loaded'
must kpatch unload lp_module
rmmod dummy
nothing_loaded
