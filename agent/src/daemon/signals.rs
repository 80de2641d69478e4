//! Signals and wake-ups as file descriptors, so that one wait covers them all.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Stop,
    Reload,
    Bell,
    Time,
}

/// SIGTERM, SIGINT and SIGHUP, taken from the process and kept here.
pub struct Signals {
    fd: OwnedFd,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Signals {
    /// Must come before threads are started: they take over what is blocked.
    pub fn block() -> io::Result<Signals> {
        // SAFETY: the set is plain data that we own; sigemptyset makes it valid before its use, and signalfd
        // returns a new descriptor that nobody else owns.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&mut set, signal);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
                0 => {}
                error => return Err(io::Error::from_raw_os_error(error)),
            }
            let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
            Ok(Signals { fd: OwnedFd::from_raw_fd(fd) })
        }
    }

    /// Waits for a signal, the bell, or the time to be up. The bell is silent afterwards.
    pub fn wait(&self, bell: &Flag, limit: Duration) -> Event {
        let watch = |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut fds = [watch(self.fd.as_fd()), watch(bell.as_fd())];
        let millis = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: two valid descriptors in an array of two.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, millis) };
        if ready > 0 && fds[0].revents != 0 {
            return self.next().unwrap_or(Event::Time);
        }
        if ready > 0 && fds[1].revents != 0 {
            bell.lower();
            return Event::Bell;
        }
        Event::Time
    }

    fn next(&self) -> Option<Event> {
        // SAFETY: plain data for which all zeroes is a value.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: the kernel writes at most `size` bytes into a struct of that size.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size) };
        if read != size as isize {
            return None;
        }
        Some(if info.ssi_signo == libc::SIGHUP as u32 { Event::Reload } else { Event::Stop })
    }
}

/// A flag that can be waited for. Clones are the same flag.
#[derive(Clone, Debug)]
pub struct Flag(Arc<OwnedFd>);

impl Flag {
    pub fn new() -> io::Result<Flag> {
        // SAFETY: eventfd returns a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
        Ok(Flag(Arc::new(fd)))
    }

    pub fn raise(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes that live. It fails only when the flag is raised beyond counting.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn lower(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes to write to. A flag that is down already says so, and stays down.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
