//! Tables that come too late for a livepatch relocation that waits for a module.

/// Sections of tables that the module loader works through once, when the patch module is loaded.
///
/// A livepatch relocation that waits for another module comes too late for them: the entry has then been
/// applied, or refused, with zero in its place (`load_module`: `post_relocation` and the notifiers of
/// `MODULE_STATE_COMING`, Linux 5.8 to 7.2).
pub const SPECIAL_SECTIONS: [&str; 22] = [
    "__jump_table",
    ".static_call_sites",
    ".altinstructions",
    ".altinstr_aux",
    ".parainstructions",
    ".smp_locks",
    ".retpoline_sites",
    ".return_sites",
    ".call_sites",
    ".cfi_sites",
    ".ibt_endbr_seal",
    ".kcfi_traps",
    "__bug_table",
    "__ex_table",
    ".orc_unwind",
    ".orc_unwind_ip",
    "__mcount_loc",
    "__patchable_function_entries",
    "__tracepoints_ptrs",
    ".s390_indirect_jump",
    ".s390_return_mem",
    "__ftr_fixup",
];
