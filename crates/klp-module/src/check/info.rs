//! What the module says of itself, and what it must not carry.

use super::Target;
use super::finding::Finding;
use super::view::ModuleView;

pub(super) fn check(view: &ModuleView<'_>, name: &str, target: &Target<'_>, findings: &mut Vec<Finding>) {
    let expected = [
        ("livepatch", "Y"),
        ("license", "GPL"),
        ("name", name),
        ("vermagic", target.vermagic),
        // A livepatch must be able to wait for modules, not pull them in.
        ("depends", ""),
    ];
    for (tag, value) in expected {
        let mut found: Vec<&str> = view.info(tag).collect();
        found.dedup();
        if found != [value] {
            findings.push(Finding::Info { tag, found: found.join(", "), expected: value.to_owned() });
        }
    }
    for index in 1..view.elf.section_headers.len() {
        let section = view.section_name(index);
        let plain = section.strip_prefix(".rela").unwrap_or(section);
        if plain.starts_with(".kpatch.") || plain.starts_with(".BTF") || plain.starts_with(".discard") {
            findings.push(Finding::Leftover { section: section.to_owned() });
        }
    }
}
