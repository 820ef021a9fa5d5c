must kpatch load $M/lp_v1.ko
has_one
must kpatch show --available $M/lp_v2.ko
says 'spell the total in capitals (lp_v2)'
must kpatch load $M/lp_v2.ko
says 'lp_v2 replaces lp_v1'
says 'removed the replaced module lp_v1'
has_one
has_two
must kpatch verify
must kpatch diff $M/lp_v1.ko $M/lp_v2.ko
says '^~ function  vmlinux meminfo_proc_show$'
says '^+ patch     .*spell the total in capitals$'
refused older kpatch load $M/lp_v1.ko
has_two
must kpatch load --downgrade $M/lp_v1.ko
has_one
not_two
must kpatch unload lp_v1
nothing_loaded
