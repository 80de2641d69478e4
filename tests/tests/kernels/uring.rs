//! As much of io_uring as one send or receive at a time needs, by hand: no library between the test and the kernel.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

const ENTRIES: u32 = 4;
const ENTER_GETEVENTS: u32 = 1;
const OFFSET_SQ: i64 = 0;
const OFFSET_CQ: i64 = 0x800_0000;
const OFFSET_ENTRIES: i64 = 0x1000_0000;
const OP_SEND: u8 = 26;
const OP_RECV: u8 = 27;

/// `struct io_uring_params`, its offsets as plain numbers.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    _threads: [u32; 7],
    sq: [u32; 10],
    cq: [u32; 10],
}

/// `struct io_uring_sqe` as far as it is used.
#[repr(C)]
struct Entry {
    op: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    len: u32,
    _rest: [u32; 9],
}

pub struct Uring {
    fd: OwnedFd,
    params: Params,
    sq: *mut u8,
    cq: *mut u8,
    entries: *mut Entry,
}

impl Uring {
    /// `None` where the kernel does not let us.
    pub fn new() -> Option<Uring> {
        let mut params = Params::default();
        // SAFETY: the structure has the kernel's size and layout; the descriptor is then ours.
        let fd = unsafe {
            let fd = libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params);
            (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))?
        };
        let map = |offset: i64| {
            // SAFETY: a new mapping of what the kernel offers at this offset. It lives as long as the test.
            let at = unsafe {
                let all = libc::PROT_READ | libc::PROT_WRITE;
                libc::mmap(std::ptr::null_mut(), 4096, all, libc::MAP_SHARED, fd.as_raw_fd(), offset)
            };
            assert_ne!(at, libc::MAP_FAILED);
            at.cast::<u8>()
        };
        let (sq, cq, entries) = (map(OFFSET_SQ), map(OFFSET_CQ), map(OFFSET_ENTRIES).cast());
        Some(Uring { fd, params, sq, cq, entries })
    }

    pub fn send(&mut self, to: i32, bytes: &[u8]) -> i32 {
        self.run(OP_SEND, to, bytes.as_ptr() as u64, bytes.len())
    }

    pub fn receive(&mut self, from: i32, room: &mut [u8]) -> i32 {
        self.run(OP_RECV, from, room.as_mut_ptr() as u64, room.len())
    }

    /// Asks for a receive whose bytes are not there yet.
    pub fn begin_receive(&mut self, from: i32, room: &mut [u8]) {
        self.submit(OP_RECV, from, room.as_mut_ptr() as u64, room.len(), 0);
    }

    fn run(&mut self, op: u8, fd: i32, address: u64, len: usize) -> i32 {
        self.submit(op, fd, address, len, 1);
        self.result().expect("it was waited for")
    }

    /// Hands over one request, and waits for so many results.
    fn submit(&mut self, op: u8, fd: i32, address: u64, len: usize, wait: u32) {
        // Head, tail, mask, entries, flags, dropped, array.
        let [_, sq_tail, sq_mask, _, _, _, sq_array, ..] = self.params.sq;
        // SAFETY: the kernel's offsets lie in the mappings; one entry at a time, and nobody else uses the ring.
        unsafe {
            let tail = &*self.sq.add(sq_tail as usize).cast::<AtomicU32>();
            let at = tail.load(Ordering::Relaxed);
            let slot = at & *self.sq.add(sq_mask as usize).cast::<u32>();
            let entry = Entry { op, flags: 0, priority: 0, fd, offset: 0, address, len: len as u32, _rest: [0; 9] };
            self.entries.add(slot as usize).write(entry);
            self.sq.add(sq_array as usize).cast::<u32>().add(slot as usize).write(slot);
            tail.store(at.wrapping_add(1), Ordering::Release);
            let done = libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1,
                wait,
                ENTER_GETEVENTS,
                std::ptr::null::<u8>(),
                0,
            );
            assert_eq!(done, 1);
        }
    }

    /// The next result, if there is one.
    pub fn result(&mut self) -> Option<i32> {
        // Head, tail, mask, entries, overflow, entries.
        let [cq_head, cq_tail, cq_mask, _, _, cq_entries, ..] = self.params.cq;
        // SAFETY: as above.
        unsafe {
            let tail = &*self.cq.add(cq_tail as usize).cast::<AtomicU32>();
            let head = &*self.cq.add(cq_head as usize).cast::<AtomicU32>();
            let at = head.load(Ordering::Acquire);
            if at == tail.load(Ordering::Acquire) {
                return None;
            }
            let slot = at & *self.cq.add(cq_mask as usize).cast::<u32>();
            // user_data, then the result.
            let result = *self.cq.add(cq_entries as usize + slot as usize * 16 + 8).cast::<i32>();
            head.store(at.wrapping_add(1), Ordering::Release);
            Some(result)
        }
    }
}
