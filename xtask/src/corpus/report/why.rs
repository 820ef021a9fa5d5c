//! Why refusals are right, by code.

/// What the report says of a code.
pub(super) fn right(code: &str) -> &'static str {
    match code {
        "all-left-out" => "All that changed is exit code of a module, which has no entry to be redirected",
        "always-on-stack" => "Every task that sleeps is in the function; the transition could not end",
        "compiler-error" => {
            "The patch is no whole: a unit does not compile with it, since it needs what the same \
                             release changed in other files"
        }
        "crc-changed" => {
            "Patched code uses an export whose type the patch changes; the running kernel has the old one"
        }
        "layout-changed" => {
            "Live objects keep the old layout, and code that is not patched uses it. The author keeps new data elsewhere, \
             or accepts the change with --allow-layout-change"
        }
        "data-changed" => {
            "The datum is in use: the running kernel would go on with the old value or size. The author \
                           sets it in a callback, or leaves it out with --skip-data-changes"
        }
        "depends-on-skipped" => "Code of the patch relies on what would be left out",
        "empty" => "The patch only adds code, which nothing in the running kernel calls",
        "init-changed" => {
            "The code has run and is freed. The author does what it would do in a callback, or leaves \
                           it out with --skip-init-changes"
        }
        "init-reference" => "New code would call what is freed",
        "no-entry" => {
            "The function cannot be redirected, and it is exported, or its address is held by more than calls, or a \
                       caller's callers are not known; the refusal says which"
        }
        "prototype-changed" => "Old and new code would call each other with other parameters",
        "not-compiled" => "This kernel's configuration does not compile the file",
        "registration" => "What registers itself at start comes too late",
        "unresolved" => "The symbol is in no kernel: the same release added it in a sister file",
        "not-shipped" | "not-in-kallsyms" | "local-ambiguous" | "file-ambiguous" => {
            "livepatch could not find the symbol in this kernel, or would take another"
        }
        "module-static-key" | "module-static-call" | "module-special-section" => {
            "The table would be read before livepatch knows where the module is"
        }
        "out-of-reach" => "The file's code is no part of the running kernel proper",
        _ => "UNEXPLAINED",
    }
}
