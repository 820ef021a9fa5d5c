//! A headers package that works from the cache.
//!
//! The packages expect each other below /usr; their own links are relative, but the flavour's Makefile names the shared
//! one absolutely. Those names are rewritten, so nothing needs to be installed.

use std::path::Path;

use fs_err as fs;

use crate::error::Result;

/// Unpacked headers of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// Directory for `make -C`.
    pub dir: std::path::PathBuf,
    /// Headers shared by all flavours.
    pub common: std::path::PathBuf,
    /// Module.symvers of the shipped kernel.
    pub symvers: std::path::PathBuf,
}

/// Where the packages think they are.
const INSTALLED: [&str; 2] = ["/usr/src/linux-", "/usr/lib/linux-kbuild-"];

/// Rewrites absolute names in the tree unpacked at `tree`, which will be found at `root` later.
pub(super) fn relocate(tree: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(tree.join("usr/src"))? {
        let dir = entry?.path();
        for name in ["Makefile", ".kernelvariables"] {
            let file = dir.join(name);
            // The shared Makefile may be a link into kbuild's package; only files of the headers are rewritten.
            if !fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file()) {
                continue;
            }
            let text = fs::read(&file)?;
            let moved = rewrite(&text, root);
            if moved != text {
                fs::write(&file, moved)?;
            }
        }
    }
    Ok(())
}

/// Puts `root` before every installed path that starts there, and not in the middle of a longer one.
fn rewrite(text: &[u8], root: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut out = Vec::with_capacity(text.len() + 256);
    for (at, byte) in text.iter().enumerate() {
        let starts = INSTALLED.iter().any(|path| text[at..].starts_with(path.as_bytes()));
        let before = at.checked_sub(1).map(|at| text[at]);
        let inside = before.is_some_and(|b| b.is_ascii_alphanumeric() || b"/.)}_-".contains(&b));
        if starts && !inside {
            out.extend_from_slice(root.as_os_str().as_bytes());
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_names_move_and_others_stay() {
        let text = b"KBUILD_OUTPUT=/usr/src/linux-headers-1\ninclude /usr/src/linux-headers-1-common/Makefile\nx = $(objtree)/usr/src/linux-y /usr/include\n";
        let moved = String::from_utf8(rewrite(text, Path::new("/c/r"))).unwrap();
        assert_eq!(
            moved,
            "KBUILD_OUTPUT=/c/r/usr/src/linux-headers-1\ninclude /c/r/usr/src/linux-headers-1-common/Makefile\nx = $(objtree)/usr/src/linux-y /usr/include\n"
        );
        assert_eq!(rewrite(b"/usr/lib/linux-kbuild-6/x", Path::new("/c")), b"/c/usr/lib/linux-kbuild-6/x");
    }
}
