//! Streams: each is a request of its own, from the first byte of its header block to the status of its answer.

use aya_ebpf::bindings::BPF_ANY;
use trace502_ebpf::*;

use super::Walk;
use super::blocks::{ABANDONED, INTERIM};
use super::frames::END_STREAM;
use super::grpc::UNAVAILABLE;
use crate::kernel;
use crate::maps::{Frame, NO_STREAM, PROCS, SECURED, STREAMS, Stream, StreamKey};
use crate::{conn, emit, story, thread};

/// What comes after the first piece of a block is kept from below here.
const HALF: u32 = HEAD as u32 / 2;
/// Slot of a request that nobody is to serve yet.
const NO_SLOT: u32 = u32::MAX;

#[inline(always)]
pub fn key(cookie: u64, id: u32) -> StreamKey {
    StreamKey { cookie, id, _pad: 0 }
}

#[inline(always)]
fn of(cookie: u64, id: u32) -> Option<&'static mut Stream> {
    // SAFETY: a map value; one thread at a time reads from, or writes to, a connection.
    STREAMS.get_ptr_mut(&key(cookie, id)).map(|stream| unsafe { &mut *stream })
}

/// A stream begins to ask. Returns whether it had asked before: then these are trailers.
#[inline(always)]
pub fn opened(walk: &Walk, id: u32, inserted: u32) -> bool {
    if of(walk.cookie, id).is_some() {
        return true;
    }
    let Some(empty) = NO_STREAM.get_ptr(0) else { return false };
    // SAFETY: a slot that nobody writes.
    let _ = STREAMS.insert(&key(walk.cookie, id), unsafe { &*empty }, BPF_ANY.into());
    let Some(stream) = of(walk.cookie, id) else {
        emit::lost(Kind::Client as u32);
        return false;
    };
    stream.asked = emit::now();
    stream.tgid = walk.tgid;
    stream.tid = walk.tid;
    stream.slot = NO_SLOT;
    stream.inserted = inserted;
    false
}

/// More of its header block was read.
#[inline(always)]
pub fn append(walk: &Walk, id: u32, at: u64, n: u32) {
    if let Some(stream) = of(walk.cookie, id) {
        append_to(stream, at, n);
    }
}

#[inline(always)]
pub fn append_to(stream: &mut Stream, at: u64, n: u32) {
    stream.bytes += n;
    let (start, limit) = (stream.len, conn::head_limit());
    // What the comparisons said to the compiler, the masks say to the verifier.
    let (start, take) = match start {
        0 => (0, n.min(limit).min(HEAD as u32)),
        1..HALF if start < limit => {
            let take = n.min(limit - start).min(HALF - 1);
            (core::hint::black_box(start) & (HALF - 1), core::hint::black_box(take) & (HALF - 1))
        }
        _ => return,
    };
    // SAFETY: from the beginning as much as a head has room for; from below its half less than another half.
    let to = unsafe { stream.head.as_mut_ptr().add(start as usize) };
    if take == 0 {
        return;
    }
    if kernel::copy_user(to, take, at) == 0 {
        stream.len = start + take;
    } else {
        emit::lost(0);
    }
}

/// Its header block is whole.
#[inline(always)]
pub fn asked(walk: &Walk, frame: Frame) {
    let Some(stream) = of(walk.cookie, frame.stream) else { return };
    // The one that ends the block serves it.
    stream.tgid = walk.tgid;
    stream.tid = walk.tid;
    opening(walk.cookie, stream);
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&walk.tgid) }.copied().unwrap_or(0);
    if frame.flags & END_STREAM != 0 || class & PROC_WHOLE == 0 {
        wait(walk, stream, frame.stream, class);
    }
}

/// Keeps the first header block of a connection: it fills the table that later ones refer to.
#[inline(always)]
fn opening(cookie: u64, stream: &Stream) {
    let Some(conn) = SECURED.get_ptr_mut(&cookie) else { return };
    // SAFETY: a map value; one thread at a time reads from a connection.
    let conn = unsafe { &mut *conn };
    conn.request += 1;
    if conn.request == 1 && stream.inserted == 0 {
        kernel::copy(conn.reply_head.as_mut_ptr(), stream.head.as_ptr(), HEAD);
        conn.reply_len = stream.len as u16;
    }
}

/// A stream waits to be served by the thread that read it.
#[inline(always)]
fn wait(walk: &Walk, stream: &mut Stream, id: u32, class: u32) {
    if stream.slot == NO_SLOT
        && let Some(thread) = thread::of(walk.tid)
    {
        let (turning, last) = (thread.turning, thread.last.request);
        stream.slot = thread::wait(thread, walk.cookie, id | STREAM, stream.asked);
        if class & PROC_POOLED != 0 {
            (stream.turn, stream.rank) = thread::in_its_turn(thread, walk.cookie, turning, last + 2 == id | STREAM);
        }
    }
}

/// The body of a request came to its end.
#[inline(always)]
pub fn whole(walk: &Walk, id: u32) {
    if let Some(stream) = STREAMS.get_ptr_mut(&key(walk.cookie, id)) {
        // SAFETY: a map value; one thread at a time reads from a connection.
        wait(walk, unsafe { &mut *stream }, id, 0);
    }
}

/// The client gave up a stream.
#[inline(always)]
pub fn reset(walk: &Walk, id: u32) {
    let key = key(walk.cookie, id);
    let Some(stream) = STREAMS.get_ptr_mut(&key) else { return };
    // SAFETY: as above.
    let stream = unsafe { &mut *stream };
    if let Some(thread) = thread::of(stream.tid) {
        thread::leave(thread, stream.slot, walk.cookie, id | STREAM);
    }
    left(walk.cookie, id | STREAM);
    let _ = STREAMS.remove(&key);
}

/// Tells that a client no longer waits for a request; 0 with `STREAM` for all of its streams.
#[inline(never)]
pub fn left(cookie: u64, request: u32) -> i32 {
    emit::record::<FlowRecord>(Kind::ClientLeft, |record| {
        // SAFETY: reserved room of that size.
        unsafe {
            core::ptr::write_bytes(record, 0, 1);
            (*record).header = emit::header(Kind::ClientLeft as u16, 0, size_of::<FlowRecord>());
            (*record).cookie = cookie;
            (*record).request = request;
        }
    });
    0
}

/// A stream is answered, or given up by the owner.
#[inline(always)]
pub fn answered(cookie: u64, id: u32, status: u16) {
    let key = key(cookie, id);
    if status == INTERIM {
        return;
    }
    // Already answered: these are trailers. An error never is: newer streams have pushed its stream out.
    let Some(stream) = STREAMS.get_ptr_mut(&key) else {
        if matches!(status, 502..=504) {
            emit::lost(Kind::Client as u32);
        }
        return;
    };
    // SAFETY: a map value; one thread at a time writes to a connection.
    let stream = unsafe { &mut *stream };
    let (status, why) = match status {
        500 | 502..=504 | UNAVAILABLE => (status, WHY_STATUS),
        ABANDONED => (0, WHY_CLOSED),
        _ => (0, 0),
    };
    if let Some(thread) = thread::of(stream.tid) {
        // What the thread closes next need not be this stream's: frames are written when their turn comes.
        if why != 0 {
            stream.rank = thread::begun_for(thread, stream.turn, stream.rank);
        }
        thread::done(thread, stream.slot, cookie, id | STREAM, false);
    }
    if why != 0
        && let Some(conn) = SECURED.get_ptr(&cookie)
    {
        // SAFETY: a map value, read only.
        story::stream_error(unsafe { &*conn }, stream, id, status, why);
    }
    let _ = STREAMS.remove(&key);
}
