//! Files that are looked into and then hooked: which file one is, and a path that leads to it and to no other.
//!
//! Offsets of one file are never to be used in another: a breakpoint in the middle of an instruction breaks the proxy.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// A file with its contents. Who writes it anew may leave its inode as it is, and a new file may get that of an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub fn of(file: &File) -> io::Result<Identity> {
        let meta = file.metadata()?;
        Ok(Identity {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Leads to this very file as long as it is open, whatever its name stands for by now.
pub fn path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_is_written_anew_is_another_though_its_inode_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("proxy");
        fs::write(&name, "one").unwrap();
        let of = || Identity::of(&File::open(&name).unwrap()).unwrap();
        let before = of();
        assert_eq!(of(), before);
        fs::write(&name, "another").unwrap();
        let after = of();
        assert_eq!((after.device, after.inode), (before.device, before.inode));
        assert_ne!(after, before);
    }

    #[test]
    fn the_path_leads_to_the_file_that_was_opened_not_to_the_one_that_took_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (name, next) = (dir.path().join("proxy"), dir.path().join("next"));
        fs::write(&name, "old").unwrap();
        fs::write(&next, "new").unwrap();
        let file = File::open(&name).unwrap();
        fs::rename(&next, &name).unwrap();
        assert_eq!(fs::read(path(&file)).unwrap(), b"old");
    }
}
