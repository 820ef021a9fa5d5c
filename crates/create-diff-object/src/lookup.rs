//! What a symbol that the extract does not define is in the shipped kernel.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use bstr::{BStr, BString};
use kbuild::symtab::{ShippedBinding, ShippedId, ShippedKind, SymbolTable};
use kbuild::symvers::Symvers;
use kpatch_elf::arch::Flow;
use kpatch_elf::{SymbolId, symbol_kind};

use crate::Input;
use crate::error::DiffError;
use crate::names;
use crate::unit::{Target, Unit};

/// How a reference gets its address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Resolution {
    /// By the module loader: exported by vmlinux.
    Exported,
    /// By the livepatch core.
    Klp { object: String, name: BString, sympos: u32, function: bool },
    /// By nobody that this unit knows; another unit of the patch may define it.
    Unknown,
}

/// Symbols of the shipped object as the original unit sees them.
///
/// Most units ask for a few symbols only, so everything that costs a pass over a unit is found when first
/// asked for.
pub(crate) struct Lookup<'a> {
    original: &'a Unit<'a>,
    patched: &'a Unit<'a>,
    shipped: &'a SymbolTable<'a>,
    exports: &'a Symvers,
    object: &'a str,
    /// Functions that another unit of the patch may have copies of.
    copied: &'a [String],
    /// For each file symbol of the original unit, the file in the shipped table.
    files: RefCell<BTreeMap<SymbolId, Found>>,
    /// Where in a table without file symbols the unit's local symbols lie.
    neighbourhood: OnceCell<Option<Neighbourhood>>,
    /// Undefined symbols that the patched unit calls: the export list does not tell functions from data.
    called: OnceCell<BTreeSet<BString>>,
}

#[derive(Clone, Copy, Debug)]
enum Found {
    File(ShippedId),
    Several(usize),
    None,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(original: &'a Unit<'a>, patched: &'a Unit<'a>, input: &Input<'a>) -> Lookup<'a> {
        Lookup {
            original,
            patched,
            shipped: input.shipped,
            exports: input.exports,
            object: input.object,
            copied: input.options.copied,
            files: RefCell::default(),
            neighbourhood: OnceCell::new(),
            called: OnceCell::new(),
        }
    }

    fn is_called(&self, name: &BStr) -> bool {
        let patched = self.patched;
        let called = self.called.get_or_init(|| {
            patched
                .references
                .iter()
                .filter(|reference| reference.flow != Flow::Next)
                .filter_map(|reference| match reference.target {
                    Target::External(symbol, _) => Some(patched.object.symbol(symbol).name.as_ref().into()),
                    _ => None,
                })
                .collect()
        });
        called.contains(name)
    }

    /// The shipped file of a file symbol of the original unit.
    fn file(&self, id: SymbolId) -> Found {
        *self.files.borrow_mut().entry(id).or_insert_with(|| match_file(self.original, id, self.shipped))
    }

    /// A symbol that the original unit defines.
    pub(crate) fn own(&self, unit: &Unit<'_>, id: SymbolId) -> Result<Resolution, DiffError> {
        let symbol = unit.object.symbol(id);
        if !symbol.is_local() {
            return self.external(symbol.name.as_ref());
        }
        let shipped = self.local(unit, id)?;
        self.klp(shipped)
    }

    /// The same, by the livepatch core even if it is exported.
    pub(crate) fn own_klp(&self, unit: &Unit<'_>, id: SymbolId) -> Result<Resolution, DiffError> {
        self.klp(self.shipped_of(unit, id)?)
    }

    /// Name, position and size of a function to be replaced.
    pub(crate) fn replaced(&self, unit: &Unit<'_>, id: SymbolId) -> Result<(String, u32, u64), DiffError> {
        let shipped = self.shipped_of(unit, id)?;
        let symbol = self.shipped.symbol(shipped);
        let Some(sympos) = self.shipped.sympos(shipped) else {
            return Err(DiffError::NotListed {
                name: symbol.name.to_string(),
                object: self.object.to_owned(),
            });
        };
        Ok((names::text(symbol.name.as_ref()), sympos, symbol.size))
    }

    fn shipped_of(&self, unit: &Unit<'_>, id: SymbolId) -> Result<ShippedId, DiffError> {
        let symbol = unit.object.symbol(id);
        if symbol.is_local() {
            return self.local(unit, id);
        }
        self.global(symbol.name.as_ref()).ok_or_else(|| DiffError::NotShipped {
            name: symbol.name.to_string(),
            object: self.object.to_owned(),
        })
    }

    /// The shipped symbol of a local symbol of the original unit.
    pub(crate) fn local(&self, unit: &Unit<'_>, id: SymbolId) -> Result<ShippedId, DiffError> {
        let symbol = unit.object.symbol(id);
        let name: &BStr = symbol.name.as_ref();
        let not_shipped = || DiffError::NotShipped { name: name.to_string(), object: self.object.to_owned() };
        let matching = |id: &ShippedId| {
            let shipped = self.shipped.symbol(*id);
            shipped.defined
                && shipped.binding == ShippedBinding::Local
                && kind_fits(symbol.kind, shipped.kind)
        };
        let file = unit.file_of[id.index()];
        let source = || file.map(|f| names::text(unit.object.symbol(f).name.as_ref())).unwrap_or_default();
        match file.map(|f| self.file(f)) {
            Some(Found::File(file)) => {
                let found: Vec<ShippedId> = self
                    .shipped
                    .named(name)
                    .filter(matching)
                    .filter(|&s| self.shipped.symbol(s).file == Some(file))
                    .collect();
                match found.as_slice() {
                    [only] => Ok(*only),
                    [] => Err(not_shipped()),
                    several => Err(DiffError::LocalAmbiguous {
                        name: name.to_string(),
                        file: source(),
                        candidates: several.len(),
                    }),
                }
            }
            found => {
                // Without a file, a name that occurs once is still proof.
                let all: Vec<ShippedId> = self.shipped.named(name).filter(matching).collect();
                let several = match all.as_slice() {
                    [only] => return Ok(*only),
                    [] => return Err(not_shipped()),
                    several => several,
                };
                if let Some(near) = self.in_neighbourhood(several) {
                    return Ok(near);
                }
                Err(match found {
                    Some(Found::Several(candidates)) => DiffError::FileAmbiguous {
                        name: name.to_string(),
                        file: source(),
                        object: self.object.to_owned(),
                        candidates,
                    },
                    _ => DiffError::LocalAmbiguous {
                        name: name.to_string(),
                        file: source(),
                        candidates: several.len(),
                    },
                })
            }
        }
    }

    /// The one of several symbols that lies among the unit's own.
    fn in_neighbourhood(&self, candidates: &[ShippedId]) -> Option<ShippedId> {
        let neighbourhood =
            self.neighbourhood.get_or_init(|| Neighbourhood::find(self.original, self.shipped)).as_ref()?;
        let unique = |first: u32, last: u32| {
            let mut inside = candidates.iter().filter(|id| (first..=last).contains(&id.0));
            let only = inside.next().copied();
            if inside.next().is_some() { None } else { only }
        };
        let Neighbourhood { first, last, reach } = *neighbourhood;
        unique(first, last).or_else(|| unique(first.saturating_sub(reach), last.saturating_add(reach)))
    }

    /// The definition of a global symbol that counts, if this object has one.
    pub(crate) fn global(&self, name: &BStr) -> Option<ShippedId> {
        self.shipped.global(name)
    }

    /// The object whose symbol table this is.
    pub(crate) fn object(&self) -> &str {
        self.object
    }

    pub(crate) fn is_exported(&self, name: &BStr) -> bool {
        self.exports.get(name).is_some()
    }

    pub(crate) fn is_weak(&self, id: ShippedId) -> bool {
        self.shipped.symbol(id).binding == ShippedBinding::Weak
    }

    /// Whether the patch module has a copy of a function of another unit, see [`crate::Options::copied`].
    pub(crate) fn is_copied(&self, name: &BStr) -> bool {
        self.copied.iter().any(|copied| name == copied.as_str())
    }

    /// A global symbol, defined by this unit or another.
    pub(crate) fn external(&self, name: &BStr) -> Result<Resolution, DiffError> {
        if self.is_copied(name) {
            return Ok(Resolution::Unknown);
        }
        let export = self.exports.get(name);
        if export.is_some_and(|e| e.is_vmlinux() && !e.is_restricted()) {
            // A module may have a global symbol of the same name, which wins inside it.
            let own = self.object != kpatch_elf::klp::VMLINUX && self.global(name).is_some();
            if !own {
                return Ok(Resolution::Exported);
            }
        }
        if let Some(id) = self.global(name) {
            return self.klp(id);
        }
        if let Some(export) = export {
            return Ok(Resolution::Klp {
                object: export.object.to_string(),
                name: name.into(),
                sympos: 0,
                function: self.is_called(name),
            });
        }
        Ok(Resolution::Unknown)
    }

    fn klp(&self, id: ShippedId) -> Result<Resolution, DiffError> {
        let symbol = self.shipped.symbol(id);
        let Some(sympos) = self.shipped.sympos(id) else {
            return Err(DiffError::NotListed {
                name: symbol.name.to_string(),
                object: self.object.to_owned(),
            });
        };
        Ok(Resolution::Klp {
            object: self.object.to_owned(),
            name: symbol.name.as_ref().into(),
            sympos,
            function: symbol.kind == ShippedKind::Function,
        })
    }
}

/// The part of a shipped symbol table that one unit contributed.
///
/// Stripped modules have no file symbols, but the linker keeps the local symbols of each unit together and in
/// order.
#[derive(Clone, Copy, Debug)]
struct Neighbourhood {
    /// First and last symbol that must be the unit's.
    first: u32,
    last: u32,
    /// How far its symbols may lie outside, at most.
    reach: u32,
}

impl Neighbourhood {
    fn find(unit: &Unit<'_>, shipped: &SymbolTable<'_>) -> Option<Neighbourhood> {
        let mut anchors = Vec::new();
        let mut locals: u32 = 0;
        for symbol in unit.object.symbols.iter().filter(|s| s.is_local() && s.section().is_some()) {
            if !matches!(symbol.kind, symbol_kind::FUNC | symbol_kind::OBJECT) {
                continue;
            }
            locals += 1;
            let mut same = shipped.named(symbol.name.as_ref()).filter(|&id| {
                let other = shipped.symbol(id);
                other.defined && other.binding == ShippedBinding::Local && kind_fits(symbol.kind, other.kind)
            });
            if let (Some(only), None) = (same.next(), same.next())
                && shipped.symbol(only).size == symbol.size
            {
                anchors.push(only.0);
            }
        }
        anchors.sort_unstable();
        // Names that happen to be another unit's lie apart.
        let reach = locals.saturating_mul(2).saturating_add(16);
        let mut best: Option<(usize, u32, u32)> = None;
        let mut from = 0;
        for (to, &last) in anchors.iter().enumerate() {
            while last - anchors[from] > reach {
                from += 1;
            }
            if best.is_none_or(|(count, ..)| to - from + 1 > count) {
                best = Some((to - from + 1, anchors[from], last));
            }
        }
        let (count, first, last) = best?;
        // Most of the names that can be found must be together.
        (count * 2 > anchors.len()).then_some(Neighbourhood {
            first,
            last,
            reach: locals - (count as u32).min(locals),
        })
    }
}

/// Whether the shipped object keeps what is in its `.meminit` sections: what the unit has there lies outside
/// of what vmlinux frees. Only a vmlinux with addresses tells.
pub(crate) fn keeps_memory_init(unit: &Unit<'_>, shipped: &SymbolTable<'_>, object: &str) -> bool {
    if object != kpatch_elf::klp::VMLINUX {
        return true;
    }
    let address = |name: &str| shipped.global(name.into()).map(|id| shipped.symbol(id).value);
    let (Some(from), Some(to)) = (address("__init_begin"), address("__init_end")) else { return false };
    let mut places = unit
        .object
        .symbols
        .iter()
        .filter(|symbol| {
            symbol.is_function()
                && symbol
                    .section()
                    .is_some_and(|s| crate::tables::is_memory_init(unit.object.section(s).name.as_ref()))
        })
        .flat_map(|symbol| shipped.named(symbol.name.as_ref()))
        .map(|id| shipped.symbol(id))
        .filter(|symbol| symbol.defined)
        .peekable();
    places.peek().is_some() && places.all(|symbol| !(from..to).contains(&symbol.value))
}

fn kind_fits(kind: u8, shipped: ShippedKind) -> bool {
    match shipped {
        ShippedKind::Function => kind == symbol_kind::FUNC,
        ShippedKind::Object => kind == symbol_kind::OBJECT,
        ShippedKind::NoType | ShippedKind::Other => true,
        ShippedKind::File => false,
    }
}

/// Finds for a file of the unit the file of the shipped table whose local symbols it shares.
///
/// Base names of sources repeat all over a kernel (`core.c`), so the file that has most of the unit's local
/// functions and data, and fewest others, is taken; two that are equally good are none.
fn match_file(unit: &Unit<'_>, file: SymbolId, shipped: &SymbolTable<'_>) -> Found {
    let name: &BStr = unit.object.symbol(file).name.as_ref();
    let candidates: Vec<_> = shipped.files(name).collect();
    if let [(only, _)] = candidates.as_slice() {
        return Found::File(*only);
    }
    // The symbols of a file stand behind its symbol, up to the next.
    let behind = unit.object.symbols.iter().zip(&unit.file_of).skip(file.index() + 1);
    let ours: BTreeSet<&BStr> = behind
        .take_while(|(symbol, _)| symbol.kind != symbol_kind::FILE)
        .filter(|(symbol, of)| {
            **of == Some(file)
                && matches!(symbol.kind, symbol_kind::FUNC | symbol_kind::OBJECT)
                && symbol.section().is_some()
        })
        .map(|(symbol, _)| symbol.name.as_ref())
        .filter(|name| kept_by_linker(name))
        .collect();
    let mut best: Option<(i64, Vec<ShippedId>)> = None;
    for (candidate, symbols) in candidates {
        let theirs: BTreeSet<&BStr> = symbols
            .iter()
            .filter(|s| matches!(s.kind, ShippedKind::Function | ShippedKind::Object))
            .map(|s| s.name.as_ref())
            .filter(|n| kept_by_linker(n))
            .collect();
        let common = ours.intersection(&theirs).count() as i64;
        let score = 2 * common - ours.len() as i64 - theirs.len() as i64;
        match &mut best {
            Some((top, list)) if *top == score => list.push(candidate),
            Some((top, _)) if *top > score => {}
            _ => best = Some((score, vec![candidate])),
        }
    }
    match best {
        None => Found::None,
        Some((_, list)) if list.len() == 1 => Found::File(list[0]),
        Some((_, list)) => Found::Several(list.len()),
    }
}

/// False for local symbols that a link may drop.
fn kept_by_linker(name: &BStr) -> bool {
    !(name.starts_with(b"__exitcall_")
        || name.starts_with(b"__brk_reservation_fn_")
        || name.starts_with(b"__func_stack_frame_non_standard_")
        || name.starts_with(b"__trace_check")
        || name.starts_with(b".L")
        || name.starts_with(b"__pfx_")
        || names::contains(name, b"__addressable_")
        || names::contains(name, b"__UNIQUE_ID_")
        || names::is_sanitizer_data(name))
}
