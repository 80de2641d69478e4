//! One writer a file: a second agent with the same history would delete what the first one keeps, and set aside what it
//! writes.
//!
//! The claim is a lock on a file beside the history, not on the history itself: SQLite's own locks would be lost with
//! the first descriptor that is closed. The kernel takes it back whatever way the process ends; the file stays.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::store::{HistoryError, beside, make_folder};

/// Held for as long as the file is written.
#[derive(Debug)]
pub struct Claim {
    _lock: Option<File>,
}

impl Claim {
    /// Refuses only what another one holds: a folder that cannot be written yet is the writer's to wait for.
    pub fn take(history: &Path) -> Result<Claim, HistoryError> {
        let Ok(mut lock) = open(history) else { return Ok(Claim { _lock: None }) };
        // SAFETY: the descriptor is open for the call, which takes no pointers.
        let held = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0
            && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
        if held {
            let mut holder = String::new();
            // Who it is helps; that there is one suffices.
            let _ = lock.take(16).read_to_string(&mut holder);
            let by = holder.trim().parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (pid {pid})"));
            return Err(HistoryError::Taken { file: history.to_owned(), by });
        }
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Claim { _lock: Some(lock) })
    }
}

fn open(history: &Path) -> io::Result<File> {
    make_folder(history)?;
    let file = beside(history, "-lock");
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file)
}
