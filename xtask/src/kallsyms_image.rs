//! The symbol table that a kernel image carries for itself, as `scripts/kallsyms.c` writes it (5.10 to 7.3).
//!
//! `kallsyms_names` holds each symbol as a count of tokens and that many token numbers; the first character of the
//! expanded text is the symbol's type. Since 6.1 a count of 128 and more takes two bytes, seven bits in the first.
//! `kallsyms_token_index` leads into `kallsyms_token_table`. Symbols are in the order of their addresses.

use crate::error::{Error, Result};
use kbuild::symtab::SymbolTable;
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, SectionHeader as _};

/// The names in the image's table, in its order.
pub(crate) fn names(vmlinux: &[u8], table: &SymbolTable<'_>) -> Result<Vec<String>> {
    let wrong = |what: &str| Error::Failed(format!("the image's own symbol table: {what}"));
    let at = |symbol: &str| {
        let id = table.global(symbol.into()).or_else(|| table.named(symbol.into()).next());
        let address =
            id.map(|id| table.symbol(id).value).ok_or_else(|| wrong(&format!("no symbol {symbol}")))?;
        bytes_at(vmlinux, address).ok_or_else(|| wrong(&format!("nothing at {symbol}")))
    };
    let count = at("kallsyms_num_syms")?.first_chunk::<4>().map(|word| u32::from_le_bytes(*word));
    let count = count.ok_or_else(|| wrong("no number of symbols"))?;
    let (mut names, tokens, index) =
        (at("kallsyms_names")?, at("kallsyms_token_table")?, at("kallsyms_token_index")?);
    let mut out = Vec::new();
    for _ in 0..count {
        let (&first, rest) = names.split_first().ok_or_else(|| wrong("the names end early"))?;
        let (length, rest) = match rest.split_first() {
            Some((&second, rest)) if first & 0x80 != 0 => {
                (usize::from(first & 0x7f) | usize::from(second) << 7, rest)
            }
            _ => (usize::from(first), rest),
        };
        let numbers = rest.get(..length).ok_or_else(|| wrong("the names end early"))?;
        names = &rest[length..];
        let mut text = Vec::new();
        for &number in numbers {
            let start = index.get(usize::from(number) * 2..).and_then(|i| i.first_chunk::<2>());
            let start = start.map(|word| usize::from(u16::from_le_bytes(*word)));
            let token =
                start.and_then(|start| tokens.get(start..)).ok_or_else(|| wrong("a token is missing"))?;
            text.extend(token.iter().take_while(|&&byte| byte != 0));
        }
        // The type stands before the name.
        out.push(String::from_utf8_lossy(text.get(1..).unwrap_or_default()).into_owned());
    }
    Ok(out)
}

/// The bytes of a linked image from an address to the end of its section.
fn bytes_at(vmlinux: &[u8], address: u64) -> Option<&[u8]> {
    let header = FileHeader64::<Endianness>::parse(vmlinux).ok()?;
    let endian = header.endian().ok()?;
    for section in header.sections(endian, vmlinux).ok()?.iter() {
        let start = section.sh_addr(endian);
        if start != 0 && (start..start.saturating_add(section.sh_size(endian))).contains(&address) {
            return section.data(endian, vmlinux).ok()?.get(usize::try_from(address - start).ok()?..);
        }
    }
    None
}
