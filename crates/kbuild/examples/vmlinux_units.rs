//! Prints the units that a vmlinux was linked from: `vmlinux_units VMLINUX`

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use kbuild::units::UnitList;

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("missing argument: VMLINUX")?);
    let data = kbuild::mapped::Mapped::open(&path)?;
    let start = Instant::now();
    let list = UnitList::from_elf(&data)?;
    let elapsed = start.elapsed();
    for unit in list.iter() {
        println!("{unit}");
    }
    eprintln!("{} units in {elapsed:?}", list.len());
    Ok(())
}
