//! A path as a process sees it: walked below its root, one directory after the other, with its rights.

use std::ffi::{CString, OsStr};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::PathFacts;
use super::proc::Identity;

/// As many symbolic links as the kernel follows.
const LINKS: usize = 40;
const PARTS: usize = 256;
const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;

/// `root` is the process's root directory, `start` where a relative path begins.
pub fn look(root: &Path, start: &Path, path: &str, identity: &Identity) -> PathFacts {
    let from = if path.starts_with('/') { root } else { start };
    walk(root, from, path, identity).unwrap_or_default()
}

fn walk(root: &Path, from: &Path, path: &str, identity: &Identity) -> io::Result<PathFacts> {
    let mut facts = PathFacts::default();
    // Symbolic links must not lead out of the process's root into ours: each is followed by hand.
    let mut stack = vec![(open_dir(from)?, String::new())];
    let mut parts: Vec<Vec<u8>> = reversed(path.as_bytes()).collect();
    let mut links = 0;
    let mut steps = 0;
    while let Some(part) = parts.pop() {
        steps += 1;
        if steps > PARTS {
            return Ok(facts);
        }
        let Some((dir, so_far)) = stack.last() else { return Ok(facts) };
        if facts.blocked_at.is_none() && !may_enter(&dir.metadata()?, identity) {
            facts.blocked_at = Some(if so_far.is_empty() { "/".to_owned() } else { so_far.clone() });
        }
        if part == b".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let name = format!("{so_far}/{}", String::from_utf8_lossy(&part));
        let Ok(file) = open_at(dir, &part) else { return Ok(facts) };
        let meta = file.metadata()?;
        if meta.is_symlink() {
            links += 1;
            let target = read_link(&file)?;
            if links > LINKS {
                return Ok(facts);
            }
            if target.starts_with(b"/") {
                stack = vec![(open_dir(root)?, String::new())];
            }
            parts.extend(reversed(&target));
        } else if parts.is_empty() {
            facts.exists = true;
            facts.is_socket = meta.file_type().is_socket();
            (facts.mode, facts.uid, facts.gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        } else {
            stack.push((file, name));
        }
    }
    Ok(facts)
}

fn reversed(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

/// By owner, group and others, as the kernel does without access lists.
fn may_enter(dir: &Metadata, identity: &Identity) -> bool {
    if identity.capabilities & (CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH) != 0 {
        return true;
    }
    let mode = dir.mode();
    let bit = match identity {
        _ if dir.uid() == identity.uid => 0o100,
        _ if dir.gid() == identity.gid || identity.groups.contains(&dir.gid()) => 0o010,
        _ => 0o001,
    };
    mode & bit != 0
}

fn open_dir(path: &Path) -> io::Result<File> {
    // Follows the link: /proc/PID/root is one.
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string that outlives the call.
    owned(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) })
}

fn open_at(dir: &File, name: &[u8]) -> io::Result<File> {
    let name = CString::new(name)?;
    // O_PATH: nothing is opened, so no device, queue or socket is touched.
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the descriptor belongs to `dir`, and `name` is a C string that outlives the call.
    owned(unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags) })
}

fn owned(fd: libc::c_int) -> io::Result<File> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller's open returned this descriptor and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn read_link(link: &File) -> io::Result<Vec<u8>> {
    let mut target = vec![0; libc::PATH_MAX as usize];
    // SAFETY: an empty name means the link that the descriptor stands for; pointer and length are those of `target`.
    let length = unsafe { libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    target.truncate(length);
    Ok(target)
}

/// Whether a directory can be looked at, for a process whose root is not to be had.
pub fn readable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_dir()) && path.as_os_str() != OsStr::new("")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn stranger() -> Identity {
        Identity { uid: 65533, gid: 65533, groups: vec![65532], capabilities: 0 }
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o755);
        fs::create_dir_all(dir.path().join("run/shop/deep")).unwrap();
        for sub in ["run", "run/shop", "run/shop/deep"] {
            mode(&dir.path().join(sub), 0o755);
        }
        drop(UnixListener::bind(dir.path().join("run/shop/app.sock")).unwrap());
        mode(&dir.path().join("run/shop/app.sock"), 0o660);
        dir
    }

    fn seen(root: &tempfile::TempDir, path: &str) -> PathFacts {
        look(root.path(), root.path(), path, &stranger())
    }

    #[test]
    fn a_socket_is_described() {
        let root = tree();
        let facts = seen(&root, "/run/shop/app.sock");
        assert!(facts.exists && facts.is_socket);
        assert_eq!((facts.mode, facts.blocked_at), (0o660, None));
        assert!(!seen(&root, "/run/shop/app.sock/x").exists);
        assert_eq!(seen(&root, "/run/shop/none.sock"), PathFacts::default());
        assert!(seen(&root, "run//shop/./deep/../app.sock").is_socket);
    }

    #[test]
    fn the_first_directory_that_keeps_the_process_out_is_named() {
        let root = tree();
        mode(&root.path().join("run/shop"), 0o750);
        let facts = seen(&root, "/run/shop/app.sock");
        assert!(facts.exists);
        assert_eq!(facts.blocked_at.as_deref(), Some("/run/shop"));
        let super_user = Identity { capabilities: CAP_DAC_OVERRIDE, ..stranger() };
        assert_eq!(look(root.path(), root.path(), "/run/shop/app.sock", &super_user).blocked_at, None);
        let owner = fs::metadata(root.path()).unwrap();
        let in_group = Identity { groups: vec![owner.gid()], ..stranger() };
        assert_eq!(look(root.path(), root.path(), "/run/shop/app.sock", &in_group).blocked_at, None);
        // The owner's bits count for the owner even where the others' are wider.
        mode(&root.path().join("run/shop"), 0o077);
        let the_owner = Identity { uid: owner.uid(), ..stranger() };
        assert!(look(root.path(), root.path(), "/run/shop/app.sock", &the_owner).blocked_at.is_some());
    }

    #[test]
    fn links_stay_below_the_root_of_the_process() {
        let root = tree();
        symlink("/run", root.path().join("var_run")).unwrap();
        symlink("../../../../../../run/shop", root.path().join("run/up")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        symlink("/etc/passwd", root.path().join("out")).unwrap();
        assert!(seen(&root, "/var_run/shop/app.sock").is_socket);
        assert!(seen(&root, "/run/up/app.sock").is_socket);
        assert!(!seen(&root, "/loop").exists);
        assert!(!seen(&root, "/out").exists, "our own /etc is not the process's");
        mode(&root.path().join("run/shop"), 0o700);
        assert_eq!(seen(&root, "/var_run/shop/app.sock").blocked_at.as_deref(), Some("/run/shop"));
    }

    #[test]
    fn odd_paths_are_no_files() {
        let root = tree();
        for path in ["", "\0", "a\0b", &"x/".repeat(10_000), &"y".repeat(10_000), "/\u{fffd}"] {
            assert!(!seen(&root, path).exists);
        }
        assert_eq!(look(Path::new("/nowhere"), Path::new("/nowhere"), "/x", &stranger()), PathFacts::default());
    }
}
