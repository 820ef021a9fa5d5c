//! How ftrace gets into a function.

use bstr::ByteSlice;
use kpatch_elf::arch::Machine;

use crate::tables::TableKind;
use crate::unit::{ElementId, Kind, Reference, Target, Unit};

/// Whether ftrace can redirect calls of a function.
pub(crate) fn has_entry(unit: &Unit<'_>, id: ElementId) -> bool {
    let element = unit.element(id);
    if tracer_call(unit, id).is_some() {
        return true;
    }
    let listed = unit.entries_of[id.index()].iter().any(|entry| {
        unit.element(*entry).kind == Kind::Entry(TableKind::Entries)
            && unit.references(*entry).iter().any(|r| matches!(r.target, Target::Element(t, _) if t == id))
    });
    if listed && unit.object.machine != Machine::X86_64 {
        return true;
    }
    // x86 lists padding in front of functions the same way, whether they have a call or not.
    let in_mcount = unit.entries_of[id.index()].iter().any(|entry| {
        unit.element(*entry).kind == Kind::Entry(TableKind::Entries)
            && unit.section(*entry).name.as_bytes() == b"__mcount_loc"
    });
    in_mcount || entry_by_code(unit, id, element.origin)
}

/// s390 shows it in the code itself.
fn entry_by_code(unit: &Unit<'_>, id: ElementId, origin: u64) -> bool {
    let bytes = unit.section(id).bytes().get(origin as usize..).unwrap_or_default();
    unit.object.machine == Machine::S390x && bytes.starts_with(&[0xc0, 0x04, 0, 0, 0, 0])
}

/// The reference of a function's entry to the tracer.
pub(crate) fn tracer_call<'a>(unit: &'a Unit<'_>, id: ElementId) -> Option<&'a Reference> {
    let origin = unit.element(id).origin;
    let mut references = unit.references(id).iter().filter(|r| r.offset >= origin);
    let is = |reference: &Reference, name: &[u8]| match reference.target {
        Target::External(symbol, _) => unit.object.symbol(symbol).name.as_bytes() == name,
        _ => false,
    };
    match unit.object.machine {
        Machine::X86_64 => references.next().filter(|r| is(r, b"__fentry__")),
        // Behind what makes the function's frame.
        Machine::Ppc64le => references.find(|r| is(r, b"_mcount")),
        Machine::Aarch64 | Machine::S390x | Machine::LoongArch64 => None,
    }
}
