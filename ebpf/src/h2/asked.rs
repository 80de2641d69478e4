//! Connections to upstreams that are spoken to in HTTP/2: which request each stream serves, and what an upstream says of
//! it by itself.
//!
//! The same walk as over a client's frames, the other way round: what the owner sends are requests (`H2::read`), what it
//! receives are answers (`H2::wrote`). A healthy answer costs the head of its frame and its first bytes: how much each
//! block adds to the table of headers is counted only from where an error has become one of its entries.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_loop;
use trace502_ebpf::*;

use super::frames::{self, Next, PUSH_PROMISE, RST_STREAM};
use super::{HEADERS, PREFACE, STEPS, Walk, blocks, heads, of};
use crate::head::Source;
use crate::kernel::{self, Payload};
use crate::maps::{ASKED, ASKING, Asked, Asking, Direction, H2, H2S, NO_ASKING, NO_H2, SAID, Said};
use crate::{emit, places, sealed, story, thread};

#[inline(always)]
fn asking(cookie: u64) -> Option<&'static mut Asking> {
    // SAFETY: a map value; one thread at a time reads from, or writes to, a connection.
    ASKING.get_ptr_mut(&cookie).map(|asking| unsafe { &mut *asking })
}

/// The owner sent `n` bytes in HTTP/2: the first, whose head is known, or more where its frames are followed.
#[inline(always)]
pub fn sent(conn: &mut Conn, n: u64, source: Source) {
    let (what, at) = source.numbers();
    frames_sent(conn, what, n, at);
}

/// Global to the verifier, as the other way below: walked through once for each program, and not for each way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn frames_sent(conn: *mut Conn, what: u32, n: u64, at: u64) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_mut() }) else { return 0 };
    if conn.class & CLASS_FRAMES != 0 || begin(conn) {
        asked(conn, n, Source::of(what, at));
    }
    0
}

/// The owner began to speak HTTP/2 to an upstream. Returns whether its frames are followed.
#[inline(always)]
fn begin(conn: &mut Conn) -> bool {
    if conn.flags & CONN_OLD != 0 {
        return false;
    }
    let Some(ahead) = said_first(conn) else {
        // What the upstream answers by itself will not be seen.
        emit::lost(0);
        return false;
    };
    let cookie = conn.cookie;
    let (Some(h2), Some(none)) = (NO_H2.get_ptr(0), NO_ASKING.get_ptr(0)) else { return false };
    // SAFETY: slots that nobody writes.
    let room = unsafe {
        H2S.insert(&cookie, &*h2, BPF_ANY.into()).is_ok() && ASKING.insert(&cookie, &*none, BPF_ANY.into()).is_ok()
    };
    let (Some(h2), Some(asking), true) = (of(cookie), asking(cookie), room) else {
        give_up(conn);
        return false;
    };
    h2.read.skip = PREFACE;
    h2.wrote.skip = ahead;
    asking.class = conn.class;
    asking.check = u32::from(conn.flags & CONN_CHECK);
    conn.class |= CLASS_FRAMES;
    keep(conn, &mut asking.own);
    true
}

/// An upstream may have greeted before it was asked: what there is left of its last frame, if its frames can be followed
/// from there.
#[inline(always)]
fn said_first(conn: &Conn) -> Option<u32> {
    const HEAD_OF_FRAME: u32 = 9;
    const LENGTH: u32 = 3;
    const FRAMES: u32 = 8;
    if conn.reply_bytes != conn.reply_len.into() {
        return None;
    }
    let len = u32::from(conn.reply_len);
    let mut at = 0;
    for _ in 0..FRAMES {
        if at >= len || at > HEAD as u32 - HEAD_OF_FRAME {
            break;
        }
        if len - at < LENGTH {
            // What lies behind it is not the upstream's.
            return None;
        }
        let byte = |n: u32| conn.reply_head[(core::hint::black_box(at + n) & (HEAD as u32 - 1)) as usize];
        at += HEAD_OF_FRAME + u32::from_be_bytes([0, byte(0), byte(1), byte(2)]);
    }
    at.checked_sub(len)
}

/// What the connection says of its newest request.
#[inline(always)]
fn keep(conn: &Conn, to: &mut Asked) {
    to.bound = conn.bound;
    to.bound_request = conn.bound_request;
    to.choices = conn.choices.into();
    to.flags = (conn.flags & OF_STREAM).into();
}

/// Flags that are about a request, and not about its connection.
const OF_STREAM: u16 = CONN_CHOICE | CONN_RETRY | CONN_REUSED | CONN_TOLD | CONN_IN_TURN;

/// Makes this the request that the connection is told by.
#[inline(always)]
fn become_it(conn: &mut Conn, stream: &Asked) {
    conn.request = stream.request;
    conn.asked = stream.at;
    conn.bound = stream.bound;
    conn.bound_request = stream.bound_request;
    conn.tid = stream.tid;
    conn.choices = stream.choices as u8;
    conn.flags = conn.flags & !OF_STREAM | stream.flags as u16;
}

#[inline(always)]
fn asked(conn: &mut Conn, n: u64, source: Source) {
    let Some(h2) = of(conn.cookie) else { return };
    if !aim(conn, &mut h2.read, n, source) || !walk(conn, step_asked as *mut c_void, |h2| &mut h2.read) {
        give_up(conn);
        return;
    }
    newest(conn);
}

/// The connection is told by its newest request, if there is a new one.
#[inline(never)]
fn newest(conn: &mut Conn) -> i32 {
    let Some(asking) = asking(conn.cookie) else { return 0 };
    if core::mem::take(&mut asking.begun) == 0 {
        return 0;
    }
    let place = (asking.last >> 1) as usize & (ASKED - 1);
    let before = conn.asked;
    become_it(conn, &asking.streams[place]);
    conn.tgid = emit::current().0;
    conn.phase = PHASE_ASKED;
    conn.errno = 0;
    conn.flags &= !(CONN_FIN_EARLY | CONN_SEALED);
    if conn.request > 1 {
        conn.asked_before = before;
        conn.status = 0;
        conn.request_len = 0;
        conn.reply_len = 0;
        conn.request_bytes = 0;
        conn.reply_bytes = 0;
    }
    if let Some(thread) = thread::of(conn.tid)
        && thread.sealed != 0
        && conn.bound != 0
    {
        sealed::asked(conn);
    }
    0
}

/// The owner received `n` bytes. Returns how many streams failed by what it got.
#[inline(always)]
pub fn received(conn: &mut Conn, n: u64, source: Source) -> u32 {
    let (what, at) = source.numbers();
    frames_received(conn, what, n, at) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub fn frames_received(conn: *mut Conn, what: u32, n: u64, at: u64) -> i32 {
    // SAFETY: as above.
    let Some(conn) = (unsafe { conn.as_mut() }) else { return 0 };
    answered(conn, n, Source::of(what, at)) as i32
}

#[inline(always)]
fn answered(conn: &mut Conn, n: u64, source: Source) -> u32 {
    if conn.status >= 100 && conn.reply_head[0] == b'H' {
        // It answers in HTTP/1.
        conn.class &= !CLASS_FRAMES;
        forget(conn.cookie);
        return 0;
    }
    let Some(h2) = of(conn.cookie) else { return 0 };
    if !aim(conn, &mut h2.wrote, n, source) || !walk(conn, step_answered as *mut c_void, |h2| &mut h2.wrote) {
        give_up(conn);
        return 0;
    }
    asking(conn.cookie).map_or(0, |asking| core::mem::take(&mut asking.told))
}

/// Tells the `nth` stream that failed in this call, as if the connection had served nothing else. The connection itself is
/// left as it is: another thread may be asking on it. Returns the status if it was its newest request, else 0.
///
/// Global to the verifier, as what it calls: walked through once, and not for each stream and program.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn stream_failed(sk: u64, conn: *const Conn, nth: u32) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_ref() }) else { return 0 };
    let Some(asking) = asking(conn.cookie) else { return 0 };
    let Said { id, status } = asking.said[nth as usize & (SAID - 1)];
    let stream = &mut asking.streams[(id >> 1) as usize & (ASKED - 1)];
    if stream.id != id {
        return 0;
    }
    stream.id = 0;
    let newest = stream.request == conn.request;
    let told = &mut asking.one;
    kernel::copy((&raw mut *told).cast(), (&raw const *conn).cast(), size_of::<Conn>());
    become_it(told, stream);
    if asking.class & PROC_POOLED != 0 {
        // The connection was made for whoever waited longest by then.
        told.bound = 0;
    }
    told.request |= STREAM;
    told.status = status as u16;
    told.phase = PHASE_ANSWERED;
    told.request_len = heads::content(conn.cookie, id, &mut told.request_head) as u16;
    story::told(sk, told, Kind::Attempt as u32, (WHY_ANSWERED | IN_TASK).into());
    if newest { status as i32 } else { 0 }
}

/// The connection is at its end.
#[inline(always)]
pub fn forget(cookie: u64) {
    let _ = ASKING.remove(&cookie);
    let _ = H2S.remove(&cookie);
}

/// What was not looked at hides where the next frame begins: from here on all would be guessed.
#[inline(never)]
fn give_up(conn: &mut Conn) -> i32 {
    emit::lost(0);
    conn.class &= !CLASS_FRAMES;
    forget(conn.cookie);
    0
}

/// Where the bytes of a call lie.
#[inline(always)]
fn aim(conn: &Conn, direction: &mut Direction, n: u64, source: Source) -> bool {
    match source {
        Source::At(at) => direction.aim(Payload::Buffer(at), n),
        Source::Call(way) => direction.aim(kernel::payload(way, || places::owner(conn.cookie)), n),
    }
}

/// Returns whether all of it was looked at.
#[inline(always)]
fn walk(conn: &Conn, step: *mut c_void, of_call: impl Fn(&mut H2) -> &mut Direction) -> bool {
    let (tgid, tid) = emit::current();
    let mut walk = Walk { cookie: conn.cookie, tgid, tid };
    // SAFETY: a function of this program and a place on this stack.
    unsafe { bpf_loop(STEPS, step, (&raw mut walk).cast(), 0) };
    // Looked up again: the steps changed it.
    of(conn.cookie).is_some_and(|h2| of_call(h2).done())
}

extern "C" fn step_asked(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: the place that `walk` gave.
    let walk = unsafe { &*walk.cast::<Walk>() };
    let Some(h2) = of(walk.cookie) else { return 1 };
    match frames::next(&mut h2.read) {
        Next::Frame => {}
        Next::End => return 1,
        Next::Block => return request(walk),
        Next::Passed => return 0,
    }
    let frame = h2.read.frame;
    h2.read.open = 0;
    let Some(asking) = asking(walk.cookie) else { return 1 };
    // Those of a connection's requests grow. What has the number of an older one are its trailers.
    h2.read.trailers = u32::from(frame.stream <= asking.last);
    match frame.kind {
        HEADERS if frame.stream > asking.last => {
            begins(walk, asking, frame.stream);
            heads::begin(walk.cookie, frame.stream);
        }
        RST_STREAM => {
            let stream = &mut asking.streams[(frame.stream >> 1) as usize & (ASKED - 1)];
            if stream.id == frame.stream {
                stream.id = 0;
                heads::forget(walk.cookie, frame.stream);
            }
        }
        _ => {}
    }
    0
}

/// Keeps what a stream asks, as far as it lies in this piece.
#[inline(always)]
fn request(walk: &Walk) -> i64 {
    let Some(h2) = of(walk.cookie) else { return 1 };
    let Some((at, n)) = frames::portion(&mut h2.read) else { return 0 };
    if h2.read.trailers == 0 {
        heads::append(walk.cookie, h2.read.frame.stream, at, n);
    }
    frames::passed(&mut h2.read, n);
    0
}

#[inline(always)]
fn begins(walk: &Walk, asking: &mut Asking, id: u32) {
    asking.last = id;
    asking.requests += 1;
    asking.begun += 1;
    let request = asking.requests;
    // The first is the one that the connection was made for.
    let own = asking.own;
    let mut new = Asked { id, request, at: emit::now(), tid: walk.tid, flags: 0, choices: 0, ..own };
    if request == 1 && own.bound != 0 {
        (new.flags, new.choices) = (own.flags, own.choices);
    } else if let Some(thread) = thread::of(walk.tid) {
        thread.garbled = 0;
        // It was there already: nothing that was begun for this turn.
        thread.turning = 0;
        (new.bound, new.bound_request) = (0, 0);
        // Who lets requests wait for any connection writes them later, and many at once: what they ask tells them apart.
        if asking.check == 0 && asking.class & PROC_POOLED == 0 {
            let chosen = thread::choose(thread, asking.class);
            (new.bound, new.bound_request) = (chosen.to.client, chosen.to.request);
            (new.flags, new.choices) = (chosen.flags.into(), chosen.choices.into());
        }
        thread::began(thread);
    }
    if request > 1 {
        new.flags |= u32::from(CONN_REUSED);
    }
    asking.streams[(id >> 1) as usize & (ASKED - 1)] = new;
}

extern "C" fn step_answered(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: as above.
    let walk = unsafe { &*walk.cast::<Walk>() };
    let Some(h2) = of(walk.cookie) else { return 1 };
    match frames::next(&mut h2.wrote) {
        Next::End => 1,
        Next::Block => block(walk),
        Next::Frame | Next::Passed => 0,
    }
}

/// So many bytes of a block show its status, also behind a change of the table's size.
const TELLING: u32 = 8;

#[inline(always)]
fn block(walk: &Walk) -> i64 {
    let Some(h2) = of(walk.cookie) else { return 1 };
    let Some((at, n)) = frames::portion(&mut h2.wrote) else { return 0 };
    let open = h2.wrote.first_len < TELLING;
    blocks::open(&mut h2.wrote, at, n);
    if open && h2.counting == 0 && blocks::adds_error(&h2.wrote) {
        h2.counting = 1;
    }
    // What comes before its status is known may have to be counted, too.
    if h2.counting != 0 || open && h2.wrote.first_len < TELLING {
        blocks::count(walk.cookie, &mut h2.wrote.parts, at, n, blocks::part_answered as *mut c_void);
    }
    let Some(h2) = of(walk.cookie) else { return 1 };
    if !frames::passed(&mut h2.wrote, n) {
        return 0;
    }
    let frame = h2.wrote.frame;
    // A promise is a request's.
    let status = if frame.kind == PUSH_PROMISE { blocks::INTERIM } else { blocks::status(h2) };
    match h2.counting {
        0 => {
            h2.wrote.open = 0;
            if h2.next != 0 {
                // Which entry it has become is not known.
                h2.next = 0;
                h2.wrote.inserted = UNCOUNTED;
            }
        }
        _ => blocks::counted(&mut h2.wrote),
    }
    if status != blocks::INTERIM {
        said(walk.cookie, frame.stream, status);
    }
    0
}

/// The answer of a stream began.
#[inline(always)]
fn said(cookie: u64, id: u32, status: u16) {
    let Some(asking) = asking(cookie) else { return };
    let stream = &mut asking.streams[(id >> 1) as usize & (ASKED - 1)];
    if !matches!(status, 502..=504) {
        if stream.id == id {
            stream.id = 0;
            heads::forget(cookie, id);
        }
        return;
    }
    // Newer ones have pushed it out, or more failed in one call than can be told.
    if stream.id != id || asking.told >= SAID as u32 {
        emit::lost(Kind::Attempt as u32);
        return;
    }
    asking.said[asking.told as usize & (SAID - 1)] = Said { id, status: status.into() };
    asking.told += 1;
}
