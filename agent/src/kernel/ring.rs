//! Reads the ring buffer: one thread, woken by the kernel, stopped by a file descriptor.

use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};

/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(60);

/// The reader's end of the ring buffer.
pub struct Ring {
    ring: RingBuf<MapData>,
}

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// There may be records, or something at the descriptor that was waited for, too.
    Records,
    /// The time was up.
    Time,
    /// Somebody wrote to the stop descriptor.
    Stop,
}

impl Ring {
    pub fn new(ring: RingBuf<MapData>) -> Ring {
        Ring { ring }
    }

    /// Waits for records, for the stop descriptor, for one more, or for the time to be up. Signals end a wait early.
    pub fn wait(&self, stop: BorrowedFd<'_>, also: Option<BorrowedFd<'_>>, timeout: Duration) -> Woken {
        let watch = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // A negative number is passed over.
        let also = also.map_or(-1, |fd| fd.as_raw_fd());
        let mut fds = [watch(self.ring.as_raw_fd()), watch(stop.as_raw_fd()), watch(also)];
        let timeout = timeout.min(LONGEST);
        let time = libc::timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        // SAFETY: three valid pollfds, a valid time, and no signals to hold back.
        let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), 3, &raw const time, std::ptr::null()) };
        if ready > 0 && fds[1].revents != 0 {
            Woken::Stop
        } else if ready > 0 {
            Woken::Records
        } else {
            Woken::Time
        }
    }

    /// Hands each waiting record to `take`, at most `most` of them; returns how many.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < most {
            let Some(record) = self.ring.next() else { break };
            take(&record);
            count += 1;
        }
        count
    }
}
