//! What each stream asked an upstream: kept until it is answered, apart from the streams of clients, which must not be
//! pushed out by it.

use aya_ebpf::bindings::BPF_ANY;
use trace502_ebpf::*;

use super::streams::{append_to, key};
use crate::emit;
use crate::kernel;
use crate::maps::{ASKED_HEADS, NO_STREAM};

/// A stream begins to ask.
#[inline(always)]
pub fn begin(cookie: u64, id: u32) {
    let Some(empty) = NO_STREAM.get_ptr(0) else { return };
    // SAFETY: a slot that nobody writes.
    if ASKED_HEADS.insert(&key(cookie, id), unsafe { &*empty }, BPF_ANY.into()).is_err() {
        emit::lost(Kind::Attempt as u32);
    }
}

/// More of its header block was sent.
#[inline(always)]
pub fn append(cookie: u64, id: u32, at: u64, n: u32) {
    if let Some(stream) = ASKED_HEADS.get_ptr_mut(&key(cookie, id)) {
        // SAFETY: a map value; one thread at a time writes to a connection.
        append_to(unsafe { &mut *stream }, at, n);
    }
}

/// Nobody will ask for this stream again.
#[inline(always)]
pub fn forget(cookie: u64, id: u32) {
    let _ = ASKED_HEADS.remove(&key(cookie, id));
}

/// What a stream asked, which is forgotten; returns how long that is.
#[inline(always)]
pub fn content(cookie: u64, id: u32, to: &mut [u8; HEAD]) -> u32 {
    let Some(stream) = ASKED_HEADS.get_ptr(&key(cookie, id)) else { return 0 };
    // SAFETY: a map value; newer streams may push it out, and then it is nobody's.
    let stream = unsafe { &*stream };
    kernel::copy(to.as_mut_ptr(), stream.head.as_ptr(), HEAD);
    let len = stream.len;
    forget(cookie, id);
    len
}
