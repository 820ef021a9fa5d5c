//! The texts that kbuild gets.

mod common;

use klp_module::hook::{self, HookError, Note, PatchFile, hook};
use kpatch_elf::Object;

use common::{Good, good, provenance, section};

#[test]
fn note_and_modinfo_say_where_the_module_comes_from() {
    let Good { module, .. } = good();
    let object = Object::read(&module).unwrap();
    let note = object.section(section(&object, hook::NOTE_SECTION));
    let bytes = note.bytes();
    let word = |at| object.endian.u32(bytes, at).unwrap() as usize;
    assert_eq!((note.kind, word(0), word(8)), (7, 7, 1));
    assert_eq!(&bytes[12..20], b"kpatch\0\0");
    assert_eq!(bytes.len(), 20 + word(4).next_multiple_of(4));
    let said: Note = serde_json::from_slice(&bytes[20..20 + word(4)]).unwrap();
    let mut expected = provenance();
    expected.modules.remove("untouched");
    assert_eq!(said.provenance, expected);
    let names: Vec<_> = said.functions.iter().map(|f| (f.object.as_str(), f.name.as_str())).collect();
    assert_eq!(names, [("vmlinux", "show"), ("xfs", "read_inode")]);

    let info = object.section(section(&object, ".modinfo")).bytes();
    let info = String::from_utf8_lossy(info);
    let entries: Vec<&str> = info.split('\0').collect();
    let patch = &provenance().patches[0];
    for entry in [
        "livepatch=Y",
        "license=GPL",
        "import_ns=NS",
        "kpatch_version=1.0",
        "kpatch_target_build_id=00ff",
        "kpatch_skipped=vmlinux:setup .init.text",
        "kpatch_function=vmlinux:show,0",
        "kpatch_function=xfs:read_inode,0",
        &format!("kpatch_patch=blake3:{} [PATCH] say \"two\" words", patch.blake3),
    ] {
        assert!(entries.contains(&entry), "{entry} not in {entries:?}");
    }
}

#[test]
fn hostile_text_stays_text() {
    let Good { manifest, .. } = good();
    let mut from = provenance();
    from.patches = vec![PatchFile {
        subject: "\"); evil(); /* \\ ??/ \n#error \u{fc}\0".to_owned(),
        blake3: "00".to_owned(),
        description: String::new(),
    }];
    let texts = hook("x", &manifest, &from, true).unwrap();
    let line = texts.source.lines().find(|l| l.starts_with("MODULE_INFO(kpatch_patch")).unwrap();
    assert!(line.ends_with("\\\"); evil(); /* \\\\ \\077\\077/  #error \\303\\274 \");"), "{line}");
    assert!(texts.source.is_ascii());
    assert!(!texts.source.lines().any(|l| l.trim_start().starts_with("#error")));
}

#[test]
fn replace_and_names_are_as_asked() {
    let Good { manifest, .. } = good();
    let with = hook("livepatch-fix", &manifest, &provenance(), true).unwrap();
    assert!(with.source.contains(".replace = true,"));
    assert!(with.kbuild.contains("obj-m := livepatch-fix.o\n"));
    let without = hook("livepatch-fix", &manifest, &provenance(), false).unwrap();
    assert!(without.source.contains(".replace = false,"));
    for name in ["", "a/b", "a b", "-x", "kpatch-hook", "kpatch_linked", &"n".repeat(56)] {
        let error = hook(name, &manifest, &provenance(), true).unwrap_err();
        assert!(matches!(error, HookError::ModuleName { .. }), "{name}");
    }
}

#[test]
fn subjects_are_found_or_named_after_the_file() {
    let subject = |text: &str| PatchFile::new("dir/fix.patch", text.as_bytes()).subject;
    assert_eq!(subject("From: a\nSubject: one\n two\nDate: x\n\n--- a/f\n+++ b/f\n"), "one two");
    assert_eq!(subject("--- a/f\n+++ b/f\n@@ -1 +1 @@\n+Subject: no\n"), "fix.patch");
    assert_eq!(subject("diff --git a/f b/f\nSubject: no\n"), "fix.patch");
}
