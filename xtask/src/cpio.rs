//! Writes a cpio archive in the "newc" format that the kernel takes as initramfs.
//!
//! Owner, time and inode numbers carry no meaning in an initramfs, so they are fixed: the same content gives the same archive.

use std::collections::BTreeSet;

/// An archive under construction. Parent directories are added by themselves.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

impl Archive {
    /// An archive without entries.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file. `path` is relative to the root of the archive.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.parents(path);
        self.entry(path, S_IFREG | permissions, (0, 0), content);
    }

    /// Adds a character device.
    pub(crate) fn char_device(&mut self, path: &str, major: u32, minor: u32) {
        self.parents(path);
        self.entry(path, S_IFCHR | 0o600, (major, minor), &[]);
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            if !parent.is_empty() && self.directories.insert(parent.to_owned()) {
                self.entry(parent, S_IFDIR | 0o755, (0, 0), &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let fields = [
            self.entries,
            mode,
            0, // uid
            0, // gid
            1, // links
            0, // mtime
            content.len() as u32,
            0, // device the file was on
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0, // checksum, unused in newc
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_what_is_written() {
        let mut archive = Archive::new();
        archive.file("a/b/c", 0o644, b"hello");
        archive.file("a/b/d", 0o755, b"");
        archive.char_device("dev/console", 5, 1);
        let listing = duct::cmd!("cpio", "--quiet", "-itv").stdin_bytes(archive.finish()).read().unwrap();
        let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
        let names: Vec<&str> = lines.iter().map(|words| *words.last().unwrap()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "dev", "dev/console"]);
        assert_eq!(lines[2][0], "-rw-r--r--");
        assert_eq!(lines[2][4], "5");
        assert_eq!(lines[3][0], "-rwxr-xr-x");
        assert_eq!(lines[5][0], "crw-------");
    }

    #[test]
    fn entries_are_aligned() {
        let mut archive = Archive::new();
        archive.file("x", 0o644, b"1");
        assert_eq!(archive.finish().len() % 4, 0);
    }
}
