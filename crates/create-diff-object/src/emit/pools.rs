//! Strings and constants, each once, in sections by where they came from.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kpatch_elf::{Contents, Section, SectionId, SymbolId, section_flags, section_type};

use super::{Emitter, like};

pub(super) struct Pool {
    section: SectionId,
    bytes: Vec<u8>,
    align: usize,
    known: BTreeMap<Vec<u8>, u64>,
}

/// Where names of source files go that were absolute. The compiler's choice of a section follows from the length
/// of the whole path, which must not show.
const FILE_NAMES: &str = ".rodata.str1.1";

impl Emitter<'_, '_> {
    /// Puts a string or constant into the pool of its section, once.
    pub(super) fn pool(&mut self, from: Option<SectionId>, bytes: Vec<u8>) -> (SymbolId, u64) {
        let unit = self.parts.patched;
        let out = &mut self.out;
        let pool = self.pools.entry(from).or_insert_with(|| {
            let empty = Contents::Bytes(Cow::Owned(Vec::new()));
            let new = match from {
                Some(from) => {
                    let section = unit.object.section(from);
                    let mut new = like(section, section.align, empty);
                    // Linked as it is: merging would have to know what section symbols with offsets mean.
                    new.flags &= !(section_flags::MERGE | section_flags::STRINGS);
                    new.entry_size = 0;
                    new
                }
                None => Section::new(FILE_NAMES, section_type::PROGBITS, section_flags::ALLOC, 1, Vec::new()),
            };
            let align = usize::try_from(new.align.clamp(1, 4096)).unwrap_or(1);
            Pool { section: out.add_section(new), bytes: Vec::new(), align, known: BTreeMap::new() }
        });
        let place = if let Some(&place) = pool.known.get(&bytes) {
            place
        } else {
            pool.bytes.resize(pool.bytes.len().next_multiple_of(pool.align), 0);
            let place = pool.bytes.len() as u64;
            pool.bytes.extend_from_slice(&bytes);
            pool.known.insert(bytes, place);
            place
        };
        let section = pool.section;
        (self.section_symbol(section), place)
    }

    pub(super) fn pour_pools(&mut self) {
        for pool in std::mem::take(&mut self.pools).into_values() {
            self.out.sections[pool.section.index()].contents = Contents::Bytes(Cow::Owned(pool.bytes));
        }
    }
}
