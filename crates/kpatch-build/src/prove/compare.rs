//! Function by function, instruction by instruction.

use bstr::{BStr, ByteSlice};
use kbuild::symtab::{ShippedBinding, ShippedKind};
use kpatch_elf::arch::Arch;
use kpatch_elf::{Object, Place, Relocation, SectionId, Symbol, binding, section_flags};

use super::sections::Bases;
use super::shipped::{Location, Shipped, ShippedRelocation};
use super::sites::{Sites, is_retired_jump};
use super::{Difference, FunctionProof, Proof, Verdict};

/// Compares every function of a compiled original with the shipped object.
///
/// `file` is the base name of the unit's source, as the shipped symbol table's `STT_FILE` symbols give it.
pub fn prove(object: &Object<'_>, shipped: &Shipped<'_>, file: &str) -> Proof {
    let mut bases = Bases::place_text(object, shipped, file);
    let sites = Sites::of(object);
    let functions: Vec<(&Symbol<'_>, SectionId)> = object
        .symbols
        .iter()
        .filter(|s| s.is_function() && s.size > 0)
        .filter_map(|s| s.section().filter(|&id| object.section(id).is_text()).map(|id| (s, id)))
        .collect();

    // Every reference is a witness for the place of the section it leads to; verdicts come after all are
    // heard, so that their order does not matter.
    for &(symbol, section) in &functions {
        let Some(base) = bases.get(section) else { continue };
        for relocation in object.section(section).relocations_in(symbol.value, symbol.value + symbol.size) {
            let at = base.at.plus(relocation.offset as i64);
            if let Some((target, offset)) = section_target(object, &relocation)
                && let Some(Referent::Place(seen)) = referent(object, shipped, &relocation, at)
            {
                bases.witness(target, offset, seen);
            }
        }
    }

    let functions = functions
        .iter()
        .map(|&(symbol, section)| FunctionProof {
            name: symbol.name.to_string(),
            verdict: judge(object, shipped, &bases, &sites, symbol, section),
        })
        .collect();
    Proof { functions }
}

/// The section and offset a relocation leads to, where its symbol is defined in this object.
fn section_target(object: &Object<'_>, relocation: &Relocation) -> Option<(SectionId, i64)> {
    let symbol = object.symbol(relocation.symbol?);
    // A global symbol may be overridden or resolved by name; names are checked as names.
    if symbol.binding != binding::LOCAL {
        return None;
    }
    Some((symbol.section()?, (symbol.value as i64).wrapping_add(relocation.addend)))
}

/// What a shipped field refers to.
enum Referent<'a> {
    /// A place: symbol plus addend.
    Place(Location),
    /// A symbol that the module does not define, plus addend.
    Name(&'a BStr, i64),
}

/// What the shipped field at `at` refers to, `None` where that cannot be told.
fn referent<'a>(
    object: &Object<'_>,
    shipped: &'a Shipped<'_>,
    relocation: &Relocation,
    at: Location,
) -> Option<Referent<'a>> {
    let field = object.machine.arch().field(relocation.kind)?;
    match shipped.relocation(at) {
        ShippedRelocation::Linked => {
            if !field.whole || field.width < 4 {
                return None;
            }
            let bytes = shipped.bytes(at, u64::from(field.width))?;
            let value = match field.width {
                4 => i64::from(object.endian.u32(bytes, 0)?.cast_signed()),
                _ => object.endian.u64(bytes, 0)?.cast_signed(),
            };
            let origin = if field.pc_relative { at.value } else { 0 };
            Some(Referent::Place(Location { section: None, value: origin.wrapping_add_signed(value) }))
        }
        ShippedRelocation::Missing => None,
        ShippedRelocation::Found(module, found) => {
            let symbol = module.symbol(found.symbol?);
            match symbol.place {
                Place::Section(id) => Some(Referent::Place(Location {
                    section: shipped.section_index(id),
                    value: symbol.value.wrapping_add_signed(found.addend),
                })),
                _ => Some(Referent::Name(symbol.name.as_ref(), found.addend)),
            }
        }
    }
}

fn judge(
    object: &Object<'_>,
    shipped: &Shipped<'_>,
    bases: &Bases<'_, '_>,
    sites: &Sites,
    symbol: &Symbol<'_>,
    section: SectionId,
) -> Verdict {
    let strong_elsewhere = || {
        symbol.binding == binding::WEAK
            && shipped
                .symbols()
                .global(symbol.name.as_ref())
                .is_some_and(|id| shipped.symbols().symbol(id).binding == ShippedBinding::Global)
    };
    let Some(base) = bases.get(section) else {
        return if strong_elsewhere() { Verdict::Overridden } else { Verdict::Absent };
    };
    let at = base.at.plus(symbol.value as i64);
    let named = shipped.symbols().at(at.section, at.value).find(|&id| {
        let found = shipped.symbols().symbol(id);
        found.kind == ShippedKind::Function && found.name == symbol.name
    });
    // An overridden weak function's code stays in the image, but its name belongs to the other one.
    let Some(named) = named else {
        return if strong_elsewhere() { Verdict::Overridden } else { Verdict::Absent };
    };
    let shipped_size = shipped.symbols().symbol(named).size;
    let code = object.section(section).bytes();
    let (Ok(start), Ok(end)) = (usize::try_from(symbol.value), usize::try_from(symbol.value + symbol.size))
    else {
        return Verdict::Absent;
    };
    let (Some(compiled), Some(found)) = (code.get(start..end), shipped.from(at)) else {
        return Verdict::Absent;
    };
    let function =
        Function { object, shipped, bases, sites, section, start: symbol.value, at, compiled, found };
    function.compare(shipped_size)
}

/// One function beside its shipped counterpart.
struct Function<'a> {
    object: &'a Object<'a>,
    shipped: &'a Shipped<'a>,
    bases: &'a Bases<'a, 'a>,
    sites: &'a Sites,
    section: SectionId,
    /// Offset in the section, bytes.
    start: u64,
    at: Location,
    compiled: &'a [u8],
    /// Shipped bytes from the function's start to the end of its section.
    found: &'a [u8],
}

/// The answer to "does this field refer to the same thing".
enum Reference {
    Same,
    Unknown,
    Other(String),
}

impl Function<'_> {
    fn compare(&self, shipped_size: u64) -> Verdict {
        let arch = self.object.machine.arch();
        let mut unknown = 0;
        let mut offset = 0;
        while offset < self.compiled.len() {
            let rest = &self.compiled[offset..];
            // Bytes that are no instruction are compared one by one.
            let length = arch.instruction_length(rest).unwrap_or(1).min(rest.len());
            match self.instruction(arch, offset, length) {
                Ok(count) => unknown += count,
                Err(difference) => return Verdict::Differs(difference),
            }
            offset += length;
        }
        if shipped_size != self.compiled.len() as u64 {
            let what = format!("{} bytes compiled, {shipped_size} bytes shipped", self.compiled.len());
            return Verdict::Differs(self.difference(arch, self.compiled.len(), what));
        }
        if unknown == 0 { Verdict::Equal } else { Verdict::Undecided { references: unknown } }
    }

    /// Compares one instruction; `Ok` is the number of references that could not be decided.
    fn instruction(&self, arch: &dyn Arch, offset: usize, length: usize) -> Result<u32, Difference> {
        let end = offset + length;
        let compiled = &self.compiled[offset..end];
        let in_section = self.start + offset as u64;
        let Some(found) = self.found.get(offset..end) else {
            return Err(self.difference(arch, offset, "the shipped code ends here".to_owned()));
        };
        if self.sites.contains(self.section, in_section) && is_retired_jump(compiled, found) {
            return Ok(0);
        }
        let relocations =
            self.object.section(self.section).relocations_in(in_section, in_section + length as u64);
        let mut from = 0;
        let mut unknown = 0;
        for relocation in relocations {
            let width = arch.field(relocation.kind).map_or(0, |f| usize::from(f.width));
            let field = (relocation.offset - in_section) as usize;
            let upto = field.min(length).max(from);
            if compiled[from..upto] != found[from..upto] {
                return Err(self.difference(arch, offset, "the instruction differs".to_owned()));
            }
            from = (field + width).min(length).max(from);
            if width == 0 {
                continue;
            }
            // Distance from the field to the instruction's end: what a PC-relative addend leaves out.
            let tail = (length - field.min(length)) as i64;
            match self.reference(arch, &relocation, tail) {
                Reference::Same => {}
                Reference::Unknown => unknown += 1,
                Reference::Other(what) => return Err(self.difference(arch, offset, what)),
            }
        }
        if compiled[from..] != found[from..] {
            return Err(self.difference(arch, offset, "the instruction differs".to_owned()));
        }
        Ok(unknown)
    }

    fn reference(&self, arch: &dyn Arch, relocation: &Relocation, tail: i64) -> Reference {
        let Some(symbol) = relocation.symbol.map(|s| self.object.symbol(s)) else {
            return Reference::Unknown;
        };
        let at = self.at.plus(relocation.offset as i64 - self.start as i64);
        let Some(referent) = referent(self.object, self.shipped, relocation, at) else {
            return Reference::Unknown;
        };
        let pc_relative = arch.field(relocation.kind).is_some_and(|f| f.pc_relative);
        let adjust = if pc_relative { tail } else { 0 };
        match referent {
            Referent::Name(name, addend) => {
                if name == symbol.name && addend == relocation.addend {
                    Reference::Same
                } else {
                    Reference::Other(format!(
                        "compiled code refers to {}, shipped code to {name}",
                        symbol.name
                    ))
                }
            }
            Referent::Place(seen) if symbol.binding != binding::LOCAL || symbol.is_undefined() => {
                self.by_name(symbol, relocation.addend, seen)
            }
            Referent::Place(seen) => self.by_place(symbol, relocation.addend, adjust, seen),
        }
    }

    /// A reference by a name that the whole kernel shares.
    fn by_name(&self, symbol: &Symbol<'_>, addend: i64, seen: Location) -> Reference {
        let mut known = false;
        for id in self.shipped.symbols().named(symbol.name.as_ref()) {
            let candidate = self.shipped.symbols().symbol(id);
            if !candidate.defined || candidate.kind == ShippedKind::File {
                continue;
            }
            known = true;
            if self.shipped.location(id).plus(addend) == seen {
                return Reference::Same;
            }
        }
        let nothing = Location { section: None, value: 0 };
        if !known && symbol.binding == binding::WEAK && nothing.plus(addend) == seen {
            return Reference::Same;
        }
        if !known {
            return Reference::Unknown;
        }
        let target = self.describe(seen.plus(-addend));
        Reference::Other(format!("compiled code refers to {}, shipped code to {target}", symbol.name))
    }

    /// A reference into a section of this unit. `adjust` is what the addend of a PC-relative field leaves
    /// out of the true offset.
    fn by_place(&self, symbol: &Symbol<'_>, addend: i64, adjust: i64, seen: Location) -> Reference {
        let Some(id) = symbol.section() else { return Reference::Unknown };
        let section = self.object.section(id);
        let offset = (symbol.value as i64).wrapping_add(addend);
        if section.has(section_flags::MERGE) {
            // The linker merges equal constants, so that contents count and not places. It looks up the
            // symbol's constant, then adds the addend; only with a section's symbol the two are one.
            let (start, seen) = if symbol.is_section() {
                (offset.wrapping_add(adjust), seen.plus(adjust))
            } else {
                (symbol.value as i64, seen.plus(addend.wrapping_neg()))
            };
            let Ok(start) = u64::try_from(start) else { return Reference::Unknown };
            let same = if section.is_strings() {
                section.string_at(start).is_some_and(|s| self.shipped.string(seen) == Some(s))
            } else {
                let size = section.entry_size.max(1);
                let ours =
                    usize::try_from(start).ok().and_then(|s| section.bytes().get(s..s + size as usize));
                ours.is_some() && ours == self.shipped.bytes(seen, size)
            };
            if same {
                return Reference::Same;
            }
            let text = section.string_at(start).filter(|_| section.is_strings()).unwrap_or_default();
            return Reference::Other(format!("the constant {:?} differs", text.to_str_lossy()));
        }
        match self.bases.get(id) {
            Some(base) if base.at.plus(offset) == seen => {
                if base.proven {
                    Reference::Same
                } else {
                    Reference::Unknown
                }
            }
            Some(base) if base.proven => {
                let target = self.describe(seen.plus(adjust));
                let ours = self.describe(base.at.plus(offset + adjust));
                Reference::Other(format!("compiled code refers to {ours}, shipped code to {target}"))
            }
            _ => Reference::Unknown,
        }
    }

    fn describe(&self, at: Location) -> String {
        let symbols = self.shipped.symbols();
        match symbols.covering(at.section, at.value).next() {
            Some(id) => {
                let symbol = symbols.symbol(id);
                match at.value - symbol.value {
                    0 => symbol.name.to_string(),
                    offset => format!("{}+{offset:#x}", symbol.name),
                }
            }
            None if self.shipped.is_text(at) => format!("code at {:#x}", at.value),
            None => format!("{:#x}", at.value),
        }
    }

    fn difference(&self, arch: &dyn Arch, offset: usize, what: String) -> Difference {
        let text = |code: Option<&[u8]>, address: u64| {
            code.and_then(|c| arch.disassemble(c, address)).unwrap_or_else(|| "(nothing)".to_owned())
        };
        Difference {
            offset: offset as u64,
            what,
            compiled: text(self.compiled.get(offset..), offset as u64),
            shipped: text(self.found.get(offset..), offset as u64),
        }
    }
}
