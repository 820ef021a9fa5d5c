not_one
must kpatch load $M/lp_one.ko
says "loading patch module"
has_one
must kpatch list
says '^lp_one \[enabled\] since 20'
says '^vmlinux  meminfo_proc_show  lp_one$'
must kpatch verify
says 'ok      vmlinux meminfo_proc_show: redirected'
says ' lead where the symbol table says'
silent_on 'references: 0 lead'
must kpatch uname
says '+lp_one$'
must kpatch load $M/lp_one.ko
says 'enabled already'
must kpatch info $M/lp_one.ko
says 'made by:'
must kpatch --json list
says '"state": "enabled"'
must kpatch unload lp_one
not_one
nothing_loaded
refused not-loaded kpatch unload lp_one
# The predecessor takes files and dashes as well.
must kpatch load $M/lp_one.ko
must kpatch unload lp-one.ko
nothing_loaded
