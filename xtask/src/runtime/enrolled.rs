//! A stock kernel that trusts a key of ours.
//!
//! The kernel's own certificate, which stands among its initial data (`certs/system_certificates.S`), is replaced in a copy
//! of the shipped vmlinux. QEMU boots that as it is, by the entry for PVH; the code is the shipped one, bit by bit.

use super::run_tool;
use crate::error::{Error, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use std::path::Path;

/// The certificates, one after the other, in DER.
const LIST: &str = "system_certificate_list";

/// Their size, an unsigned long.
const SIZE: &str = "system_certificate_list_size";

/// Writes a copy of `vmlinux` that trusts the certificate, given in PEM, and no other.
pub(super) fn enroll(vmlinux: &Path, certificate: &Path, copy: &Path) -> Result<()> {
    let der = copy.with_extension("der");
    run_tool(&duct::cmd!("openssl", "x509", "-in", certificate, "-outform", "DER", "-out", &der))?;
    let certificate = fs_err::read(&der)?;
    // What is loaded stays where it is in memory; without debug information the copy is a tenth of the size.
    run_tool(&duct::cmd!("objcopy", "--strip-debug", vmlinux, copy))?;
    let mut bytes = fs_err::read(copy)?;
    let (list, room) = place(&bytes, LIST)?;
    let (size, _) = place(&bytes, SIZE)?;
    let old = bytes[size..size + 8].try_into().map_or(0, u64::from_le_bytes);
    if certificate.len() as u64 > old || certificate.len() > room {
        return Err(Error::Failed(format!(
            "a certificate of {} bytes has no room in {old}",
            certificate.len()
        )));
    }
    bytes[list..list + certificate.len()].copy_from_slice(&certificate);
    bytes[size..size + 8].copy_from_slice(&(certificate.len() as u64).to_le_bytes());
    Ok(fs_err::write(copy, bytes)?)
}

/// Where a datum is in the file, and how much of its section follows.
fn place(file: &[u8], name: &str) -> Result<(usize, usize)> {
    let missing = || Error::Missing {
        what: format!("{name} in vmlinux"),
        remedy: "use a kernel with CONFIG_SYSTEM_TRUSTED_KEYRING".to_owned(),
    };
    let elf = object::File::parse(file).map_err(|_| missing())?;
    let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name)).ok_or_else(missing)?;
    let section = symbol.section_index().and_then(|index| elf.section_by_index(index).ok());
    let section = section.ok_or_else(missing)?;
    let (offset, size) = section.file_range().ok_or_else(missing)?;
    let into = symbol.address().checked_sub(section.address()).filter(|into| into + 8 <= size);
    let into = into.ok_or_else(missing)?;
    let at = usize::try_from(offset + into).map_err(|_| missing())?;
    Ok((at, usize::try_from(size - into).map_err(|_| missing())?))
}
