//! Clients whose bytes we cannot read: TLS inside a program of its own, HTTP/2. An error of such a client shows only
//! as an answer that is written right after an attempt for it failed, with none begun since.
//!
//! Kept by the client's cookie: an attempt knows no more of the client that it serves. Left out are proxies that
//! write before they close, and those whose threads pass requests around: there a write tells nothing.

use aya_ebpf::bindings::BPF_ANY;
use trace502_ebpf::*;

use crate::kernel::Sock;
use crate::maps::{PROCS, SEALED};
use crate::{emit, story, thread};

/// Nothing is known, or an answer came.
const QUIET: u32 = 0;
const ASKED: u32 = 1;
const FAILED: u32 = 2;

/// A TLS alert, or a frame of HTTP/2's housekeeping: no answer fits into it.
const HOUSEKEEPING: u64 = 48;
/// No request fits into this much either: acknowledgements, windows, the head of a record.
const SMALL: u64 = 40;
/// What is written later than this after a failure is another request's, in nanoseconds.
const AT_ONCE: u64 = 20_000_000;

/// What became of the last attempt for a client.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Story {
    pub state: u32,
    /// The request that it was begun for, as the connection counts them.
    pub request: u32,
    /// When it failed.
    pub at: u64,
    /// The thread whose attempt it was, and how many that had begun when it failed.
    pub tid: u32,
    pub births: u32,
    /// The client was read from since it was begun: it may have taken its request back.
    pub heard: u32,
    /// An error was told, and may yet turn out to be none.
    pub told: u32,
}

#[inline(always)]
fn births(tid: u32) -> u32 {
    thread::of(tid).map_or(0, |thread| thread.births)
}

/// From now on this client is one of these.
#[inline(always)]
pub fn begin(conn: &mut Conn) {
    conn.role = ROLE_SEALED;
    let _ = SEALED.insert(
        &conn.cookie,
        &Story { state: QUIET, request: 0, at: 0, tid: 0, births: 0, heard: 0, told: 0 },
        BPF_ANY.into(),
    );
}

#[inline(always)]
fn story(client: u64) -> Option<&'static mut Story> {
    // SAFETY: a map value of plain numbers; two threads that race here make one client's story less complete.
    SEALED.get_ptr_mut(&client).map(|story| unsafe { &mut *story })
}

/// The owner read from it: what it begins next is for this client.
#[inline(always)]
pub fn read(conn: &mut Conn, n: u64, tid: u32) {
    conn.tid = tid;
    if let Some(story) = story(conn.cookie) {
        story.heard = 1;
    }
    if n <= SMALL {
        return;
    }
    if conn.phase == PHASE_ANSWERED {
        conn.phase = PHASE_ASKED;
        conn.request += 1;
    }
    if let Some(thread) = thread::of(tid) {
        thread.sealed = 1;
        thread::continued(thread, conn);
    }
}

/// The owner wrote `n` bytes to it. Where that must be an error, it is told.
#[inline(always)]
pub fn wrote(sk: Sock, conn: &mut Conn, n: u64) {
    if n <= HOUSEKEEPING {
        return;
    }
    conn.phase = PHASE_ANSWERED;
    if let Some(thread) = thread::of(conn.tid)
        && thread.last.client == conn.cookie
    {
        thread.last = thread::NOBODY;
    }
    let Some(story) = story(conn.cookie) else { return };
    if story.state != FAILED {
        return;
    }
    story.state = QUIET;
    // As long as it is this client's: newer ones push out older ones.
    if !self::story(conn.cookie).is_some_and(|now| core::ptr::eq(now, &raw const *story)) {
        return;
    }
    let now = emit::now();
    // What the thread read or began meanwhile may be why it writes, or the next try for this client.
    let alone = story.heard == 0 && story.tid == conn.tid && story.births == births(conn.tid);
    if now.wrapping_sub(story.at) > AT_ONCE || !alone {
        return;
    }
    story.told = 1;
    // The error is that request's, whatever was read since.
    let request = core::mem::replace(&mut conn.request, story.request);
    story::hand_over(sk, conn, Kind::Client, WHY_UNSEEN | IN_TASK);
    conn.request = request;
}

/// An upstream connection begins to serve whatever it is bound to. Marks it if that is one of these clients.
#[inline(always)]
pub fn asked(conn: &mut Conn) {
    let Some(story) = story(conn.bound) else { return };
    conn.flags |= CONN_SEALED;
    if story.request != conn.bound_request {
        // Another request: what comes of it says nothing of the one before.
        story.told = 0;
    }
    story.state = ASKED;
    story.request = conn.bound_request;
    story.heard = 0;
}

/// The attempt for this client was answered.
#[inline(always)]
pub fn answered(conn: &Conn) {
    let Some(story) = story(conn.bound) else { return };
    story.state = QUIET;
    if story.told == 0 {
        return;
    }
    story.told = 0;
    let (client, request) = (conn.bound, conn.bound_request);
    emit::record::<FlowRecord>(Kind::Rescued, |record| {
        // SAFETY: reserved room of that size; plain numbers, of which zero says "unknown".
        let record = unsafe {
            core::ptr::write_bytes(record, 0, 1);
            &mut *record
        };
        record.header = emit::header(Kind::Rescued as u16, IN_TASK, size_of::<FlowRecord>());
        record.cookie = client;
        record.request = request;
    });
}

/// An attempt for this client failed. `gave_up`: the proxy ended it, which it also does when its client takes the
/// request back.
#[inline(always)]
pub fn failed(tgid: u32, tid: u32, client: u64, request: u32, gave_up: bool) {
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    if class & (PROC_LATE | PROC_LOOSE) != 0 {
        return;
    }
    let Some(story) = story(client) else { return };
    story.state = if gave_up && story.heard != 0 { QUIET } else { FAILED };
    story.request = request;
    story.heard = 0;
    story.at = emit::now();
    story.tid = tid;
    story.births = births(tid);
}
