//! What kpatch remembers of a module that it loaded, in `/run/kpatch/NAME.json`.

use serde::{Deserialize, Serialize};

/// The record. A reboot takes it away together with the live patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When the patch was in force, seconds since 1970.
    pub since: u64,
    /// Inode of the patch's directory in sysfs, which is another one after each loading. It tells whether the
    /// live patch of this name is still the one that was recorded.
    pub inode: u64,
    /// The file.
    pub file: String,
}

impl Record {
    /// Since when the live patch with that inode is there, if this record is about it.
    pub fn since(&self, inode: u64) -> Option<u64> {
        (self.inode == inode).then_some(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_earlier_loading_says_nothing() {
        let record = Record { since: 5, inode: 9, file: "x.ko".into() };
        assert_eq!((record.since(9), record.since(8)), (Some(5), None));
    }
}
