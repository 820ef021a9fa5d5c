//! The kernel that a set of patches is tried on.
//!
//! Archives drop old releases. A set that was made for one of them is of use for its neighbours, too, as far as its
//! patches apply.

use crate::error::{Error, Result};
use crate::kernels;
use std::fmt::Write as _;

/// The kernel, and how it was come by.
pub(super) struct Chosen {
    pub(super) release: String,
    pub(super) kernel: kernel_artifacts::Kernel,
    /// The release that was asked for, where its packages are gone, and why it is not to be had.
    pub(super) instead_of: Option<(String, String)>,
}

/// The release asked for, or the nearest offered one of its series and flavour.
pub(super) fn choose(release: &str, suites: &[String]) -> Result<Chosen> {
    let mut settings = kernels::settings();
    settings.suites.extend(suites.iter().cloned());
    let gone = match kernels::resolve(release, &settings) {
        Ok(kernel) => return Ok(Chosen { release: release.to_owned(), kernel, instead_of: None }),
        Err(Error::Gone { message, offered }) => (message, offered),
        Err(error) => return Err(error),
    };
    let (message, offered) = gone;
    let Some(nearest) = nearest(release, &offered) else { return Err(Error::Artifacts(message)) };
    eprintln!("{message}\ntaking {nearest} instead");
    let kernel = kernels::resolve(nearest, &settings)?;
    Ok(Chosen { release: nearest.to_owned(), kernel, instead_of: Some((release.to_owned(), message)) })
}

impl Chosen {
    /// What the report has to say about the kernel, and about patches that do not apply to it.
    pub(super) fn told(&self, left_out: &[String]) -> String {
        let Some((wanted, message)) = &self.instead_of else { return String::new() };
        let mut text = format!(
            "\nThe set is for {wanted}, whose packages are gone: {message}. {} is the nearest offered release.",
            self.release
        );
        if !left_out.is_empty() {
            let _ = write!(text, " {} patches do not apply to it: {}.", left_out.len(), left_out.join(", "));
        }
        text.push('\n');
        text
    }
}

/// The release whose numbers differ least from another's: the first number that differs counts most, and of two at the
/// same distance the newer one is taken.
fn nearest<'o>(release: &str, offered: &'o [String]) -> Option<&'o str> {
    let wanted = numbers(release);
    let distance = |other: &str| -> Vec<u64> {
        let other = numbers(other);
        let length = wanted.len().max(other.len());
        let at = |list: &[u64], index: usize| list.get(index).copied().unwrap_or(0);
        (0..length).map(|index| at(&wanted, index).abs_diff(at(&other, index))).collect()
    };
    let key = |other: &&str| (distance(other), std::cmp::Reverse(numbers(other)));
    offered.iter().map(String::as_str).min_by_key(key)
}

/// The numbers in a release's name.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_release_is_taken() {
        let offered =
            ["6.1.0-56-cloud-amd64", "6.1.0-50-cloud-amd64", "6.1.0-44-cloud-amd64"].map(str::to_owned);
        let of = |release: &str| nearest(release, &offered);
        assert_eq!(of("6.1.0-47-cloud-amd64"), Some("6.1.0-50-cloud-amd64"));
        assert_eq!(of("6.1.0-45-cloud-amd64"), Some("6.1.0-44-cloud-amd64"));
        assert_eq!(of("6.1.0-99-cloud-amd64"), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(nearest("6.1.0-47-cloud-amd64", &[]), None);
        let offered = ["6.12.117+deb12-cloud-amd64".to_owned(), "6.12.90+deb12-cloud-amd64".to_owned()];
        assert_eq!(nearest("6.12.100+deb12-cloud-amd64", &offered), Some("6.12.90+deb12-cloud-amd64"));
    }
}
