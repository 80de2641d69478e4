//! HTTP/2 of clients: which streams ask, and which of them are answered with an error.
//!
//! Frames are followed from one call to the next by how many bytes are left of them. Of a header block two things are
//! read here: the status, which every server writes first, and how many entries the block adds to the table of
//! headers, without which later blocks could not be read. The rest is read by user space, for errors only.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_loop;
use trace502_ebpf::*;

use crate::kernel;
use crate::maps::{
    Direction, H2, H2S, KnownStatus, NO_H2, NO_STREAM, PROCS, Parts, SECURED, STATUSES, STREAMS, Stream, StreamKey,
};
use crate::{emit, story, thread};

/// Steps of one call: a frame takes one, and another for its content. More than fit into the largest TLS record.
const STEPS: u32 = 4096;
/// Representations and strings of one header block.
const PARTS: u32 = 256;
/// "PRI * HTTP/2.0", an empty line, "SM", an empty line.
const PREFACE: u32 = 24;
const FRAME_HEAD: u32 = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// Slot of a request that nobody is to serve yet.
const NO_SLOT: u32 = u32::MAX;

/// Whose bytes are walked over. How far the walk came is kept with the connection: what changes from step to step must
/// not lie on the stack, where the verifier would follow each value it may have.
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
    let Some(empty) = NO_H2.get_ptr(0) else { return };
    // SAFETY: a slot that nobody writes.
    let _ = H2S.insert(&cookie, unsafe { &*empty }, BPF_ANY.into());
    if let Some(h2) = H2S.get_ptr_mut(&cookie) {
        // SAFETY: a map value that was just made.
        unsafe { (*h2).read.skip = PREFACE };
    }
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
        walk(conn, frame_read as *mut c_void, |h2| &mut h2.read);
    }
}

/// The owner wrote `n` bytes to a client.
#[inline(always)]
pub fn wrote(conn: &mut Conn, at: u64, n: u64) {
    if let Some(h2) = of(conn.cookie) {
        (h2.wrote.at, h2.wrote.left) = (at, n);
        walk(conn, frame_wrote as *mut c_void, |h2| &mut h2.wrote);
    }
}

#[inline(always)]
fn walk(conn: &mut Conn, step: *mut c_void, of_call: impl Fn(&mut H2) -> &mut Direction) {
    let (tgid, tid) = emit::current();
    let mut walk = Walk { cookie: conn.cookie, tgid, tid };
    // SAFETY: a function of this program and a place on this stack.
    unsafe { bpf_loop(STEPS, step, (&raw mut walk).cast(), 0) };
    // Looked up again: the steps changed it.
    if let Some(h2) = of(conn.cookie)
        && core::mem::take(&mut of_call(h2).left) != 0
    {
        // What was not looked at: where the next frame begins is not known.
        emit::lost(0);
        conn.role = ROLE_OPAQUE;
        forget(conn.cookie);
    }
}

#[inline(always)]
fn of(cookie: u64) -> Option<&'static mut H2> {
    // SAFETY: a map value; one thread at a time reads from, or writes to, a connection.
    H2S.get_ptr_mut(&cookie).map(|h2| unsafe { &mut *h2 })
}

#[derive(Clone, Copy)]
struct Frame {
    len: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

enum Next {
    /// A frame begins; what follows in the walk is its content.
    Frame(Frame),
    /// Content of an earlier frame passed.
    Passed,
    End,
}

#[inline(always)]
fn next(direction: &mut Direction) -> Next {
    if direction.left == 0 {
        return Next::End;
    }
    if direction.skip > 0 {
        let step = direction.left.min(direction.skip.into());
        direction.at += step;
        direction.left -= step;
        direction.skip -= step as u32;
        return Next::Passed;
    }
    let have = core::hint::black_box(direction.have) & 15;
    let take = FRAME_HEAD.wrapping_sub(have).min(direction.left.min(FRAME_HEAD.into()) as u32);
    let take = core::hint::black_box(take) & 15;
    if take > 0 {
        // SAFETY: have and take are below 16 each and stay within the 32 bytes.
        let to = unsafe { direction.head.as_mut_ptr().add(have as usize) };
        if kernel::copy_user(to, take, direction.at) != 0 {
            return Next::End;
        }
    }
    direction.at += u64::from(take);
    direction.left -= u64::from(take);
    direction.have = have + take;
    if direction.have < FRAME_HEAD {
        return Next::Passed;
    }
    let head = &direction.head;
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    // Go reads the head of a frame by itself, and its content with the next call.
    if direction.left == 0 && len > 0 {
        return Next::End;
    }
    direction.have = 0;
    direction.skip = len;
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Next::Frame(Frame { len, kind: head[3], flags: head[4], stream })
}

/// Where the header block of a frame begins, and its length.
#[inline(always)]
fn block(frame: Frame, at: u64) -> (u64, u32) {
    let (mut at, mut len) = (at, frame.len);
    if frame.flags & PADDED != 0 {
        let padding: u8 = kernel::read_user(at).unwrap_or(0);
        at += 1;
        len = len.saturating_sub(1 + u32::from(padding));
    }
    if frame.flags & PRIORITY != 0 {
        at += 5;
        len = len.saturating_sub(5);
    }
    (at, len)
}

/// A header block of this direction passes: what it adds to the table is to be counted, if it can be.
#[inline(always)]
fn begin_count(direction: &mut Direction, frame: Frame, at: u64, len: u32) {
    let whole = frame.flags & END_HEADERS != 0 && u64::from(frame.len) <= direction.left;
    // What does not come in one piece is never read to its end.
    let strings = if whole { 0 } else { u32::MAX };
    direction.parts = Parts { at, left: if whole { len } else { 0 }, inserted: 0, strings, whole: 0 };
}

#[inline(always)]
fn end_count(direction: &mut Direction) {
    let (known, parts) = (direction.inserted != UNCOUNTED, direction.parts);
    direction.inserted = if known && parts.whole != 0 { direction.inserted + parts.inserted } else { UNCOUNTED };
}

/// Goes through the representations of a header block.
#[inline(always)]
fn walk_parts(mut cookie: u64, step: *mut c_void) {
    // SAFETY: a function of this program and a place on this stack.
    unsafe { bpf_loop(PARTS, step, (&raw mut cookie).cast(), 0) };
}

/// A number with this many bits in its first byte: its value and how many bytes it takes; none where it is too long.
#[inline(always)]
fn number(bytes: [u8; 4], mask: u8) -> (u32, u32) {
    let low = bytes[0] & mask;
    if low < mask {
        return (low.into(), 1);
    }
    let (second, third) = (u32::from(bytes[1]), u32::from(bytes[2]));
    if second < 128 {
        (u32::from(mask) + second, 2)
    } else if third < 128 {
        (u32::from(mask) + (second & 127) + (third << 7), 3)
    } else {
        (0, 0)
    }
}

/// The next bytes, as far as there are any.
#[inline(always)]
fn peek(at: u64, left: u32) -> [u8; 4] {
    let mut bytes = [0; 8];
    // The mask says to the verifier what the comparison said to the compiler.
    let len = core::hint::black_box(left.min(4)) & 7;
    if len != 0 {
        kernel::copy_user(bytes.as_mut_ptr(), len, at);
    }
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

extern "C" fn part_read(_: u32, cookie: *mut c_void) -> i64 {
    // SAFETY: the place that `walk_parts` gave.
    of(unsafe { *cookie.cast::<u64>() }).map_or(1, |h2| part(&mut h2.read.parts))
}

extern "C" fn part_wrote(_: u32, cookie: *mut c_void) -> i64 {
    // SAFETY: as above.
    of(unsafe { *cookie.cast::<u64>() }).map_or(1, |h2| part(&mut h2.wrote.parts))
}

#[inline(always)]
fn part(parts: &mut Parts) -> i64 {
    if parts.left == 0 {
        parts.whole = (parts.strings == 0) as u32;
        return 1;
    }
    let bytes = peek(parts.at, parts.left);
    let first = bytes[0];
    let step = if parts.strings > 0 {
        let (len, used) = number(bytes, 0x7f);
        parts.strings -= 1;
        if used == 0 { 0 } else { len + used }
    } else if first & 0x80 != 0 {
        number(bytes, 0x7f).1
    } else if first & 0xe0 == 0x20 {
        number(bytes, 0x1f).1
    } else {
        let inserts = first & 0x40 != 0;
        let (name, used) = number(bytes, if inserts { 0x3f } else { 0x0f });
        parts.inserted += inserts as u32;
        parts.strings = if name == 0 { 2 } else { 1 };
        used
    };
    if step == 0 || step > parts.left {
        return 1;
    }
    parts.at += u64::from(step);
    parts.left -= step;
    0
}

extern "C" fn frame_read(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: the place that `walk` gave.
    let walk = unsafe { &*walk.cast::<Walk>() };
    let Some(h2) = of(walk.cookie) else { return 1 };
    let frame = match next(&mut h2.read) {
        Next::Frame(frame) => frame,
        Next::Passed => return 0,
        Next::End => return 1,
    };
    match frame.kind {
        HEADERS => {
            let (at, len) = block(frame, h2.read.at);
            let (inserted, left) = (h2.read.inserted, h2.read.left);
            begin_count(&mut h2.read, frame, at, len);
            walk_parts(walk.cookie, part_read as *mut c_void);
            // Looked up again: the steps changed it.
            let Some(h2) = of(walk.cookie) else { return 1 };
            end_count(&mut h2.read);
            asked(walk, frame, inserted, (at, len), left);
        }
        DATA if frame.flags & END_STREAM != 0 => whole(walk, frame.stream),
        RST_STREAM => reset(walk, frame.stream),
        CONTINUATION => h2.read.inserted = UNCOUNTED,
        _ => {}
    }
    0
}

extern "C" fn frame_wrote(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: as above.
    let walk = unsafe { &*walk.cast::<Walk>() };
    let Some(h2) = of(walk.cookie) else { return 1 };
    let frame = match next(&mut h2.wrote) {
        Next::Frame(frame) => frame,
        Next::Passed => return 0,
        Next::End => return 1,
    };
    match frame.kind {
        HEADERS => {
            let (at, len) = block(frame, h2.wrote.at);
            let status = status(h2, at, len);
            begin_count(&mut h2.wrote, frame, at, len);
            walk_parts(walk.cookie, part_wrote as *mut c_void);
            let Some(h2) = of(walk.cookie) else { return 1 };
            end_count(&mut h2.wrote);
            answered(walk.cookie, frame.stream, status);
        }
        RST_STREAM => answered(walk.cookie, frame.stream, ABANDONED),
        PUSH_PROMISE | CONTINUATION => h2.wrote.inserted = UNCOUNTED,
        _ => {}
    }
    0
}

#[inline(always)]
fn key(cookie: u64, id: u32) -> StreamKey {
    StreamKey { cookie, id, _pad: 0 }
}

/// A stream asks, or ends with trailers.
#[inline(always)]
fn asked(walk: &Walk, frame: Frame, inserted: u32, (at, len): (u64, u32), left: u64) {
    let key = key(walk.cookie, frame.stream);
    if STREAMS.get_ptr(&key).is_some() {
        return whole(walk, frame.stream);
    }
    let Some(empty) = NO_STREAM.get_ptr(0) else { return };
    // SAFETY: a slot that nobody writes.
    let _ = STREAMS.insert(&key, unsafe { &*empty }, BPF_ANY.into());
    let Some(stream) = STREAMS.get_ptr_mut(&key) else { return };
    // SAFETY: a map value that was just made.
    let stream = unsafe { &mut *stream };
    stream.asked = emit::now();
    stream.tgid = walk.tgid;
    stream.tid = walk.tid;
    stream.slot = NO_SLOT;
    stream.inserted = inserted;
    stream.bytes = len;
    let keep = (len as u64).min(left).min(HEAD as u64) as u32;
    if keep != 0 && kernel::copy_user(stream.head.as_mut_ptr(), keep.min(HEAD as u32), at) == 0 {
        stream.len = keep;
    }
    opening(walk.cookie, stream);
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&walk.tgid) }.copied().unwrap_or(0);
    if frame.flags & END_STREAM != 0 || class & PROC_WHOLE == 0 {
        wait(walk, stream, frame.stream);
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
fn wait(walk: &Walk, stream: &mut Stream, id: u32) {
    if stream.slot == NO_SLOT
        && let Some(thread) = thread::of(walk.tid)
    {
        stream.slot = thread::wait(thread, walk.cookie, id | STREAM, stream.asked);
    }
}

/// The body of a request came to its end.
#[inline(always)]
fn whole(walk: &Walk, id: u32) {
    if let Some(stream) = STREAMS.get_ptr_mut(&key(walk.cookie, id)) {
        // SAFETY: a map value; one thread at a time reads from a connection.
        wait(walk, unsafe { &mut *stream }, id);
    }
}

/// The client gave up a stream.
#[inline(always)]
fn reset(walk: &Walk, id: u32) {
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
            (*record).header = emit::header(Kind::ClientLeft, 0, size_of::<FlowRecord>());
            (*record).cookie = cookie;
            (*record).request = request;
        }
    });
    0
}

/// What is not a status: of no interest, or of a stream that the owner gave up.
const OTHER: u16 = 1;
const INTERIM: u16 = 2;
const ABANDONED: u16 = 3;

/// The status that a header block begins with.
#[inline(always)]
fn status(h2: &mut H2, at: u64, len: u32) -> u16 {
    let (mut at, mut left) = (at, len);
    let mut bytes = peek(at, left);
    // The table's size may be set first.
    if bytes[0] & 0xe0 == 0x20 {
        let used = number(bytes, 0x1f).1;
        at += u64::from(used);
        left = left.saturating_sub(used);
        bytes = peek(at, left);
    }
    let first = bytes[0];
    if first & 0x80 != 0 {
        return indexed(h2, number(bytes, 0x7f).0);
    }
    let inserts = first & 0x40 != 0;
    let name = first & if inserts { 0x3f } else { 0x0f };
    // The entries of the static table that are called ":status".
    if !(8..=14).contains(&name) {
        return OTHER;
    }
    let status = literal(peek(at + 1, left.saturating_sub(1)));
    if inserts && h2.wrote.inserted != UNCOUNTED && matches!(status, 502..=504) {
        let place = (h2.next & (STATUSES as u32 - 1)) as usize;
        h2.statuses[place] = KnownStatus { entry: h2.wrote.inserted + 1, status: status.into() };
        h2.next = h2.next.wrapping_add(1);
    }
    status
}

/// Three digits, as they are or in the code of RFC 7541 where that is shorter.
#[inline(always)]
fn literal(bytes: [u8; 4]) -> u16 {
    match bytes {
        [0x03, b'5', b'0', last @ b'0'..=b'4'] => 500 + u16::from(last - b'0'),
        [0x03, b'1', _, _] => INTERIM,
        [0x82, 0x6c, 0x02, _] => 502,
        [0x83, 0x6c, 0x0c, 0xff] => 503,
        [0x83, 0x6c, 0x0d, 0x7f] => 504,
        // "100" and "103".
        [0x82, 0x08, _, _] => INTERIM,
        _ => OTHER,
    }
}

/// Entries of the static table; what follows counts from the newest.
const STATIC: u32 = 61;

#[inline(always)]
fn indexed(h2: &H2, index: u32) -> u16 {
    if index <= STATIC {
        return if index == 14 { 500 } else { OTHER };
    }
    if h2.wrote.inserted == UNCOUNTED {
        // It may be any.
        emit::lost(0);
        return OTHER;
    }
    // Entries are numbered from 1 in the order in which they were added.
    let entry = h2.wrote.inserted.wrapping_sub(index - STATIC - 1);
    for known in &h2.statuses {
        if known.entry == entry && known.status != 0 {
            return known.status as u16;
        }
    }
    OTHER
}

/// A stream is answered, or given up by the owner.
#[inline(always)]
fn answered(cookie: u64, id: u32, status: u16) {
    let key = key(cookie, id);
    if status == INTERIM {
        return;
    }
    // Already answered: these are trailers.
    let Some(stream) = STREAMS.get_ptr_mut(&key) else { return };
    // SAFETY: a map value; one thread at a time writes to a connection.
    let stream = unsafe { &mut *stream };
    let (status, why) = match status {
        500 | 502..=504 => (status, WHY_STATUS),
        ABANDONED => (0, WHY_CLOSED),
        _ => (0, 0),
    };
    if let Some(thread) = thread::of(stream.tid) {
        // What the thread closes next need not be this stream's: frames are written when their turn comes.
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
