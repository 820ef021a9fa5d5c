//! What the kernel's livepatch loader expects of a module.
//!
//! Sources: `Documentation/livepatch/module-elf-format.rst` and `include/uapi/linux/elf.h`,
//! `include/linux/elf.h` of Linux 4.7 and later; the same in every kernel from 5.10 to 7.3.

use bstr::{BStr, BString, ByteSlice};

/// Section index of a symbol that the livepatch core resolves, not the module loader.
pub const SHN_LIVEPATCH: u16 = 0xff20;

/// Flag of a relocation section that the livepatch core applies, not the module loader.
pub const SHF_RELA_LIVEPATCH: u64 = 0x0010_0000;

/// Prefix of livepatch symbols: `.klp.sym.OBJECT.NAME,SYMPOS`.
pub const SYMBOL_PREFIX: &str = ".klp.sym.";

/// Prefix of livepatch relocation sections: `.klp.rela.OBJECT.SECTION`.
pub const RELA_PREFIX: &str = ".klp.rela.";

/// The longest object name the kernel's `sscanf` format takes, in bytes (`%55[^.]`).
pub const MAX_OBJECT_NAME: usize = 55;

/// The name of the kernel proper where an object is named.
pub const VMLINUX: &str = "vmlinux";

/// The name of a livepatch symbol.
pub fn symbol_name(object: &BStr, name: &BStr, sympos: u32) -> BString {
    let mut out = BString::from(SYMBOL_PREFIX);
    out.extend_from_slice(object);
    out.push(b'.');
    out.extend_from_slice(name);
    out.extend_from_slice(format!(",{sympos}").as_bytes());
    out
}

/// The name of the livepatch relocation section of `section`, applied when `object` is patched.
pub fn rela_name(object: &BStr, section: &BStr) -> BString {
    let mut out = BString::from(RELA_PREFIX);
    out.extend_from_slice(object);
    out.push(b'.');
    out.extend_from_slice(section);
    out
}

/// Takes a livepatch symbol's name apart: object, name, sympos.
///
/// Returns `None` where the kernel's `sscanf(".klp.sym.%55[^.].%511[^,],%lu")` would not match.
pub fn parse_symbol_name(name: &BStr) -> Option<(&BStr, &BStr, u32)> {
    let rest = name.strip_prefix(SYMBOL_PREFIX.as_bytes())?;
    let dot = rest.find_byte(b'.')?;
    let (object, rest) = (&rest[..dot], &rest[dot + 1..]);
    let comma = rest.find_byte(b',')?;
    let (symbol, position) = (&rest[..comma], &rest[comma + 1..]);
    if object.is_empty() || object.len() > MAX_OBJECT_NAME || symbol.is_empty() {
        return None;
    }
    let sympos = position.to_str().ok()?.parse().ok()?;
    Some((object.as_bstr(), symbol.as_bstr(), sympos))
}

/// The object and section named by a livepatch relocation section's name.
pub fn parse_rela_name(name: &BStr) -> Option<(&BStr, &BStr)> {
    let rest = name.strip_prefix(RELA_PREFIX.as_bytes())?;
    let dot = rest.find_byte(b'.')?;
    let object = &rest[..dot];
    if object.is_empty() || object.len() > MAX_OBJECT_NAME {
        return None;
    }
    Some((object.as_bstr(), rest[dot + 1..].as_bstr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let name = symbol_name("xfs".into(), "foo.isra.0".into(), 3);
        assert_eq!(name, ".klp.sym.xfs.foo.isra.0,3");
        assert_eq!(parse_symbol_name(name.as_ref()), Some(("xfs".into(), "foo.isra.0".into(), 3)));
        let rela = rela_name("vmlinux".into(), ".text.foo".into());
        assert_eq!(rela, ".klp.rela.vmlinux..text.foo");
        assert_eq!(parse_rela_name(rela.as_ref()), Some(("vmlinux".into(), ".text.foo".into())));
    }

    #[test]
    fn names_the_kernel_would_not_parse_are_refused() {
        for bad in [".klp.sym.vmlinux", ".klp.sym..foo,1", ".klp.sym.vmlinux.foo", ".klp.sym.vmlinux.foo,x"] {
            assert_eq!(parse_symbol_name(bad.into()), None, "{bad}");
        }
        let long = format!(".klp.sym.{}.foo,0", "m".repeat(56));
        assert_eq!(parse_symbol_name(long.as_str().into()), None);
    }
}
