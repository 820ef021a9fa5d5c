//! The fields that the livepatch core filled in: each must hold the address that the symbol table gives.

use kpatch_elf::Endian;
use kpatch_elf::arch::Machine;

use super::{Evidence, MACHINE, Verdict, Verified};
use crate::command::Context;
use crate::edge::read;
use crate::model::module::{KlpRelocation, PatchModule};
use crate::model::x86_64::{self, Call};

/// Calls through these trampolines are rewritten into direct ones when the module is loaded: on x86-64 only. Elsewhere
/// the trampoline alone is rewritten (arm64 with kCFI, 7.2: `HAVE_STATIC_CALL` without `HAVE_STATIC_CALL_INLINE`), or
/// there are none, and the call is a reference as any other.
const STATIC_CALL: &str = "__SCT__";

/// Tables that the kernel sorts when it loads a module, with the size of their entries
/// (`jump_label_sort_entries`, `static_call_sort_entries`): an entry is found by what it holds. It keeps flags in the
/// two lowest bits of the keys.
const SORTED: [(&str, u64); 2] = [("__jump_table", 16), (".static_call_sites", 8)];

/// The flags.
const FLAGS: u64 = 3;

/// What was found out, and otherwise why not.
type Result<T> = std::result::Result<T, (Verdict, String)>;

/// Checks all of a module's.
pub(super) fn check(cx: &Context<'_>, module: &PatchModule, evidence: &Evidence, out: &mut Verified) {
    let mut right = 0;
    for relocation in &module.relocations {
        // Init sections are gone; objects that are not loaded have nothing resolved.
        if relocation.section.starts_with(".init") || !evidence.has(&relocation.gate) {
            continue;
        }
        match resolved(cx, module, relocation, evidence) {
            Ok(()) => right += 1,
            Err((verdict, why)) => {
                let what =
                    format!("{}+{:#x} to {}", relocation.section, relocation.offset, relocation.symbol);
                out.add(what, verdict, why);
            }
        }
    }
    out.add("references", Verdict::Right, format!("{right} lead where the symbol table says"));
}

/// The field of a relocation.
struct Field {
    width: usize,
    pc_relative: bool,
}

impl Field {
    fn of(relocation: &KlpRelocation) -> Result<Field> {
        let field = MACHINE
            .and_then(|machine| machine.arch().field(relocation.kind))
            .filter(|field| field.whole && matches!(field.width, 4 | 8))
            .ok_or_else(|| unknown("a relocation whose field was not looked at"))?;
        Ok(Field { width: usize::from(field.width), pc_relative: field.pc_relative })
    }

    /// What it holds in order to lead to an address.
    fn leading_to(&self, target: u64, at: u64) -> u64 {
        let value = if self.pc_relative { target.wrapping_sub(at) } else { target };
        if self.width == 4 { value & 0xffff_ffff } else { value }
    }

    fn value(&self, bytes: &[u8]) -> Option<u64> {
        match self.width {
            4 => read::NATIVE.u32(bytes, 0).map(u64::from),
            _ => Endian::u64(read::NATIVE, bytes, 0),
        }
    }
}

fn unknown(why: &str) -> (Verdict, String) {
    (Verdict::Unknown, why.to_owned())
}

fn resolved(
    cx: &Context<'_>,
    module: &PatchModule,
    relocation: &KlpRelocation,
    evidence: &Evidence,
) -> Result<()> {
    let field = Field::of(relocation)?;
    let place = format!("/sys/module/{}/sections/{}", module.name, relocation.section);
    let text = cx.root.maybe(place).unwrap_or_default();
    let start = u64::from_str_radix(text.trim_start_matches("0x"), 16)
        .ok()
        .filter(|start| *start != 0)
        .ok_or_else(|| unknown("the kernel does not show where the section is"))?;
    let at = start.wrapping_add(relocation.offset);
    let symbol = evidence.find(&relocation.object, &relocation.symbol, relocation.sympos)?;
    let target = symbol.wrapping_add_signed(relocation.addend);
    if let Some((_, size)) = SORTED.iter().find(|(name, _)| *name == relocation.section) {
        return in_sorted_table(relocation, &field, start, *size, target, evidence);
    }
    if MACHINE == Some(Machine::X86_64) && relocation.symbol.starts_with(STATIC_CALL) {
        return static_call(at, symbol, evidence);
    }
    let bytes = evidence.bytes(at, field.width)?;
    let expected = field.leading_to(target, at);
    match field.value(&bytes) {
        Some(found) if found == expected => Ok(()),
        found => Err((
            Verdict::Wrong,
            format!("holds {:#x}, but {expected:#x} leads there", found.unwrap_or_default()),
        )),
    }
}

/// One of the entries must lead to the address.
fn in_sorted_table(
    relocation: &KlpRelocation,
    field: &Field,
    start: u64,
    size: u64,
    target: u64,
    evidence: &Evidence,
) -> Result<()> {
    let length = usize::try_from(relocation.section_size).map_err(|_| unknown("the table is too large"))?;
    let table = evidence.bytes(start, length)?;
    let within = relocation.offset % size;
    let leads_there = |index: u64| {
        let offset = index * size + within;
        let at = start.wrapping_add(offset);
        let value = table.get(usize::try_from(offset).ok()?..).and_then(|bytes| field.value(bytes))?;
        let mask = |value: u64| value & if field.width == 4 { 0xffff_fffc } else { !FLAGS };
        Some(mask(value) == mask(field.leading_to(target, at)))
    };
    if (0..relocation.section_size / size).any(|index| leads_there(index) == Some(true)) {
        return Ok(());
    }
    Err((Verdict::Wrong, "no entry of the table leads there".to_owned()))
}

/// The call must go where the trampoline goes, or to the trampoline.
fn static_call(at: u64, trampoline: u64, evidence: &Evidence) -> Result<()> {
    let not_understood = || unknown("code of a static call that was not understood");
    let site = evidence.bytes(at.wrapping_sub(2), x86_64::CALL_WINDOW)?;
    let site = x86_64::static_call_site(&site, at).ok_or_else(not_understood)?;
    let leads = evidence.bytes(trampoline, x86_64::TRAMPOLINE)?;
    let leads = x86_64::trampoline(&leads, trampoline).ok_or_else(not_understood)?;
    let nothing = |call: Call| match call {
        Call::Nothing => true,
        Call::To(address) => x86_64::NO_FUNCTION
            .iter()
            .any(|name| evidence.find(kpatch_elf::klp::VMLINUX, name, 0).ok() == Some(address)),
    };
    if site == Call::To(trampoline) || site == leads || (nothing(site) && nothing(leads)) {
        return Ok(());
    }
    Err((Verdict::Wrong, format!("the call goes to {site}, its trampoline to {leads}")))
}
