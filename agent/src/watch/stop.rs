//! How a watch is told to stop: by a signal, by a deadline, or by whoever has seen enough.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use std::io::{Result, Write as _};

/// Readable once the watch shall stop.
pub struct Stop(OwnedFd);

/// Tells it to; any number may.
#[derive(Debug)]
pub struct Stopper(UnixStream);

impl Stop {
    pub fn new() -> Result<(Stop, Stopper)> {
        let (read, write) = UnixStream::pair()?;
        write.set_nonblocking(true)?;
        Ok((Stop(read.into()), Stopper(write)))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Stopper {
    pub fn stop(&self) {
        // A full buffer, or a reader that is gone: it has been told.
        let _ = (&self.0).write(&[1]);
    }

    pub fn another(&self) -> Result<Stopper> {
        Ok(Stopper(self.0.try_clone()?))
    }

    /// Also stops at SIGINT, SIGTERM and SIGHUP. Call it before other threads start: they inherit the mask.
    pub fn at_signals(&self) -> Result<()> {
        let stopper = self.another()?;
        let signals = mask();
        // SAFETY: a valid set; blocks them for this thread and those it starts.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) };
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut signal = 0;
            // SAFETY: a valid set and a place for the number.
            while unsafe { libc::sigwait(&raw const signals, &raw mut signal) } == 0 {
                stopper.stop();
            }
        })?;
        Ok(())
    }
}

fn mask() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}
