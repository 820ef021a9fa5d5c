# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_kpatch_global_optspecs
    string join \n root= json v/version generate= h/help
end

function __fish_kpatch_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_kpatch_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_kpatch_using_subcommand
    set -l cmd (__fish_kpatch_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c kpatch -n "__fish_kpatch_needs_command" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_needs_command" -l generate -d 'Print a file that is generated from this command line\'s definition' -r -f -a "man\t'The man page'
complete-bash\t'Completions for bash'
complete-zsh\t'Completions for zsh'
complete-fish\t'Completions for fish'"
complete -c kpatch -n "__fish_kpatch_needs_command" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_needs_command" -s v -l version -d 'Print the version'
complete -c kpatch -n "__fish_kpatch_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "load" -d 'Load a patch module, or all installed ones'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "unload" -d 'Disable a patch and remove its module'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "install" -d 'Install a module, to be loaded at boot'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "uninstall" -d 'Remove an installed module; it stays loaded'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "list" -d 'List loaded and installed modules, and which one provides each patched function'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "info" -d 'Show what a module carries'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "diff" -d 'Compare two versions of a module'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "show" -d 'Show the fixes in force, with their text'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "uname" -d 'Print the kernel\'s release with the live patches in force'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "verify" -d 'Check that loaded patches do what their modules say'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "signal" -d 'Signal the tasks that hold a transition up, where the kernel does not do that by itself'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "force" -d 'Force the transition under way, although tasks are still in functions that change'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "version" -d 'Print the version'
complete -c kpatch -n "__fish_kpatch_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kpatch -n "__fish_kpatch_using_subcommand load" -l timeout -d 'Seconds that a transition may take before it is undone' -r
complete -c kpatch -n "__fish_kpatch_using_subcommand load" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand load" -s a -l all -d 'All modules installed for the running kernel'
complete -c kpatch -n "__fish_kpatch_using_subcommand load" -l downgrade -d 'Load it although a loaded module holds all its patches and more'
complete -c kpatch -n "__fish_kpatch_using_subcommand load" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand load" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand unload" -l timeout -d 'Seconds that a transition may take before it is undone' -r
complete -c kpatch -n "__fish_kpatch_using_subcommand unload" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand unload" -s a -l all -d 'All that are loaded'
complete -c kpatch -n "__fish_kpatch_using_subcommand unload" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand unload" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand install" -s k -l kernel-version -d 'The kernel release it is for [default: the running kernel]' -r
complete -c kpatch -n "__fish_kpatch_using_subcommand install" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand install" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand install" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand uninstall" -s k -l kernel-version -d 'The kernel release it is for [default: the running kernel]' -r
complete -c kpatch -n "__fish_kpatch_using_subcommand uninstall" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand uninstall" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand uninstall" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand list" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand list" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand list" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand info" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand info" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand info" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand diff" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand diff" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand diff" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand show" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand show" -l available -d 'Show the fixes that installed modules, or the named ones, would add'
complete -c kpatch -n "__fish_kpatch_using_subcommand show" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand show" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand uname" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand uname" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand uname" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand verify" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand verify" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand verify" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand signal" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand signal" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand signal" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand force" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand force" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand force" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand version" -l root -d 'Work on the system below this directory' -r -f -a "(__fish_complete_directories)"
complete -c kpatch -n "__fish_kpatch_using_subcommand version" -l json -d 'Print one JSON value instead of text'
complete -c kpatch -n "__fish_kpatch_using_subcommand version" -s h -l help -d 'Print help'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "load" -d 'Load a patch module, or all installed ones'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "unload" -d 'Disable a patch and remove its module'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "install" -d 'Install a module, to be loaded at boot'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "uninstall" -d 'Remove an installed module; it stays loaded'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "list" -d 'List loaded and installed modules, and which one provides each patched function'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "info" -d 'Show what a module carries'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "diff" -d 'Compare two versions of a module'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "show" -d 'Show the fixes in force, with their text'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "uname" -d 'Print the kernel\'s release with the live patches in force'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "verify" -d 'Check that loaded patches do what their modules say'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "signal" -d 'Signal the tasks that hold a transition up, where the kernel does not do that by itself'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "force" -d 'Force the transition under way, although tasks are still in functions that change'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "version" -d 'Print the version'
complete -c kpatch -n "__fish_kpatch_using_subcommand help; and not __fish_seen_subcommand_from load unload install uninstall list info diff show uname verify signal force version help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
