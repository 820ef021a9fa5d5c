//! Notes of ELF files, and the one by which a patch module says what it is.
//!
//! A note is three 32-bit words (size of the owner's name, size of the text, type), then the name with its NUL
//! and the text, each padded to four bytes (`elf(5)`, `Elf64_Nhdr`). The kernel shows those of loaded modules
//! in `/sys/module/NAME/notes/` and its own in `/sys/kernel/notes`, section by section.

use std::collections::BTreeMap;

use bstr::{BStr, ByteSlice};
use serde::{Deserialize, Serialize};

use crate::endian::Endian;

/// Section of the patch module's note.
pub const SECTION: &str = ".note.kpatch";

/// Owner of that note.
pub const OWNER: &str = "kpatch";

/// Type of that note.
pub const TYPE: u32 = 1;

/// Owner of the build-id.
pub const GNU: &str = "GNU";

/// Type of the build-id (`NT_GNU_BUILD_ID`).
pub const GNU_BUILD_ID: u32 = 3;

/// The longest description of a patch that a module carries, in bytes.
const MAX_DESCRIPTION: usize = 8192;

/// What the patch module's note says, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Version of this layout.
    pub note: u32,
    /// Where the module comes from.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Does the patch replace all earlier ones?
    pub replace: bool,
    /// The replaced functions.
    pub functions: Vec<NotedFunction>,
}

/// Where a patch module comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Release of the target kernel.
    pub release: String,
    /// Build-id of the target's vmlinux, hexadecimal.
    pub build_id: Option<String>,
    /// Build-ids of the modules that are patched, hexadecimal, where they have one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, String>,
    /// Version of the package that the module is made for, `2-1`: number of the cumulative patch, and of its packaging.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The patch files.
    pub patches: Vec<PatchFile>,
    /// Changes of the patches that are left out: object, function or datum, and section.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// Version of the tool.
    pub version: String,
}

/// A patch file, by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchFile {
    /// Its subject line, or else its file name without directory.
    pub subject: String,
    /// BLAKE3 of its bytes, hexadecimal.
    pub blake3: String,
    /// What its author says of it: the text between the subject and the first file. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A replaced function in the note.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NotedFunction {
    /// `vmlinux` or a module.
    pub object: String,
    /// Its name.
    pub name: String,
    /// Its position among the same-named symbols of the object; 0 where the name is unique.
    pub sympos: u32,
}

impl PatchFile {
    /// Describes a patch file. `name` stands where the patch has no `Subject:` header.
    pub fn new(name: &str, bytes: &[u8]) -> PatchFile {
        let text = String::from_utf8_lossy(bytes);
        let mut header =
            text.lines().take_while(|l| !l.starts_with("diff ") && !l.starts_with("--- ")).peekable();
        let mut subject = String::new();
        let mut description = Vec::new();
        while let Some(line) = header.next() {
            let Some(first) = line.strip_prefix("Subject:").filter(|_| subject.is_empty()) else {
                description.push(line);
                continue;
            };
            subject.push_str(first.trim());
            // A long header goes on in lines that begin with a blank (RFC 5322).
            while let Some(more) =
                header.next_if(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty())
            {
                subject.push(' ');
                subject.push_str(more.trim());
            }
            // What stands above and the other headers of a mail end at the first empty line.
            description.clear();
            while header.next_if(|line| !line.trim().is_empty()).is_some() {}
        }
        if subject.is_empty() {
            name.rsplit('/').next().unwrap_or(name).clone_into(&mut subject);
        }
        let text: Vec<&str> = description.into_iter().take_while(|line| *line != "---").collect();
        let mut description = text.join("\n").trim().to_owned();
        if description.len() > MAX_DESCRIPTION {
            description.truncate(description.floor_char_boundary(MAX_DESCRIPTION));
        }
        PatchFile { subject, blake3: blake3::hash(bytes).to_hex().to_string(), description }
    }
}

/// One note of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'d> {
    /// Who defines the type, without the NUL.
    pub owner: &'d BStr,
    /// What it is.
    pub kind: u32,
    /// The text.
    pub text: &'d [u8],
}

/// The notes of a section's bytes; ends at the first that does not fit.
pub fn entries(bytes: &[u8], endian: Endian) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let word = |at| endian.u32(rest, at).map(|word| word as usize);
        let (owner, text, kind) = (word(0)?, word(4)?, endian.u32(rest, 8)?);
        let body = rest.get(12..)?;
        let after_owner = body.get(owner.checked_next_multiple_of(4)?..)?;
        let entry = Entry {
            owner: body.get(..owner)?.trim_end_with(|c| c == '\0').as_bstr(),
            kind,
            text: after_owner.get(..text)?,
        };
        // The last one may lack its padding.
        rest = after_owner.get(text.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some(entry)
    })
}

/// The build-id among the notes of a section, hexadecimal.
pub fn build_id(bytes: &[u8], endian: Endian) -> Option<String> {
    use std::fmt::Write as _;
    let note = entries(bytes, endian).find(|note| note.owner == GNU && note.kind == GNU_BUILD_ID)?;
    Some(note.text.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &str, kind: u32, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [owner.len() as u32 + 1, text.len() as u32, kind] {
            out.extend(word.to_le_bytes());
        }
        for part in [[owner.as_bytes(), b"\0"].concat(), text.to_vec()] {
            out.extend(&part);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    #[test]
    fn notes_are_walked() {
        let bytes = [note("Linux", 0x101, b"x"), note("GNU", 3, &[0, 0xff, 0x10, 7])].concat();
        let owners: Vec<_> = entries(&bytes, Endian::Little).map(|note| note.owner.to_string()).collect();
        assert_eq!(owners, ["Linux", "GNU"]);
        assert_eq!(build_id(&bytes, Endian::Little).unwrap(), "00ff1007");
        for cut in 0..bytes.len() {
            assert!(entries(&bytes[..cut], Endian::Little).count() <= 2);
        }
        assert_eq!(entries(&[0xff; 64], Endian::Little).count(), 0);
    }

    #[test]
    fn the_description_is_what_the_author_says() {
        let mail = "From 1 Mon\nFrom: A\nSubject: [PATCH] x:\n fix y\nDate: today\n\nCVE-2026-0001: y\noverflows.\n\
                    \nSigned-off-by: A\n---\n f.c | 2 +-\n\ndiff --git a/f.c b/f.c\n--- a/f.c\n+++ b/f.c\n";
        let patch = PatchFile::new("p", mail.as_bytes());
        assert_eq!(patch.subject, "[PATCH] x: fix y");
        assert_eq!(patch.description, "CVE-2026-0001: y\noverflows.\n\nSigned-off-by: A");
        let plain = PatchFile::new("d/p.patch", b"what it does\n--- a/f.c\n+++ b/f.c\n");
        assert_eq!((plain.subject.as_str(), plain.description.as_str()), ("p.patch", "what it does"));
        assert_eq!(PatchFile::new("p", b"--- a/f.c\n").description, "");
        let long = format!("{}\u{e9}\n--- a/f.c\n", "x".repeat(MAX_DESCRIPTION - 1));
        assert_eq!(PatchFile::new("p", long.as_bytes()).description.len(), MAX_DESCRIPTION - 1);
    }
}
