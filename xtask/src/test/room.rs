//! Whether the disk has room for the tests, asked before they begin: half an hour later would be late.

use crate::builder;
use crate::error::{Error, Result};
use crate::series::Series;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What all compiled crates and fuzz targets take, in MB, as measured.
const COMPILED: u64 = 3_000;
/// What a kernel takes that is unpacked, with its packages, and compiled originals.
const SERIES: u64 = 2_700;
/// What of that is needed when everything is built.
const BOOTED: u64 = 700;

/// What `cargo xtask own` takes, in the target directory and in the cache; only the long run has it.
const OWN: u64 = 2_500;
const OWN_IN_CACHE: u64 = 3_000;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// For everything.
    Ample,
    /// For one kernel at a time.
    Scarce,
}

/// A directory, and how much it will grow, in MB: at once, and where what is not needed is removed.
struct Demand {
    directory: PathBuf,
    all: u64,
    least: u64,
}

/// Finds out whether the tests of these series have room.
pub(super) fn check(series: &[Series], full: bool) -> Result<Room> {
    let target = crate::target_directory();
    let there: u64 = ["debug", "release", "fuzz"].iter().map(|part| size(&target.join(part))).sum();
    let mut compiled = COMPILED.saturating_sub(there);
    let cache = builder::cache_directory();
    let sources: Vec<String> = names(&cache.join("source"));
    let unpacked = |series: &&Series| {
        let start = format!("linux-source-{}_", series.kernel);
        sources.iter().any(|name| name.starts_with(&start))
    };
    let absent = (series.len() - series.iter().filter(unpacked).count()) as u64;
    let mut all = absent * SERIES;
    if full {
        let own = target.join("own");
        compiled += OWN.saturating_sub(size(&own));
        // What is there once is there after the second run.
        all += if own.exists() { 0 } else { OWN_IN_CACHE };
    }
    // A cache that belongs to others is left as it is, and the long run uses everything twice.
    let ours = std::env::var_os("CACHEDIR").is_none() && !full;
    let least = if ours && absent > 0 { SERIES + (absent - 1) * BOOTED } else { all };
    let demands = [
        Demand { directory: target, all: compiled, least: compiled },
        Demand { directory: cache, all, least },
    ];
    let mut disks = Vec::new();
    for demand in &demands {
        let existing = demand.directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let disk = fs_err::metadata(existing)?.dev();
        let free = rustix::fs::statvfs(existing).map_err(std::io::Error::from)?;
        disks.push((disk, free.f_bavail * free.f_frsize / 1_000_000));
    }
    judge(&demands, &disks)
}

/// The same for disks by number, with the room that each has.
fn judge(demands: &[Demand], disks: &[(u64, u64)]) -> Result<Room> {
    let mut room = Room::Ample;
    for (demand, &(disk, free)) in demands.iter().zip(disks) {
        let here =
            || demands.iter().zip(disks).filter(|(_, (other, _))| *other == disk).map(|(demand, _)| demand);
        let (all, least): (u64, u64) = (here().map(|d| d.all).sum(), here().map(|d| d.least).sum());
        if free < least {
            return Err(Error::Room { directory: demand.directory.clone(), free, needed: least });
        }
        if free < all {
            room = Room::Scarce;
        }
    }
    Ok(room)
}

/// What the files of a directory take on the disk, in MB; hard links count once.
fn size(directory: &Path) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    let entries = walkdir::WalkDir::new(directory).into_iter().filter_map(std::result::Result::ok);
    let files = entries.filter_map(|entry| entry.metadata().ok());
    files.filter(|file| seen.insert(file.ino())).map(|file| file.blocks() * 512).sum::<u64>() / 1_000_000
}

/// Names of what is in a directory; none where there is no such directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(std::result::Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demands() -> [Demand; 2] {
        [("/t", 3, 3), ("/c", 6, 4)].map(|(path, all, least)| Demand { directory: path.into(), all, least })
    }

    #[test]
    fn demands_on_one_disk_add_up() {
        assert_eq!(judge(&demands(), &[(1, 9), (1, 9)]).unwrap(), Room::Ample);
        assert_eq!(judge(&demands(), &[(1, 8), (1, 8)]).unwrap(), Room::Scarce);
        assert_eq!(judge(&demands(), &[(1, 7), (1, 7)]).unwrap(), Room::Scarce);
        let error = judge(&demands(), &[(1, 6), (1, 6)]).unwrap_err().to_string();
        assert!(error.contains("/t") && error.contains("6 MB") && error.contains("7 MB"), "{error}");
    }

    #[test]
    fn disks_are_judged_alone() {
        assert_eq!(judge(&demands(), &[(1, 3), (2, 6)]).unwrap(), Room::Ample);
        assert_eq!(judge(&demands(), &[(1, 3), (2, 5)]).unwrap(), Room::Scarce);
        assert!(judge(&demands(), &[(1, 2), (2, 6)]).is_err());
        assert!(judge(&demands(), &[(1, 3), (2, 3)]).unwrap_err().to_string().contains("/c"));
    }

    #[test]
    fn files_are_counted_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        fs_err::write(&file, vec![1; 3 << 20]).unwrap();
        fs_err::hard_link(&file, directory.path().join("b")).unwrap();
        assert_eq!(size(directory.path()), 3);
        assert_eq!(size(&directory.path().join("absent")), 0);
    }
}
