//! HTTP/2 of clients: which streams ask, and which of them are answered with an error.
//!
//! Inside TLS the owner's library hands over one piece at a time; on the wire a call may name many. Frames, and the
//! header blocks in them, are followed over pieces and calls alike: how far the walk came is kept with the connection.

pub mod asked;
mod blocks;
mod frames;
mod grpc;
mod heads;
mod streams;

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_loop;
use trace502_ebpf::*;

use crate::emit;
use crate::kernel::{self, Sock, Way};
use crate::maps::{Direction, H2, H2S, NO_H2, SECURED};
use frames::{DATA, END_STREAM, HEADERS, Next, PUSH_PROMISE, RST_STREAM};

pub use streams::left;

/// Steps of one call: a frame takes one, and another for its content. More than fit into the largest TLS record.
const STEPS: u32 = 4096;
/// "PRI * HTTP/2.0", an empty line, "SM", an empty line.
const PREFACE: u32 = 24;

/// Whose bytes are walked over. What changes from step to step must not lie on the stack, where the verifier would
/// follow each value it may have.
#[repr(C)]
struct Walk {
    cookie: u64,
    tgid: u32,
    tid: u32,
}

/// What the first bytes of a client open.
#[inline(always)]
pub fn is_preface(conn: &Conn) -> bool {
    let head = &conn.request_head;
    conn.request_len >= 4 && head[0] == b'P' && head[1] == b'R' && head[2] == b'I' && head[3] == b' '
}

/// A client began to speak HTTP/2.
#[inline(always)]
pub fn begin(conn: &mut Conn) {
    conn.role = ROLE_H2;
    conn.phase = PHASE_OPEN;
    conn.request = 0;
    conn.request_len = 0;
    conn.reply_len = 0;
    let cookie = conn.cookie;
    if let Some(empty) = NO_H2.get_ptr(0) {
        // SAFETY: a slot that nobody writes.
        let _ = H2S.insert(&cookie, unsafe { &*empty }, BPF_ANY.into());
    }
    match of(cookie) {
        Some(h2) => h2.read.skip = PREFACE,
        None => unknown(conn),
    }
}

/// A client began to speak HTTP/2 on the wire. Its story is kept like one inside TLS, from where streams are told.
#[inline(always)]
pub fn begin_plain(sk: Sock, conn: &mut Conn) {
    sk.tuple(&mut conn.tuple);
    begin(conn);
    let cookie = conn.cookie;
    if conn.role == ROLE_H2 && SECURED.insert(&cookie, &*conn, BPF_ANY.into()).is_err() {
        unknown(conn);
    }
}

/// No table has room for this connection.
#[inline(always)]
fn unknown(conn: &mut Conn) {
    conn.role = ROLE_OPAQUE;
    forget(conn.cookie);
    emit::lost(Kind::Client as u32);
}

/// Forgets a connection.
#[inline(always)]
pub fn forget(cookie: u64) {
    let _ = H2S.remove(&cookie);
}

/// The owner read `n` bytes of a client, which lie at `at`.
#[inline(always)]
pub fn read(conn: &mut Conn, at: u64, n: u64) {
    if let Some(h2) = of(conn.cookie) {
        (h2.read.at, h2.read.left) = (at, n);
        walk_read(conn);
    }
}

/// The owner wrote `n` bytes to a client.
#[inline(always)]
pub fn wrote(conn: &mut Conn, at: u64, n: u64) {
    if let Some(h2) = of(conn.cookie) {
        (h2.wrote.at, h2.wrote.left) = (at, n);
        walk_wrote(conn);
    }
}

/// The owner moved `n` bytes of a client that speaks without TLS.
#[inline(never)]
pub fn plain(sk: Sock, conn: &mut Conn, n: u64, out: bool) -> i32 {
    let Some(h2) = of(conn.cookie) else { return 0 };
    let direction = if out { &mut h2.wrote } else { &mut h2.read };
    if !direction.aim(kernel::payload(if out { Way::Out } else { Way::In }, || sk.address()), n) {
        give_up(conn);
        return 0;
    }
    if out {
        walk_wrote(conn)
    } else {
        walk_read(conn)
    }
    if conn.role == ROLE_OPAQUE {
        let cookie = conn.cookie;
        let _ = SECURED.remove(&cookie);
    }
    0
}

#[inline(always)]
fn walk_read(conn: &mut Conn) {
    walk(conn, step_read as *mut c_void, |h2| &mut h2.read);
}

#[inline(always)]
fn walk_wrote(conn: &mut Conn) {
    walk(conn, step_wrote as *mut c_void, |h2| &mut h2.wrote);
}

#[inline(always)]
fn walk(conn: &mut Conn, step: *mut c_void, of_call: impl Fn(&mut H2) -> &mut Direction) {
    let (tgid, tid) = emit::current();
    let mut walk = Walk { cookie: conn.cookie, tgid, tid };
    // SAFETY: a function of this program and a place on this stack.
    unsafe { bpf_loop(STEPS, step, (&raw mut walk).cast(), 0) };
    // Looked up again: the steps changed it.
    let Some(h2) = of(conn.cookie) else { return };
    if !of_call(h2).done() {
        give_up(conn);
    }
}

/// What was not looked at hides where the next frame begins: from here on all would be guessed.
#[inline(always)]
fn give_up(conn: &mut Conn) {
    emit::lost(0);
    conn.role = ROLE_OPAQUE;
    forget(conn.cookie);
}

#[inline(always)]
fn of(cookie: u64) -> Option<&'static mut H2> {
    // SAFETY: a map value; one thread at a time reads from, or writes to, a connection.
    H2S.get_ptr_mut(&cookie).map(|h2| unsafe { &mut *h2 })
}

extern "C" fn step_read(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: the place that `walk` gave.
    let walk = unsafe { &*walk.cast::<Walk>() };
    let Some(h2) = of(walk.cookie) else { return 1 };
    match frames::next(&mut h2.read) {
        Next::Frame => {}
        Next::Block => return block_read(walk),
        Next::Passed => return 0,
        Next::End => return 1,
    }
    let frame = h2.read.frame;
    match frame.kind {
        HEADERS => h2.read.trailers = streams::opened(walk, frame.stream, h2.read.inserted) as u32,
        DATA if frame.flags & END_STREAM != 0 => streams::whole(walk, frame.stream),
        RST_STREAM => streams::reset(walk, frame.stream),
        _ => {}
    }
    0
}

#[inline(always)]
fn block_read(walk: &Walk) -> i64 {
    let Some(h2) = of(walk.cookie) else { return 1 };
    let Some((at, n)) = frames::portion(&mut h2.read) else { return 0 };
    if h2.read.trailers == 0 {
        streams::append(walk, h2.read.frame.stream, at, n);
    }
    blocks::count(walk.cookie, &mut h2.read.parts, at, n, blocks::part_read as *mut c_void);
    let Some(h2) = of(walk.cookie) else { return 1 };
    if frames::passed(&mut h2.read, n) {
        blocks::counted(&mut h2.read);
        let frame = h2.read.frame;
        match h2.read.trailers {
            0 => streams::asked(walk, frame),
            _ => streams::whole(walk, frame.stream),
        }
    }
    0
}

extern "C" fn step_wrote(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: as above.
    let walk = unsafe { &*walk.cast::<Walk>() };
    let Some(h2) = of(walk.cookie) else { return 1 };
    match frames::next(&mut h2.wrote) {
        Next::Frame => {}
        Next::Block => return block_wrote(walk),
        Next::Passed => return 0,
        Next::End => return 1,
    }
    if h2.wrote.frame.kind == RST_STREAM {
        streams::answered(walk.cookie, h2.wrote.frame.stream, blocks::ABANDONED);
    }
    0
}

#[inline(always)]
fn block_wrote(walk: &Walk) -> i64 {
    let Some(h2) = of(walk.cookie) else { return 1 };
    let Some((at, n)) = frames::portion(&mut h2.wrote) else { return 0 };
    blocks::open(&mut h2.wrote, at, n);
    blocks::count(walk.cookie, &mut h2.wrote.parts, at, n, blocks::part_wrote as *mut c_void);
    let Some(h2) = of(walk.cookie) else { return 1 };
    if frames::passed(&mut h2.wrote, n) {
        let stream = h2.wrote.frame.stream;
        // A promise is a request's.
        let mut status = if h2.wrote.frame.kind == PUSH_PROMISE { blocks::OTHER } else { blocks::status(h2) };
        let alone = h2.wrote.frame.flags & END_STREAM != 0;
        if alone && status == blocks::OTHER && h2.wrote.parts.grpc == grpc::UNAVAILABLE.into() {
            status = grpc::UNAVAILABLE;
        }
        blocks::counted(&mut h2.wrote);
        if h2.wrote.frame.kind != PUSH_PROMISE {
            streams::answered(walk.cookie, stream, status);
        }
    }
    0
}
