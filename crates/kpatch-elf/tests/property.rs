//! Any object that the model can hold comes back from the writer and the reader as it was.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use kpatch_elf::arch::Machine;
use kpatch_elf::{
    Contents, Endian, Info, Link, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId, binding,
    section_flags, section_type, symbol_kind,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn machine() -> impl Strategy<Value = Machine> {
    prop_oneof![
        Just(Machine::X86_64),
        Just(Machine::Aarch64),
        Just(Machine::Ppc64le),
        Just(Machine::S390x),
        Just(Machine::LoongArch64),
    ]
}

fn name() -> impl Strategy<Value = String> {
    // Equal names, names that are the end of others, and long ones.
    prop_oneof!["[a-c]{1,3}", "\\.text\\.[a-z_]{1,12}(\\.isra\\.[0-9])?", "_R[A-Za-z0-9]{200,300}"]
}

fn contents() -> impl Strategy<Value = Contents<'static>> {
    prop_oneof![
        vec(any::<u8>(), 0..64).prop_map(|bytes| Contents::Bytes(Cow::Owned(bytes))),
        (0..u64::MAX).prop_map(Contents::Zero),
    ]
}

/// A section without what refers to others.
fn section() -> impl Strategy<Value = Section<'static>> {
    (name(), contents(), 0_u32..10, 0_u64..64, any::<bool>()).prop_map(
        |(name, contents, align, entry_size, text)| {
            let kind = match contents {
                Contents::Zero(_) => section_type::NOBITS,
                _ => section_type::PROGBITS,
            };
            let flags =
                section_flags::ALLOC | if text { section_flags::EXECINSTR } else { section_flags::WRITE };
            let mut section = Section::new(name, kind, flags, 1 << align, Vec::new());
            section.contents = contents;
            section.entry_size = entry_size;
            section
        },
    )
}

/// Everything about a symbol but its place, and a number that leads to its place.
fn symbol() -> impl Strategy<Value = (Symbol<'static>, usize)> {
    let kind = prop_oneof![Just(symbol_kind::NOTYPE), Just(symbol_kind::OBJECT), Just(symbol_kind::FUNC)];
    let bound = prop_oneof![Just(binding::LOCAL), Just(binding::GLOBAL), Just(binding::WEAK)];
    (name(), any::<u64>(), any::<u64>(), kind, bound, any::<u8>(), any::<usize>()).prop_map(
        |(name, value, size, kind, binding, other, place)| {
            let symbol = Symbol {
                name: Cow::Owned(name.into()),
                value,
                size,
                kind,
                binding,
                other,
                place: Place::Undefined,
            };
            (symbol, place)
        },
    )
}

/// Section, offset, type, symbol, addend; numbers are brought into range later.
fn relocation() -> impl Strategy<Value = (usize, u64, u32, Option<usize>, i64)> {
    (any::<usize>(), any::<u64>(), 0_u32..300, any::<Option<usize>>(), any::<i64>())
}

prop_compose! {
    fn object()(
        machine in machine(),
        file_flags in any::<u32>(),
        sections in vec(section(), 1..12),
        mut symbols in vec(symbol(), 0..24),
        relocations in vec(relocation(), 0..24),
        links in vec(any::<Option<usize>>(), 12),
    ) -> Object<'static> {
        // The format wants local symbols first.
        symbols.sort_by_key(|(symbol, _)| symbol.binding != binding::LOCAL);
        let count = sections.len();
        let mut object = Object {
            machine,
            endian: if machine == Machine::S390x { Endian::Big } else { Endian::Little },
            file_flags,
            abi: [0, 0],
            sections,
            symbols: Vec::new(),
        };
        for (mut symbol, place) in symbols {
            symbol.place = match place % 8 {
                0 => Place::Undefined,
                1 => Place::Absolute,
                2 => Place::Common,
                3 => Place::Livepatch,
                _ => Place::Section(SectionId((place / 8 % count) as u32)),
            };
            object.symbols.push(symbol);
        }
        for (section, offset, kind, symbol, addend) in relocations {
            let known = object.symbols.len();
            let section = &mut object.sections[section % count];
            let size = section.size();
            let symbol = symbol.filter(|_| known > 0).map(|number| SymbolId((number % known) as u32));
            let offset = offset % size.saturating_add(1).max(1);
            section.relocations.to_mut().push(Relocation { offset, kind, symbol, addend });
        }
        for (section, link) in object.sections.iter_mut().zip(links) {
            section.relocations.to_mut().sort_by_key(|relocation| relocation.offset);
            if let Some(target) = link {
                section.flags |= section_flags::LINK_ORDER;
                section.link = Link::Section(SectionId((target % count) as u32));
            }
        }
        object
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_come_back_as_they_were(object in object()) {
        let bytes = object.write().unwrap();
        let again = Object::read(&bytes).unwrap();
        prop_assert_eq!(object.machine, again.machine);
        prop_assert_eq!(object.file_flags, again.file_flags);
        prop_assert_eq!(object.sections.len(), again.sections.len());
        for (one, other) in object.sections.iter().zip(&again.sections) {
            prop_assert_eq!(&one.name, &other.name);
            prop_assert_eq!((one.kind, one.flags, one.align, one.entry_size, one.link),
                (other.kind, other.flags, other.align, other.entry_size, other.link));
            prop_assert_eq!(&one.contents, &other.contents);
            prop_assert_eq!(one.info, Info::Raw(0));
            prop_assert_eq!(&one.relocations, &other.relocations);
        }
        prop_assert_eq!(object.symbols.len(), again.symbols.len());
        for (one, other) in object.symbols.iter().zip(&again.symbols) {
            prop_assert_eq!(&one.name, &other.name);
            prop_assert_eq!((one.value, one.size, one.kind, one.binding, one.other, one.place),
                (other.value, other.size, other.kind, other.binding, other.other, other.place));
        }
        prop_assert_eq!(again.write().unwrap(), bytes, "writing is stable");
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        // Behind a good header, so that more than the magic number is looked at.
        let header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0";
        let _ = Object::read(&bytes);
        let _ = Object::read(&[&header[..], &bytes].concat());
    }
}
