//! Places in code that boot, objtool or the linker rewrite, found by the tables that list them.

use std::collections::HashSet;

use kpatch_elf::{Object, SectionId};

/// Static-branch sites of an object: code offsets that `__jump_table` lists.
///
/// The compiler emits a jump or a no-op at each; objtool's final pass over vmlinux or a module turns jumps
/// into no-ops of the same length (`--hacks=jump_label`, since 5.14).
pub(super) struct Sites(HashSet<(SectionId, u64)>);

impl Sites {
    pub(super) fn of(object: &Object<'_>) -> Sites {
        let mut sites = HashSet::new();
        for section in object.sections.iter().filter(|s| s.name.as_ref() == "__jump_table") {
            // Entries are {code, target, key} (include/linux/jump_label.h); each relocation that points
            // into code names a site or its target. A target that counts as a site is harmless: only a
            // jump that became a no-op is forgiven there.
            for relocation in &section.relocations {
                let Some(symbol) = relocation.symbol.map(|s| object.symbol(s)) else { continue };
                if let Some(text) = symbol.section().filter(|&s| object.section(s).is_text()) {
                    sites.insert((text, symbol.value.wrapping_add_signed(relocation.addend)));
                }
            }
        }
        Sites(sites)
    }

    pub(super) fn contains(&self, section: SectionId, offset: u64) -> bool {
        self.0.contains(&(section, offset))
    }
}

/// True if `shipped` is the no-op that the kernel puts in place of the jump `compiled`
/// (`arch/x86/include/asm/nops.h`: BYTES_NOP2, BYTES_NOP5).
pub(super) fn is_retired_jump(compiled: &[u8], shipped: &[u8]) -> bool {
    match compiled.first() {
        Some(0xeb) => shipped.starts_with(&[0x66, 0x90]),
        Some(0xe9) => shipped.starts_with(&[0x0f, 0x1f, 0x44, 0x00, 0x00]),
        _ => false,
    }
}
