# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_kpatch_build_global_optspecs
    string join \n a/archversion= s/sourcedir= build-dir= c/config= v/vmlinux= suite= refresh build-root= t/target= n/name= o/output= R/non-replace package= package-version= sign-key= sign-cert= fuzz= skip-compiler-check skip-init-changes skip-data-changes= only-touched-units all-readers whole-tree split allow-layout-change= cc-launcher= cache-size= j/jobs= d/debug skip-cleanup quiet color= time json= version generate= h/help
end

function __fish_kpatch_build_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_kpatch_build_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_kpatch_build_using_subcommand
    set -l cmd (__fish_kpatch_build_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s a -l archversion -d 'Kernel release to patch, as `uname -r` prints it [default: the running kernel]' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s s -l sourcedir -d 'Source tree of your own; it is only read' -r -f -a "(__fish_complete_directories)"
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l build-dir -d 'Directory in which that tree was built, where it is another (`make O=DIR`)' -r -f -a "(__fish_complete_directories)"
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s c -l config -d 'Kernel configuration [default: of the release, or DIR/.config]' -r -F
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s v -l vmlinux -d 'The running kernel\'s vmlinux with debug information [default: of the release, or DIR/vmlinux]' -r -F
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l suite -d 'Suite to look for the release in, besides the host\'s own (repeatable)' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l build-root -d 'Where compilers run: on the host or in a root file system with the kernel\'s own compiler' -r -f -a "(__fish_complete_directories)"
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s t -l target -d 'Patch only this: `vmlinux`, `modules`, a module as in `fs/xfs/xfs.ko`, or a directory as in `fs/xfs/` (repeatable) [default: vmlinux and modules]' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s n -l name -d 'Name of the module [default: `livepatch-` and the name of the patch file]' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s o -l output -d 'Directory for the module [default: the current directory]' -r -f -a "(__fish_complete_directories)"
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l package -d 'Also make a package of the module, `kpatch-patch-RELEASE`' -r -f -a "deb\t'Debian\'s'
rpm\t'That of rpm'"
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l package-version -d 'Version of the package: number of the cumulative patch, and of its packaging [default: 1-1]' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l sign-key -d 'Sign the module with this private key, in PEM' -r -F
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l sign-cert -d 'The certificate of that key, which the kernel must trust' -r -F
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l fuzz -d 'Lines of context that may differ where a patch is applied' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l skip-data-changes -d 'Leave out changes of the initial values of these data; the running kernel keeps the old ones (repeatable)' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l allow-layout-change -d 'Accept that the patches change the layout of this structure (repeatable)' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l cc-launcher -d 'Command to run compilers by, such as ccache, sccache or distcc [default: the words of CC before the compiler]' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l cache-size -d 'Most bytes of compiled objects to keep in the cache, as in 500M or 4G [default: 2G]' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s j -l jobs -d 'Number of commands to run at once [default: number of processors]' -r
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l json -d 'Write a report of the run, successful or not; `-` is the standard output' -r -F
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l generate -d 'Print a file that is generated from this command line\'s definition' -r -f -a "man\t'The man page'
complete-bash\t'Completions for bash'
complete-zsh\t'Completions for zsh'
complete-fish\t'Completions for fish'"
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l refresh -d 'Look the release up again, although an earlier run found it'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s R -l non-replace -d 'Do not replace live patches that are loaded already'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l skip-compiler-check -d 'Go on where a compiled original is not proven equal to the kernel, or the compiler differs'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l skip-init-changes -d 'Leave out changes of code and data that the kernel frees after start, which have no effect any more'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l only-touched-units -d 'Compile only units that the patches touch; others that read a touched header keep the old one'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l all-readers -d 'Preprocess every unit that may read a touched header, whatever its text mentions'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l whole-tree -d 'Find the units to compile by building the original and the patched tree completely'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l split -d 'Where the patches are refused, say which of their hunks could be built alone'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s d -l debug -d 'Print more, keep the work files; twice: also every command'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l skip-cleanup -d 'Keep the work files'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l quiet -d 'Print errors and warnings only'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l time -d 'Print how long each phase took'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -l version -d 'Print the version'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpatch-build -n "__fish_kpatch_build_needs_command" -a "cache" -d 'Look after the cache of kernels and compiled objects'
complete -c kpatch-build -n "__fish_kpatch_build_using_subcommand cache; and not __fish_seen_subcommand_from list prune verify" -s h -l help -d 'Print help'
complete -c kpatch-build -n "__fish_kpatch_build_using_subcommand cache; and not __fish_seen_subcommand_from list prune verify" -f -a "list" -d 'Tell what it holds, and how much room that takes'
complete -c kpatch-build -n "__fish_kpatch_build_using_subcommand cache; and not __fish_seen_subcommand_from list prune verify" -f -a "prune" -d 'Remove the objects that were not used for longest, and what killed runs left'
complete -c kpatch-build -n "__fish_kpatch_build_using_subcommand cache; and not __fish_seen_subcommand_from list prune verify" -f -a "verify" -d 'Check every compiled object, and remove those that are damaged'
complete -c kpatch-build -n "__fish_kpatch_build_using_subcommand cache; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c kpatch-build -n "__fish_kpatch_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -l cache-size -d 'Most bytes of objects to keep, as in 500M or 4G [default: 2G]' -r
complete -c kpatch-build -n "__fish_kpatch_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c kpatch-build -n "__fish_kpatch_build_using_subcommand cache; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
