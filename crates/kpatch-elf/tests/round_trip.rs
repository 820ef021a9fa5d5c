//! The reader and the writer agree with each other and with a second reader on real objects.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic")]

use kpatch_elf::{Contents, Object};

/// Objects of five machines made by other people's compilers, see fixtures/objdiff/README.md.
fn corpus() -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/objdiff");
    let mut objects = Vec::new();
    for machine in std::fs::read_dir(&root).expect("fixtures/objdiff exists") {
        let machine = machine.unwrap().path();
        if !machine.is_dir() {
            continue;
        }
        for case in std::fs::read_dir(machine).unwrap() {
            let case = case.unwrap().path();
            objects.push(case.join("original.o"));
            objects.push(case.join("patched.o"));
        }
    }
    objects.sort();
    objects
}

fn same(a: &Object<'_>, b: &Object<'_>) {
    assert_eq!(a.sections.len(), b.sections.len());
    for (x, y) in a.sections.iter().zip(&b.sections) {
        assert_eq!(x.name, y.name);
        assert_eq!((x.kind, x.flags, x.align, x.entry_size), (y.kind, y.flags, y.align, y.entry_size));
        assert_eq!(x.size(), y.size(), "{}", x.name);
        assert_eq!(x.link, y.link, "{}", x.name);
        if let Contents::Bytes(_) = x.contents {
            assert_eq!(x.bytes(), y.bytes(), "{}", x.name);
        }
        assert_eq!(x.relocations.len(), y.relocations.len(), "{}", x.name);
        for (r, s) in x.relocations.iter().zip(&y.relocations) {
            assert_eq!((r.offset, r.kind, r.addend), (s.offset, s.kind, s.addend));
            assert_eq!(r.symbol.map(|i| a.display_name(i)), s.symbol.map(|i| b.display_name(i)));
        }
    }
    assert_eq!(a.symbols.len(), b.symbols.len());
}

#[test]
fn corpus_round_trips() {
    let objects = corpus();
    assert!(objects.len() >= 100, "corpus has only {} objects", objects.len());
    for path in objects {
        let bytes = std::fs::read(&path).unwrap();
        let first = Object::read(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let written = first.write().unwrap();
        let second = Object::read(&written).unwrap_or_else(|e| panic!("{} rewritten: {e}", path.display()));
        same(&first, &second);
        assert_eq!(written, second.write().unwrap(), "{}: writing is not stable", path.display());

        let other = goblin::elf::Elf::parse(&written).unwrap();
        let counted: usize = first.sections.iter().map(|s| s.relocations.len()).sum();
        let seen: usize = other.shdr_relocs.iter().map(|(_, r)| r.len()).sum();
        assert_eq!(counted, seen, "{}: relocations", path.display());
        assert_eq!(other.syms.len(), first.symbols.len() + 1, "{}: symbols", path.display());
    }
}

#[test]
fn truncated_objects_are_errors() {
    let path = &corpus()[0];
    let bytes = std::fs::read(path).unwrap();
    for length in (0..bytes.len()).step_by(97) {
        assert!(Object::read(&bytes[..length]).is_err(), "{length} bytes of {}", path.display());
    }
}

/// An alignment of 16 TiB, or one that is none, must not become padding.
#[test]
fn alignment_in_memory_is_not_alignment_in_the_file() {
    let bytes = std::fs::read(&corpus()[0]).unwrap();
    for align in [1 << 44, u64::MAX, 3, 0] {
        let mut object = Object::read(&bytes).unwrap();
        for section in &mut object.sections {
            section.align = align;
        }
        let written = object.write().unwrap();
        assert!(written.len() < 2 * bytes.len() + 4096, "{} bytes of {}", written.len(), bytes.len());
        assert!(Object::read(&written).unwrap().sections.iter().all(|s| s.align == align));
    }
}

/// An empty section behind everything else, aligned to more than what stands before it.
#[test]
fn empty_sections_take_no_room() {
    use kpatch_elf::{Section, section_flags, section_type};
    let bytes = std::fs::read(&corpus()[0]).unwrap();
    let mut object = Object::empty_like(&Object::read(&bytes).unwrap());
    for (name, align, contents) in [(".a", 1, vec![1]), (".b", 16, Vec::new()), (".c", 64, Vec::new())] {
        let kind = section_type::PROGBITS;
        object.add_section(Section::new(name, kind, section_flags::ALLOC, align, contents));
    }
    let written = object.write().unwrap();
    assert_eq!(Object::read(&written).unwrap().sections.len(), 3);
}
