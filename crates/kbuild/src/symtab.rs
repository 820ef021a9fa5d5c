//! The symbol table of a shipped object: the vmlinux with debug information, or a module.
//!
//! Livepatch names a symbol that is not unique by its position among the same-named symbols of its object
//! (`sympos`, from 1). The kernel counts what its kallsyms lists, in this order:
//! * vmlinux: `scripts/kallsyms.c` sorts by address and leaves out symbols that are no addresses, those of
//!   a list of name patterns and, with `CONFIG_KALLSYMS_ALL` (which `LIVEPATCH` depends on), nothing else;
//! * modules: `kernel/module/kallsyms.c` keeps symbol-table order and, once the module has initialised,
//!   only symbols in allocated sections outside `.init*`.
//!
//! Local, global and weak symbols count alike.

use std::borrow::Cow;
use std::sync::OnceLock;

use bstr::{BStr, BString, ByteSlice};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use thiserror::Error;

/// Why a symbol table cannot be read.
#[derive(Debug, Error)]
pub enum SymtabError {
    /// No ELF file, or a damaged one.
    #[error("not a readable ELF file: {0}")]
    Malformed(#[from] object::read::Error),
    /// Stripped.
    #[error("no symbol table")]
    NoSymbols,
}

/// Index into [`SymbolTable::symbols`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShippedId(pub u32);

/// Type of a shipped symbol, as far as anybody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShippedKind {
    /// A function.
    Function,
    /// A datum.
    Object,
    /// Neither said.
    NoType,
    /// Name of a source file; the local symbols up to the next one are of that file.
    File,
    /// Anything else: section symbols, thread-local data.
    Other,
}

/// Binding of a shipped symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShippedBinding {
    /// Visible in its file only.
    Local,
    /// Visible everywhere.
    Global,
    /// Visible everywhere, and overridden by a global one of the same name.
    Weak,
}

/// One symbol of a shipped object.
#[derive(Clone, Debug)]
pub struct ShippedSymbol<'d> {
    /// Name.
    pub name: Cow<'d, BStr>,
    /// Address in vmlinux; offset in its section in a module.
    pub value: u64,
    /// Size in bytes.
    pub size: u64,
    /// Type.
    pub kind: ShippedKind,
    /// Binding.
    pub binding: ShippedBinding,
    /// ELF index of its section, `None` for absolute symbols.
    pub section: Option<u32>,
    /// False for undefined symbols.
    pub defined: bool,
    /// Listed by the kernel's kallsyms, so that it counts for sympos.
    pub listed: bool,
    /// The `STT_FILE` symbol before it, for local symbols.
    pub file: Option<ShippedId>,
}

/// The symbol table of a shipped object.
#[derive(Clone, Debug)]
pub struct SymbolTable<'d> {
    symbols: Vec<ShippedSymbol<'d>>,
    /// Ids sorted by name, then in kallsyms order.
    by_name: Vec<u32>,
    /// Ids of defined symbols sorted by section (modules only) and value; made when first asked for.
    by_address: OnceLock<Vec<u32>>,
    module: bool,
}

impl<'d> SymbolTable<'d> {
    /// Reads `.symtab` of a vmlinux or a module.
    pub fn from_elf(data: &'d [u8]) -> Result<SymbolTable<'d>, SymtabError> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let module = header.e_type(endian) == elf::ET_REL;
        let sections = header.sections(endian, data)?;
        let table = sections.symbols(endian, data, elf::SHT_SYMTAB)?;
        if table.is_empty() {
            return Err(SymtabError::NoSymbols);
        }
        // What a module's kallsyms keeps after initialisation.
        let core: Vec<bool> = sections
            .iter()
            .map(|section| {
                let name = sections.section_name(endian, section).unwrap_or_default();
                section.sh_flags(endian).0 & 2 != 0 && !name.starts_with(b".init")
            })
            .collect();
        let mut symbols = Vec::with_capacity(table.len());
        for (index, raw) in table.enumerate().skip(1) {
            let name = table.symbol_name(endian, raw)?.as_bstr();
            let shndx = raw.st_shndx(endian).0;
            let section = match shndx {
                0 | 0xff00..=0xfffe => None,
                0xffff => table.shndx(endian, index),
                shndx => Some(u32::from(shndx)),
            };
            let kind = match raw.st_type().0 {
                0 => ShippedKind::NoType,
                1 => ShippedKind::Object,
                2 => ShippedKind::Function,
                4 => ShippedKind::File,
                _ => ShippedKind::Other,
            };
            let defined = shndx != 0;
            let listed = defined
                && matches!(kind, ShippedKind::NoType | ShippedKind::Object | ShippedKind::Function)
                && !name.is_empty()
                && if module {
                    section.is_some_and(|s| core.get(s as usize).copied().unwrap_or(false))
                } else {
                    // Absolute symbols are assembler constants; kallsyms leaves them out.
                    section.is_some() && !hidden_from_kallsyms(name)
                };
            symbols.push(ShippedSymbol {
                name: Cow::Borrowed(name),
                value: raw.st_value(endian),
                size: raw.st_size(endian),
                kind,
                binding: match raw.st_bind().0 {
                    0 => ShippedBinding::Local,
                    2 => ShippedBinding::Weak,
                    _ => ShippedBinding::Global,
                },
                section,
                defined,
                listed,
                file: None,
            });
        }
        Ok(SymbolTable::new(symbols, module))
    }

    /// A table of symbols in symbol-table order; `module` tells how sympos counts. [`ShippedSymbol::file`]
    /// is filled in here.
    pub fn new(mut symbols: Vec<ShippedSymbol<'d>>, module: bool) -> SymbolTable<'d> {
        let mut file = None;
        for (index, symbol) in symbols.iter_mut().enumerate() {
            if symbol.kind == ShippedKind::File {
                // The linker ends the list of local symbols of files with an unnamed file.
                file = (!symbol.name.is_empty()).then_some(ShippedId(index as u32));
            } else if symbol.binding == ShippedBinding::Local {
                symbol.file = file;
            }
        }
        let mut by_name: Vec<u32> = (0..symbols.len() as u32).collect();
        let position = |i: u32| {
            let symbol = &symbols[i as usize];
            (if module { 0 } else { symbol.value }, i)
        };
        by_name.sort_unstable_by(|&a, &b| {
            let (x, y) = (&symbols[a as usize].name, &symbols[b as usize].name);
            x.cmp(y).then_with(|| position(a).cmp(&position(b)))
        });
        SymbolTable { symbols, by_name, by_address: OnceLock::new(), module }
    }

    fn by_address(&self) -> &[u32] {
        self.by_address.get_or_init(|| {
            let mut ids: Vec<u32> = (0..self.symbols.len() as u32)
                .filter(|&i| self.symbols[i as usize].section.is_some())
                .collect();
            ids.sort_unstable_by_key(|&i| {
                let symbol = &self.symbols[i as usize];
                (if self.module { symbol.section } else { None }, symbol.value, i)
            });
            ids
        })
    }

    /// All symbols in symbol-table order.
    pub fn symbols(&self) -> &[ShippedSymbol<'d>] {
        &self.symbols
    }

    /// One symbol.
    pub fn symbol(&self, id: ShippedId) -> &ShippedSymbol<'d> {
        &self.symbols[id.0 as usize]
    }

    /// True for the table of a module.
    pub fn is_module(&self) -> bool {
        self.module
    }

    /// All symbols of that name, undefined ones included, in kallsyms order.
    pub fn named<'a>(&'a self, name: &'a BStr) -> impl Iterator<Item = ShippedId> + 'a {
        let from = self.by_name.partition_point(|&i| self.symbols[i as usize].name.as_ref() < name);
        let same = move |id: &ShippedId| self.symbol(*id).name.as_ref() == name;
        self.by_name[from..].iter().map(|&i| ShippedId(i)).take_while(same)
    }

    /// The global or weak definition of that name; a global one before a weak one.
    pub fn global(&self, name: &BStr) -> Option<ShippedId> {
        let rank = |id: ShippedId| match self.symbol(id).binding {
            ShippedBinding::Global => 0,
            ShippedBinding::Weak => 1,
            ShippedBinding::Local => 2,
        };
        self.named(name)
            .filter(|&id| self.symbol(id).defined && self.symbol(id).kind != ShippedKind::File)
            .filter(|&id| rank(id) < 2)
            .min_by_key(|&id| rank(id))
    }

    /// The position that livepatch asks for: 0 where the name is unique in the object, else the place
    /// among the same-named symbols that kallsyms lists, from 1. `None` where kallsyms does not list it.
    pub fn sympos(&self, id: ShippedId) -> Option<u32> {
        let symbol = self.symbol(id);
        if !symbol.listed {
            return None;
        }
        let mut count = 0;
        let mut place = 0;
        for other in self.named(symbol.name.as_ref()) {
            if self.symbol(other).listed {
                count += 1;
                if other == id {
                    place = count;
                }
            }
        }
        Some(if count == 1 { 0 } else { place })
    }

    /// The symbol that livepatch finds for a name and position.
    pub fn at_sympos(&self, name: &BStr, sympos: u32) -> Option<ShippedId> {
        let mut listed = self.named(name).filter(|&id| self.symbol(id).listed);
        if sympos == 0 {
            let only = listed.next();
            return if listed.next().is_some() { None } else { only };
        }
        listed.nth(sympos as usize - 1)
    }

    /// The files of that name (`STT_FILE`, base name of the source), with their local symbols.
    pub fn files(&self, name: &BStr) -> impl Iterator<Item = (ShippedId, &[ShippedSymbol<'d>])> + '_ {
        let ids: Vec<ShippedId> =
            self.named(name).filter(|&id| self.symbol(id).kind == ShippedKind::File).collect();
        ids.into_iter().map(|id| {
            let rest = &self.symbols[id.0 as usize + 1..];
            let length = rest
                .iter()
                .position(|s| s.kind == ShippedKind::File || s.binding != ShippedBinding::Local)
                .unwrap_or(rest.len());
            (id, &rest[..length])
        })
    }

    /// The ids of a file's local symbols.
    pub fn ids_in_file(&self, file: ShippedId) -> impl Iterator<Item = ShippedId> + '_ {
        (file.0 + 1..self.symbols.len() as u32)
            .map(ShippedId)
            .take_while(move |&id| self.symbol(id).file == Some(file))
    }

    /// All defined symbols at exactly that address; `section` only in modules.
    pub fn at(&self, section: Option<u32>, value: u64) -> impl Iterator<Item = ShippedId> + '_ {
        let key = (if self.module { section } else { None }, value);
        let of = |&i: &u32| {
            let symbol = &self.symbols[i as usize];
            (if self.module { symbol.section } else { None }, symbol.value)
        };
        let from = self.by_address().partition_point(|i| of(i) < key);
        self.by_address()[from..].iter().take_while(move |i| of(i) == key).map(|&i| ShippedId(i))
    }

    /// The symbols whose extent (`value..value + size`) holds that address, nearest start first; looks back
    /// over a few starts only, as extents do not nest deeply.
    pub fn covering(&self, section: Option<u32>, value: u64) -> impl Iterator<Item = ShippedId> + '_ {
        let key = (if self.module { section } else { None }, value);
        let end = self.by_address().partition_point(|&i| {
            let symbol = &self.symbols[i as usize];
            (if self.module { symbol.section } else { None }, symbol.value) <= key
        });
        self.by_address()[end.saturating_sub(32)..end].iter().rev().map(|&i| ShippedId(i)).filter(
            move |&id| {
                let symbol = self.symbol(id);
                (!self.module || symbol.section == section)
                    && symbol.value <= value
                    && value - symbol.value < symbol.size.max(1)
            },
        )
    }
}

/// Names that kallsyms leaves out: `scripts/kallsyms.c` to 6.2, `scripts/mksysmap` since. Kernels before 5.18 list local labels
/// and the strings of exports. C code has no name for these, so no reference can mean one, and hiding them shifts no
/// other name's positions.
pub fn hidden_from_kallsyms(name: &BStr) -> bool {
    const PREFIXES: [&[u8]; 11] = [
        b"$",
        b".L",
        b"__crc_",
        b"__kstrtab_",
        b"__kstrtabns_",
        b"__efistub_",
        b"__kvm_nvhe_$",
        b"__kvm_nvhe_.L",
        b"__kcfi_typeid_",
        b"__pi_$",
        b"__pi_.L",
    ];
    const SUFFIXES: [&[u8]; 3] = [b"_from_arm", b"_from_thumb", b"_veneer"];
    const NAMES: [&[u8]; 3] = [b"L0", b"_SDA_BASE_", b"_SDA2_BASE_"];
    const PARTS: [&[u8]; 2] = [b".long_branch.", b".plt_branch."];
    // Of kallsyms its tables only, not its functions.
    const TABLES: [&[u8]; 9] = [
        b"addresses",
        b"offsets",
        b"relative_base",
        b"num_syms",
        b"names",
        b"markers",
        b"token_table",
        b"token_index",
        b"seqs_of_names",
    ];
    // Veneers of lld: `__AArch64ADRPThunk_`, `__ThumbV7PILongThunk_` and the like.
    let thunk = || {
        let rest = name.strip_prefix(b"__")?;
        let word = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        Some(rest[..word].ends_with(b"Thunk") && rest.get(word) == Some(&b'_'))
    };
    // Most names begin like none of them.
    matches!(name.first(), Some(b'$' | b'.' | b'_')) && PREFIXES.iter().any(|p| name.starts_with(p))
        || SUFFIXES.iter().any(|s| name.ends_with(s))
        || NAMES.iter().any(|n| name.as_bytes() == *n)
        || name.contains(&b'.') && PARTS.iter().any(|p| name.windows(p.len()).any(|part| part == *p))
        || thunk() == Some(true)
        || name.strip_prefix(b"kallsyms_").is_some_and(|rest| TABLES.contains(&rest))
}

impl<'d> ShippedSymbol<'d> {
    /// A defined symbol for tables that come from text, see [`SymbolTable::new`].
    pub fn new(
        name: Cow<'d, BStr>,
        value: u64,
        size: u64,
        kind: ShippedKind,
        binding: ShippedBinding,
        section: Option<u32>,
    ) -> ShippedSymbol<'d> {
        let listed = matches!(kind, ShippedKind::NoType | ShippedKind::Object | ShippedKind::Function)
            && !name.is_empty()
            && !hidden_from_kallsyms(name.as_ref());
        ShippedSymbol { name, value, size, kind, binding, section, defined: true, listed, file: None }
    }
}

/// The same with a name of its own.
pub fn shipped(
    name: impl Into<BString>,
    value: u64,
    size: u64,
    kind: ShippedKind,
    binding: ShippedBinding,
    section: Option<u32>,
) -> ShippedSymbol<'static> {
    ShippedSymbol::new(Cow::Owned(name.into()), value, size, kind, binding, section)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ShippedBinding::{Global, Local, Weak};
    use ShippedKind::{File, Function, Object};

    fn table() -> SymbolTable<'static> {
        SymbolTable::new(
            vec![
                shipped("a.c", 0, 0, File, Local, None),
                shipped("init_once", 0x300, 16, Function, Local, Some(1)),
                shipped("b.c", 0, 0, File, Local, None),
                shipped("init_once", 0x100, 16, Function, Local, Some(1)),
                shipped("only", 0x200, 16, Function, Local, Some(1)),
                shipped("", 0, 0, File, Local, None),
                shipped("init_once", 0x200, 4, Object, Weak, Some(1)),
                shipped("strong", 0x400, 16, Function, Global, Some(1)),
            ],
            false,
        )
    }

    #[test]
    fn sympos_counts_every_binding_by_address() {
        let table = table();
        let places: Vec<_> = (0..8).map(|i| table.sympos(ShippedId(i))).collect();
        assert_eq!(
            places,
            [None, Some(3), None, Some(1), Some(0), None, Some(2), Some(0)],
            "the weak datum between the two functions counts"
        );
        assert_eq!(table.at_sympos("init_once".into(), 3), Some(ShippedId(1)));
        assert_eq!(table.at_sympos("init_once".into(), 0), None);
        assert_eq!(table.at_sympos("only".into(), 0), Some(ShippedId(4)));
    }

    #[test]
    fn local_symbols_know_their_file() {
        let table = table();
        let (file, locals) = table.files("b.c".into()).next().unwrap();
        assert_eq!(locals.len(), 2);
        assert_eq!(table.ids_in_file(file).collect::<Vec<_>>(), [ShippedId(3), ShippedId(4)]);
        assert_eq!(table.symbol(ShippedId(6)).file, None);
    }

    #[test]
    fn addresses_find_symbols() {
        let table = table();
        assert_eq!(table.at(None, 0x200).collect::<Vec<_>>(), [ShippedId(4), ShippedId(6)]);
        assert_eq!(table.covering(None, 0x20f).collect::<Vec<_>>(), [ShippedId(4)]);
        assert_eq!(table.covering(None, 0x210).count(), 0);
    }

    #[test]
    fn functions_of_kallsyms_are_listed_and_its_tables_are_not() {
        let listed = |name| shipped(name, 1, 1, Function, Global, None).listed;
        assert!(listed("kallsyms_lookup_name"));
        assert!(!listed("kallsyms_names"));
    }

    #[test]
    fn modules_count_in_symbol_order() {
        let symbols = vec![
            shipped("x", 0x30, 1, Function, Local, Some(2)),
            shipped("x", 0x10, 1, Function, Local, Some(1)),
        ];
        let table = SymbolTable::new(symbols, true);
        assert_eq!(table.sympos(ShippedId(0)), Some(1));
        assert_eq!(table.sympos(ShippedId(1)), Some(2));
    }
}
