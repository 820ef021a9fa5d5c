//! One command that changes something at a time.

use std::fs::File;
use std::io;

use rustix::fs::{FlockOperation, flock};

use super::root::Root;

/// The lock of commands that change what is loaded. It goes with the process, however that ends.
const LOADING: &str = "/run/kpatch/lock";

/// The lock of commands that change what is installed.
const INSTALLING: &str = "/var/lib/kpatch/.lock";

/// A lock that is held.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of loading; `waiting` is called once if another command has it.
pub fn loading(root: &Root, waiting: &mut dyn FnMut()) -> io::Result<Lock> {
    take(root, LOADING, waiting)
}

/// Takes the lock of installing.
pub fn installing(root: &Root, waiting: &mut dyn FnMut()) -> io::Result<Lock> {
    take(root, INSTALLING, waiting)
}

fn take(root: &Root, path: &str, waiting: &mut dyn FnMut()) -> io::Result<Lock> {
    let path = root.path(path);
    if let Some(directory) = path.parent() {
        fs_err::create_dir_all(directory)?;
    }
    // Never removed: who waits on a removed file waits beside those that come later.
    let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    let (file, _) = file.into_parts();
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Lock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => waiting(),
        Err(error) => return Err(error.into()),
    }
    rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let first = loading(&root, &mut || panic!("nobody else is there")).unwrap();
        let _other = installing(&root, &mut || panic!("another lock")).unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _second = loading(&root, &mut || send.send("waits").unwrap()).unwrap();
                send.send("has it").unwrap();
            });
            assert_eq!(receive.recv().unwrap(), "waits");
            assert!(receive.try_recv().is_err());
            drop(first);
            assert_eq!(receive.recv().unwrap(), "has it");
        });
    }
}
