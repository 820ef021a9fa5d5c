//! Names of files in a patch: git quotes unusual ones, and a hostile one leads out of the tree.

use std::path::{Component, Path, PathBuf};

/// Turns a name of a patch into a path below the tree; anything that could lead out of it is refused.
pub(super) fn tree_path(name: &[u8], strip: usize) -> Result<PathBuf, &'static str> {
    let name = unquote(name).ok_or("is quoted in no way that is known")?;
    let name = std::str::from_utf8(&name).map_err(|_| "is not UTF-8")?;
    if name.contains('\0') {
        return Err("has a NUL byte");
    }
    let mut path = PathBuf::new();
    let mut left = strip;
    for component in Path::new(name).components() {
        match component {
            Component::RootDir | Component::Prefix(_) => return Err("is absolute"),
            Component::ParentDir => return Err("climbs out of the source tree"),
            // `./x.c` has a directory to strip just as `a/x.c` has.
            Component::CurDir => left = left.saturating_sub(1),
            Component::Normal(_) if left > 0 => left -= 1,
            Component::Normal(part) => path.push(part),
        }
    }
    if path.as_os_str().is_empty() {
        Err("has no directory before it that could be stripped")
    } else {
        Ok(path)
    }
}

/// Undoes git's quoting of unusual names.
fn unquote(name: &[u8]) -> Option<Vec<u8>> {
    let Some(rest) = name.strip_prefix(b"\"") else { return Some(name.to_owned()) };
    let mut bytes = rest.strip_suffix(b"\"")?.iter().copied();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        plain.push(match bytes.next()? {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            quoted @ (b'"' | b'\\') => quoted,
            first @ b'0'..=b'3' => {
                let mut value = first - b'0';
                for _ in 0..2 {
                    let digit = bytes.next().filter(|digit| (b'0'..=b'7').contains(digit))?;
                    value = value * 8 + (digit - b'0');
                }
                value
            }
            _ => return None,
        });
    }
    Some(plain)
}
