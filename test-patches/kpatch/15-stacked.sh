must kpatch load $M/lp_one.ko
must kpatch load $M/lp_two.ko
says 'meminfo_proc_show is patched by lp_one already'
has_two
not_one
must kpatch list
says 'meminfo_proc_show  lp_two (over lp_one)$'
must kpatch verify
must kpatch show
says 'CVE-2026-99999'
says '^    CVE-2026-99999: nobody could read it.$'
must kpatch unload lp_two
has_one
not_two
must kpatch load $M/lp_two.ko
must kpatch unload --all
nothing_loaded
not_one
not_two
