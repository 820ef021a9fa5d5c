//! The parent's symbol table as text: what `readelf -s --wide` prints.

use std::borrow::Cow;

use bstr::ByteSlice;
use kbuild::symtab::{ShippedBinding, ShippedKind, ShippedSymbol, SymbolTable};
use thiserror::Error;

/// A line that is no line of a symbol table.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub(crate) struct ReadelfError {
    line: usize,
    what: &'static str,
}

/// Parses the text. Symbols of `.dynsym` are passed over, as are undefined ones.
pub(crate) fn parse(text: &[u8], module: bool) -> Result<SymbolTable<'_>, ReadelfError> {
    // No line of the table is shorter.
    let mut symbols: Vec<ShippedSymbol<'_>> = Vec::with_capacity(text.len() / 60);
    let mut dynamic = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with(b"Symbol table") {
            dynamic = line.contains_str(b".dynsym");
            continue;
        }
        let mut fields = Fields(line);
        let Some(number) = fields.next() else { continue };
        if dynamic || !number.ends_with(b":") || number == b"Num:" {
            continue;
        }
        let error = |what| ReadelfError { line: index + 1, what };
        let mut next = |what| fields.next().ok_or(error(what));
        let value = next("no value")?;
        let size = next("no size")?;
        let kind = next("no type")?;
        let bind = next("no binding")?;
        let _visibility = next("no visibility")?;
        let mut section = next("no section")?;
        // ppc64 prints `[<localentry>: 8]` in between.
        if section.starts_with(b"[") {
            while !section.ends_with(b"]") {
                section = next("no section")?;
            }
            section = next("no section")?;
        }
        // Names of files may hold spaces.
        let Fields(rest) = fields;
        let rest = rest.trim_ascii();
        let note = if rest.ends_with(b"]") { rest.find(b"[<") } else { None };
        let name = note.map_or(rest, |start| rest[..start].trim_ascii_end()).as_bstr();
        let value = hex(value).ok_or(error("the value is no hexadecimal number"))?;
        let size = match size.strip_prefix(b"0x") {
            Some(digits) => hex(digits),
            None => decimal(size),
        }
        .ok_or(error("the size is no number"))?;
        let kind = match kind {
            b"NOTYPE" => ShippedKind::NoType,
            b"OBJECT" => ShippedKind::Object,
            b"FUNC" => ShippedKind::Function,
            b"FILE" => ShippedKind::File,
            b"SECTION" => continue,
            _ => ShippedKind::Other,
        };
        let binding = match bind {
            b"LOCAL" => ShippedBinding::Local,
            b"WEAK" => ShippedBinding::Weak,
            b"GLOBAL" | b"UNIQUE" => ShippedBinding::Global,
            _ => return Err(error("unknown binding")),
        };
        let section = match section {
            b"UND" => continue,
            b"ABS" | b"COM" => None,
            number => Some(
                decimal(number)
                    .and_then(|number| u32::try_from(number).ok())
                    .ok_or(error("the section is no number"))?,
            ),
        };
        symbols.push(ShippedSymbol::new(Cow::Borrowed(name), value, size, kind, binding, section));
    }
    Ok(SymbolTable::new(symbols, module))
}

/// What stands between the spaces of a line.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|&byte| byte != b' ' && byte != b'\t')?;
        let line = &self.0[start..];
        // Fields are so short that a search by vectors does not pay.
        let end = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
        let (field, rest) = line.split_at(end);
        self.0 = rest;
        Some(field)
    }
}

/// The values of hexadecimal digits, 16 for what is none.
const DIGITS: [u8; 256] = {
    let mut values = [16; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit] as usize] = digit as u8;
        values[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

fn hex(digits: &[u8]) -> Option<u64> {
    number(digits, 16, 16)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    number(digits, 10, 19)
}

/// A number without sign, of at most so many digits that it fits. What is none may wrap before it is refused.
fn number(digits: &[u8], base: u8, most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most {
        return None;
    }
    let (mut value, mut largest) = (0_u64, 0);
    for &byte in digits {
        let digit = DIGITS[usize::from(byte)];
        largest = digit.max(largest);
        value = value.wrapping_mul(u64::from(base)).wrapping_add(u64::from(digit));
    }
    (largest < base).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_readelf_prints() {
        let text = b"\nSymbol table '.dynsym' contains 2 entries:\n   Num:    Value          Size Type    Bind   Vis      Ndx Name\n     1: 0000000000000010     4 FUNC    GLOBAL DEFAULT    1 hidden\n\nSymbol table '.symtab' contains 4 entries:\n   Num:    Value          Size Type    Bind   Vis      Ndx Name\n     0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND \n     1: 0000000000000000     0 FILE    LOCAL  DEFAULT  ABS meminfo.c\n     2: ffffffff81000010 0x1000 FUNC   LOCAL  DEFAULT    1 show\n     3: 0000000000000020    12 FUNC    GLOBAL DEFAULT [<localentry>: 8]    2 far\n";
        let table = parse(text, false).unwrap();
        assert_eq!(table.symbols().len(), 3);
        let show = table.named("show".into()).next().unwrap();
        assert_eq!(table.symbol(show).size, 0x1000);
        assert!(table.symbol(show).file.is_some());
        assert!(table.global("far".into()).is_some());
        assert_eq!(table.named("hidden".into()).count(), 0);
    }

    #[test]
    fn numbers_are_read_in_both_bases() {
        assert_eq!(hex(b"ffFFffffffffffff"), Some(u64::MAX));
        assert_eq!(decimal(b"9999999999999999999"), Some(9_999_999_999_999_999_999));
        for digits in [&b""[..], b"g", b"1 ", b"00000000000000000", b"gggggggggggggggg"] {
            assert_eq!(hex(digits), None);
        }
        assert_eq!(decimal(b"1a"), None);
    }

    #[test]
    fn damaged_lines_are_errors() {
        let error = parse(b"  1: zz 4 FUNC GLOBAL DEFAULT 1 x\n", false).unwrap_err();
        assert_eq!(error.line, 1);
    }
}
