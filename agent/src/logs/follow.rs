//! Follows logs as they grow: from their end, over rotation and truncation.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use thiserror::Error;

use super::parser::{LONGEST, Parser};
use super::{LogError, Source};
use crate::host::monotonic;
use crate::model::Nanos;

/// Read from one log in one turn, so that a flood in one does not keep the others waiting.
const TURN: usize = 1 << 18;
const LOGS: usize = 256;

#[derive(Debug, Error)]
pub enum LogsError {
    #[error("cannot follow the log {path}: {error}")]
    Open { path: String, error: io::Error },
    #[error(
        "cannot follow the log {0}: it is no regular file; let the proxy write to a file, or read its container's log"
    )]
    NoFile(String),
    #[error("more than {LOGS} logs to follow")]
    TooMany,
}

/// An error, and when its line was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    pub at: Nanos,
    pub error: LogError,
}

/// What following cost and missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub lines: u64,
    pub errors: u64,
    /// Lines that were too long, of which the start was read.
    pub long: u64,
    /// Times a log was replaced or emptied.
    pub rotations: u64,
}

#[derive(Default)]
pub struct Follower {
    tails: Vec<Tail>,
    changes: Option<Changes>,
    health: Health,
}

struct Tail {
    source: Source,
    parser: Parser,
    /// `None` until it exists.
    file: Option<File>,
    offset: u64,
    line: Vec<u8>,
    /// In a line that is too long, whose start was read.
    skipping: bool,
}

impl Follower {
    pub fn new() -> Self {
        Self { changes: Changes::new().ok(), ..Self::default() }
    }

    /// Follows a log from its end; one that does not exist yet from its start. One that is followed already is not
    /// followed twice.
    pub fn add(&mut self, source: Source) -> Result<(), LogsError> {
        let path = source.path.display().to_string();
        let file = match open(&source.path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(LogsError::Open { path, error }),
        };
        let mut offset = 0;
        if let Some(file) = &file {
            let meta = file.metadata().map_err(|error| LogsError::Open { path: path.clone(), error })?;
            if !meta.is_file() {
                return Err(LogsError::NoFile(path));
            }
            if self.tails.iter().any(|tail| tail.source.format == source.format && tail.is(&meta)) {
                return Ok(());
            }
            offset = meta.len();
        }
        if self.tails.iter().any(|tail| tail.source == source) {
            return Ok(());
        }
        if self.tails.len() >= LOGS {
            return Err(LogsError::TooMany);
        }
        if let Some(changes) = &self.changes {
            changes.watch(&source.path);
        }
        let parser = Parser::new(source.format);
        self.tails.push(Tail { source, parser, file, offset, line: Vec::new(), skipping: false });
        Ok(())
    }

    /// No longer follows a log.
    pub fn remove(&mut self, source: &Source) {
        self.tails.retain(|tail| tail.source != *source);
    }

    /// What is followed, and whether it exists.
    pub fn followed(&self) -> impl Iterator<Item = (&Source, bool)> {
        self.tails.iter().map(|tail| (&tail.source, tail.file.is_some()))
    }

    pub fn is_empty(&self) -> bool {
        self.tails.is_empty()
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// Readable when a log has changed. Not every filesystem tells: read from time to time anyway.
    pub fn changes(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(|changes| changes.fd.as_fd())
    }

    /// Reads what was written since the last time and hands over the errors. Says whether there is more to read.
    pub fn read(&mut self, mut each: impl FnMut(Followed)) -> bool {
        if let Some(changes) = &self.changes {
            changes.forget();
        }
        let zone = zone();
        let mut more = false;
        for tail in &mut self.tails {
            let mut found = |error| each(Followed { at: monotonic(), error });
            more |= tail.read(zone, &mut self.health, &mut found);
            if tail.rotated() {
                self.health.rotations += 1;
                more = true;
                if let Some(changes) = &self.changes {
                    changes.watch(&tail.source.path);
                }
            }
        }
        more
    }
}

impl Tail {
    fn is(&self, meta: &Metadata) -> bool {
        let own = self.file.as_ref().and_then(|file| file.metadata().ok());
        own.is_some_and(|own| own.ino() == meta.ino() && own.dev() == meta.dev())
    }

    fn read(&mut self, zone: i32, health: &mut Health, each: &mut dyn FnMut(LogError)) -> bool {
        let Some(size) = self.file.as_ref().and_then(|file| file.metadata().ok()).map(|meta| meta.len()) else {
            return false;
        };
        if size < self.offset {
            // Emptied in place, as copytruncate does.
            self.offset = 0;
            self.line.clear();
            self.skipping = false;
            health.rotations += 1;
        }
        let Some(file) = &mut self.file else { return false };
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(self.offset)).and_then(|_| file.take(TURN as u64).read_to_end(&mut bytes));
        if read.is_err() {
            return false;
        }
        self.offset += bytes.len() as u64;
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.take(piece, health);
            if !self.skipping || !self.line.is_empty() {
                health.lines += 1;
                if let Some(error) = self.parser.read(&self.line, zone) {
                    health.errors += 1;
                    each(error);
                }
            }
            self.line.clear();
            self.skipping = false;
        }
        self.take(last, health);
        bytes.len() == TURN
    }

    /// Adds to the current line, as far as there is room.
    fn take(&mut self, piece: &[u8], health: &mut Health) {
        let room = LONGEST - self.line.len();
        if piece.len() > room && !self.skipping {
            self.skipping = true;
            health.long += 1;
        }
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// Goes on with the file that now has the name, once the old one is read to its end.
    fn rotated(&mut self) -> bool {
        // While the name is gone the proxy still writes to the old file.
        let Ok(file) = open(&self.source.path) else { return false };
        let Ok(meta) = file.metadata() else { return false };
        if self.is(&meta) || !meta.is_file() {
            return false;
        }
        let read_all =
            self.file.as_ref().and_then(|file| file.metadata().ok()).is_none_or(|old| old.len() <= self.offset);
        if !read_all {
            return false;
        }
        (self.file, self.offset, self.skipping) = (Some(file), 0, false);
        self.line.clear();
        true
    }
}

/// Without waiting for the other end of a pipe that somebody put there.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// What local time is ahead of UTC now, in seconds.
fn zone() -> i32 {
    // SAFETY: time accepts a null pointer, and says the time in its result.
    let now = unsafe { libc::time(std::ptr::null_mut()) };
    let mut local = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; an all-zero tm is a valid one should it fail.
    let local = unsafe {
        libc::localtime_r(&now, local.as_mut_ptr());
        local.assume_init()
    };
    i32::try_from(local.tm_gmtoff).unwrap_or(0)
}

/// inotify: tells that something changed.
struct Changes {
    fd: OwnedFd,
}

impl Changes {
    fn new() -> io::Result<Self> {
        // SAFETY: inotify_init1 takes no pointers.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above returned this descriptor and nobody else has it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The file, and its folder for the file that takes its name. What cannot be watched is read every 100 ms anyway.
    fn watch(&self, path: &Path) {
        self.add(path, libc::IN_MODIFY);
        if let Some(folder) = path.parent() {
            self.add(folder, libc::IN_CREATE | libc::IN_MOVED_TO);
        }
    }

    fn add(&self, path: &Path, events: u32) {
        if let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) {
            // SAFETY: the descriptor is ours, and `path` is a C string that outlives the call.
            unsafe { libc::inotify_add_watch(self.fd.as_raw_fd(), path.as_ptr(), events) };
        }
    }

    /// What changed is read from the files: only that something did counts.
    fn forget(&self) {
        let mut events = [0_u8; 4096];
        // SAFETY: pointer and length are those of `events`; the descriptor does not block.
        while unsafe { libc::read(self.fd.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) } > 0 {}
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
