//! `Module.symvers`: the exported symbols of a kernel.
//!
//! Format: `scripts/mod/modpost.c`, one line a symbol, tab-separated: CRC, name, module, export type,
//! namespace (since 5.4; empty where there is none).

use std::collections::HashMap;

use bstr::{BStr, BString, ByteSlice};
use thiserror::Error;

/// A line that is no line of `Module.symvers`.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("Module.symvers line {line}: {what}")]
pub struct SymversError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// One exported symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Name of the symbol.
    pub name: BString,
    /// CRC of its type; 0 in kernels without `CONFIG_MODVERSIONS`.
    pub crc: u32,
    /// `vmlinux`, or the module's name with `_` for `-`.
    pub object: BString,
    /// `EXPORT_SYMBOL_GPL` or the like, verbatim.
    pub kind: BString,
    /// The symbol's namespace; `module:LIST` for `EXPORT_SYMBOL_FOR_MODULES` (6.16 and later).
    pub namespace: BString,
}

impl Export {
    /// Exported by the kernel proper.
    pub fn is_vmlinux(&self) -> bool {
        self.object == "vmlinux"
    }

    /// Exported to named modules only (`EXPORT_SYMBOL_FOR_MODULES`), so that a patch module cannot
    /// import it.
    pub fn is_restricted(&self) -> bool {
        self.namespace.starts_with(b"module:")
    }
}

/// The exported symbols, by name and in file order.
#[derive(Clone, Debug, Default)]
pub struct Symvers {
    exports: Vec<Export>,
    by_name: HashMap<BString, usize>,
}

impl Symvers {
    /// Parses the file's bytes. The first of two lines with one name counts.
    pub fn parse(text: &[u8]) -> Result<Symvers, SymversError> {
        let mut symvers = Symvers::default();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() {
                continue;
            }
            let error = |what| SymversError { line: index + 1, what };
            let mut fields = line.split(|&b| b == b'\t');
            let mut field = |what| fields.next().ok_or(error(what));
            let crc = field("no CRC")?;
            let name = field("no symbol name")?;
            let module = field("no module")?;
            let kind = fields.next().unwrap_or_default();
            let namespace = fields.next().unwrap_or_default();
            let crc = crc
                .strip_prefix(b"0x")
                .and_then(|digits| digits.to_str().ok())
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .ok_or(error("the CRC is no hexadecimal number"))?;
            if name.is_empty() || module.is_empty() {
                return Err(error("empty name or module"));
            }
            let export = Export {
                name: name.into(),
                crc,
                object: object_of(module.as_bstr()),
                kind: kind.into(),
                namespace: namespace.into(),
            };
            let position = symvers.exports.len();
            if !symvers.by_name.contains_key(name.as_bstr()) {
                symvers.by_name.insert(name.into(), position);
                symvers.exports.push(export);
            }
        }
        Ok(symvers)
    }

    /// The export of that name.
    pub fn get(&self, name: &BStr) -> Option<&Export> {
        self.by_name.get(name).map(|&position| &self.exports[position])
    }

    /// All exports in file order.
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.exports.is_empty()
    }
}

/// The object name of a module's path: `fs/xfs/xfs` and `drivers/foo/my-mod.ko` become `xfs`, `my_mod`.
pub fn object_of(module: &BStr) -> BString {
    let base = module.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let base = base.strip_suffix(b".ko").unwrap_or(base);
    base.iter().map(|&b| if b == b'-' { b'_' } else { b }).collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_every_age() {
        let text = b"0x12345678\tfoo\tvmlinux\tEXPORT_SYMBOL\t\n\
                     0xdeadbeef\tbar\tdrivers/net/my-mod\tEXPORT_SYMBOL_GPL\tNS\n\
                     0x00000000\t__mpol_put\tvmlinux\tEXPORT_SYMBOL_GPL\tmodule:kvm\n\
                     0x00000001\told\tvmlinux\tEXPORT_SYMBOL\n";
        let symvers = Symvers::parse(text).unwrap();
        assert_eq!(symvers.get("foo".into()).unwrap().crc, 0x1234_5678);
        let bar = symvers.get("bar".into()).unwrap();
        assert_eq!((bar.object.as_bstr(), bar.namespace.as_bstr()), ("my_mod".into(), "NS".into()));
        assert!(symvers.get("__mpol_put".into()).unwrap().is_restricted());
        assert!(symvers.get("old".into()).unwrap().is_vmlinux());
        assert!(symvers.get("nothing".into()).is_none());
    }

    #[test]
    fn damaged_lines_are_errors_with_their_number() {
        for (text, line) in
            [("foo\n", 1), ("0x1\ta\tvmlinux\n0xzz\tb\tvmlinux\n", 2), ("0x1\t\tvmlinux\n", 1)]
        {
            assert_eq!(Symvers::parse(text.as_bytes()).unwrap_err().line, line, "{text:?}");
        }
    }
}
