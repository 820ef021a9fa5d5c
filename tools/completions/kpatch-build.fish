complete -c kpatch-build -s a -l archversion -d 'Kernel release to patch, as `uname -r` prints it [default: the running kernel]' -r
complete -c kpatch-build -s s -l sourcedir -d 'Source tree of your own; it is only read' -r -f -a "(__fish_complete_directories)"
complete -c kpatch-build -s c -l config -d 'Kernel configuration [default: of the release, or DIR/.config]' -r -F
complete -c kpatch-build -s v -l vmlinux -d 'The running kernel\'s vmlinux with debug information [default: of the release, or DIR/vmlinux]' -r -F
complete -c kpatch-build -l suite -d 'Suite to look for the release in, besides the host\'s own (repeatable)' -r
complete -c kpatch-build -l build-root -d 'Where compilers run: on the host or in a root file system with the kernel\'s own compiler' -r -f -a "(__fish_complete_directories)"
complete -c kpatch-build -s t -l target -d 'Patch only this: `vmlinux`, `modules`, a module as in `fs/xfs/xfs.ko`, or a directory as in `fs/xfs/` (repeatable) [default: vmlinux and modules]' -r
complete -c kpatch-build -s n -l name -d 'Name of the module [default: `livepatch-` and the name of the patch file]' -r
complete -c kpatch-build -s o -l output -d 'Directory for the module [default: the current directory]' -r -f -a "(__fish_complete_directories)"
complete -c kpatch-build -l fuzz -d 'Lines of context that may differ where a patch is applied' -r
complete -c kpatch-build -l skip-data-changes -d 'Leave out changes of the initial values of these data; the running kernel keeps the old ones (repeatable)' -r
complete -c kpatch-build -l allow-layout-change -d 'Accept that the patches change the layout of this structure (repeatable)' -r
complete -c kpatch-build -s j -l jobs -d 'Number of commands to run at once [default: number of processors]' -r
complete -c kpatch-build -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c kpatch-build -l json -d 'Write a report of the run, successful or not; `-` is the standard output' -r -F
complete -c kpatch-build -l generate -d 'Print a file that is generated from this command line\'s definition' -r -f -a "man\t'The man page'
complete-bash\t'Completions for bash'
complete-zsh\t'Completions for zsh'
complete-fish\t'Completions for fish'"
complete -c kpatch-build -l refresh -d 'Look the release up again, although an earlier run found it'
complete -c kpatch-build -s R -l non-replace -d 'Do not replace live patches that are loaded already'
complete -c kpatch-build -l skip-compiler-check -d 'Go on where a compiled original is not proven equal to the kernel, or the compiler differs'
complete -c kpatch-build -l skip-init-changes -d 'Leave out changes of code and data that the kernel frees after start, which have no effect any more'
complete -c kpatch-build -l only-touched-units -d 'Compile only units that the patches touch; others that read a touched header keep the old one'
complete -c kpatch-build -s d -l debug -d 'Print more, keep the work files; twice: also every command'
complete -c kpatch-build -l skip-cleanup -d 'Keep the work files'
complete -c kpatch-build -l quiet -d 'Print errors and warnings only'
complete -c kpatch-build -l time -d 'Print how long each phase took'
complete -c kpatch-build -l version -d 'Print the version'
complete -c kpatch-build -s h -l help -d 'Print help (see more with \'--help\')'
