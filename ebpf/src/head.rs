//! The first bytes of a request or an answer, put together from the buffers that carry them.

use trace502_ebpf::{CONN_BLIND, Conn, HEAD};

use crate::kernel::{self, Payload, Way};
use crate::{conn, emit, places};

/// Where the bytes of a call lie.
#[derive(Clone, Copy)]
pub enum Source {
    /// In the buffers of the system call that runs, if it is one of this connection's socket and in this direction.
    Call(Way),
    /// In one piece at an address of the process: plain text inside its TLS library.
    At(u64),
}

/// The same as two numbers, for functions that are global to the verifier: it walks through them once for each program,
/// and not once for each way to them, but hands nothing to them but numbers and memory.
impl Source {
    #[inline(always)]
    pub fn numbers(self) -> (u32, u64) {
        match self {
            Source::Call(Way::In) => (0, 0),
            Source::Call(Way::Out) => (OUT, 0),
            Source::At(at) => (GIVEN, at),
        }
    }

    #[inline(always)]
    pub fn of(what: u32, at: u64) -> Source {
        match what {
            _ if what & GIVEN != 0 => Source::At(at),
            _ if what & OUT != 0 => Source::Call(Way::Out),
            _ => Source::Call(Way::In),
        }
    }
}

const OUT: u32 = 1;
const GIVEN: u32 = 2;
/// To the head of the reply, not of the request.
const REPLY: u32 = 4;

/// Address and length of the first piece of the running call's payload that is not empty.
#[inline(always)]
pub fn buffer(way: Way, n: u64, sk: impl FnOnce() -> u64) -> Option<(u64, u64)> {
    match kernel::payload(way, sk) {
        Payload::Buffer(at) => Some((at, n)),
        Payload::Vectors(vectors, count) => {
            let first = kernel::vector(vectors, 0)?;
            if first.1 == 0 && count > 1 {
                return kernel::vector(vectors, 1);
            }
            Some(first)
        }
        Payload::Blind => None,
    }
}

/// Bytes that tell what a piece of payload is: a status line up to its status, a record's or a frame's type.
pub const PEEK: usize = 16;

/// The first bytes of a call's payload, if there are that many.
#[inline(always)]
pub fn first_bytes(conn: &Conn, n: u64, source: Source) -> Option<[u8; PEEK]> {
    let (at, len) = place(conn, n, source)?;
    if len.min(n) >= PEEK as u64 { kernel::read_user(at) } else { None }
}

/// The same, where what cannot be read is not to be taken for nothing.
#[inline(always)]
pub fn first_bytes_or_blind(conn: &mut Conn, n: u64, source: Source) -> Option<[u8; PEEK]> {
    match place(conn, n, source) {
        Some((at, len)) if len.min(n) >= PEEK as u64 => kernel::read_user(at),
        Some(_) => None,
        None => {
            conn.flags |= CONN_BLIND;
            None
        }
    }
}

#[inline(always)]
fn place(conn: &Conn, n: u64, source: Source) -> Option<(u64, u64)> {
    match source {
        Source::Call(way) => buffer(way, n, || places::owner(conn.cookie)),
        Source::At(at) => Some((at, n)),
    }
}

/// Whether a call's payload begins as a request of HTTP/1 does. What cannot be read does not: heads are made in
/// memory, bodies may come from a file.
#[inline(always)]
pub fn begins_request(conn: &Conn, n: u64, source: Source) -> bool {
    let (what, at) = source.numbers();
    begins_as_request(conn, what, n, at) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub fn begins_as_request(conn: *const Conn, what: u32, n: u64, at: u64) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_ref() }) else { return 0 };
    let Some((at, len)) = place(conn, n, Source::of(what, at)) else { return 0 };
    // Caddy may read a request as "G" and "ET /". The mask says to the verifier what the comparison said to the compiler.
    let len = core::hint::black_box(len.min(n).min(PEEK as u64)) as u32 & (2 * PEEK as u32 - 1);
    let mut halves = [kernel::any(), kernel::any()];
    // SAFETY: as many bytes.
    let first = unsafe { &mut *halves.as_mut_ptr().cast::<[u8; 2 * PEEK]>() };
    let read = len != 0 && kernel::copy_user(first.as_mut_ptr(), len, at) == 0;
    i32::from(read && is_request_line(first, len as usize))
}

/// A method, a space, and what a target begins with; of these as much as `len` bytes can show.
#[inline(always)]
fn is_request_line(first: &[u8; 2 * PEEK], len: usize) -> bool {
    // An empty line before a request is to be borne with.
    if first[0] == b'\r' {
        return first[1] == b'\n' && first[2].is_ascii_uppercase();
    }
    for index in 0..PEEK - 1 {
        if index >= len {
            return true;
        }
        match first[index] {
            b'A'..=b'Z' | b'-' | b'_' => {}
            b' ' if index + 1 == len => return index > 0,
            // CONNECT names a host.
            b' ' => return index > 0 && (matches!(first[index + 1], b'/' | b'*' | b'h') || first[0] == b'C'),
            _ => return false,
        }
    }
    true
}

/// Pieces of a vectored call that are looked at: Varnish writes "HTTP/1.1", " ", "503" as three.
const PIECES: u64 = 4;
/// A first piece of this size says enough: the others are not looked at.
const ENOUGH: u64 = 64;

/// Appends the payload of a call to the head of a request, as far as there is room.
#[inline(always)]
pub fn append_request(conn: &mut Conn, n: u64, source: Source) {
    append(conn, 0, n, source);
}

/// The same for the head of its reply.
#[inline(always)]
pub fn append_reply(conn: &mut Conn, n: u64, source: Source) {
    append(conn, REPLY, n, source);
}

#[inline(always)]
fn append(conn: &mut Conn, what: u32, n: u64, source: Source) {
    let way = match source {
        Source::Call(way) => way,
        Source::At(at) => {
            piece(conn, what, at, n);
            return;
        }
    };
    let cookie = conn.cookie;
    // One way for both kinds of call: each of its own is walked through again by the verifier.
    let (at, size, vectors, count) = match kernel::payload(way, || places::owner(cookie)) {
        Payload::Buffer(at) => (at, n, 0, 0),
        Payload::Vectors(vectors, count) => match kernel::vector(vectors, 0) {
            Some((at, size)) => (at, size, vectors, count),
            None => {
                unseen(conn);
                return;
            }
        },
        Payload::Blind => {
            unseen(conn);
            return;
        }
    };
    let size = size.min(n);
    piece(conn, what, at, size);
    if count > 1 && size < n && size < ENOUGH {
        append_pieces(conn, what, n - size, vectors, count);
    }
}

/// The second and following pieces of a vectored call, which few have. Global to the verifier, which walks through it
/// once for each program and not once for each way to it; but not part of what every call goes through: to be called
/// costs as much as a helper.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn append_pieces(conn: *mut Conn, what: u32, mut left: u64, vectors: u64, count: u64) -> i32 {
    // SAFETY: as above.
    let Some(conn) = (unsafe { conn.as_mut() }) else { return 0 };
    for index in 1..PIECES {
        if index >= count || left == 0 {
            break;
        }
        let Some((at, whole)) = kernel::vector(vectors, index) else { break };
        let size = whole.min(left);
        left -= size;
        piece(conn, what, at, size);
        if size >= ENOUGH {
            break;
        }
    }
    0
}

/// `HTTP/1.1 100 Continue` and an empty line.
const INTERIM: usize = 25;

/// Takes an interim answer off the front of a head, and returns how much of another answer came with it.
#[inline(never)]
pub fn after_interim(head: &mut [u8; HEAD], len: u16) -> u16 {
    let ends = head[INTERIM - 4] == b'\r' && head[INTERIM - 1] == b'\n' && head[INTERIM] == b'H';
    if len as usize <= INTERIM || len as usize > HEAD || !ends {
        return 0;
    }
    let at = head.as_mut_ptr();
    // To the front, from the front: nothing is overwritten before it was read.
    kernel::copy(at, at.wrapping_add(INTERIM), HEAD - INTERIM);
    len - INTERIM as u16
}

/// Whether an answer of which every byte was kept has no end of its header. Asked where a connection ends, and no more
/// than once: most answers do not fit into a head.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn breaks_off(conn: *const Conn) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_ref() }) else { return 0 };
    i32::from(broken_off(conn))
}

#[inline(always)]
fn broken_off(conn: &Conn) -> bool {
    let len = conn.reply_len as usize;
    if conn.status < 200 || conn.reply_head[0] != b'H' || conn.reply_bytes != len as u64 || len >= HEAD {
        return false;
    }
    !has_empty_line(&conn.reply_head, len)
}

/// Whether the first `len` bytes of a head have an empty line, also as those write it who end lines with no more than a
/// line feed. Eight bytes at a time and without a branch for what they are: byte by byte, most of what the verifier walked
/// through was this.
#[inline(always)]
fn has_empty_line(head: &[u8; HEAD], len: usize) -> bool {
    const LINE_FEED: u64 = 0x0a0a_0a0a_0a0a_0a0a;
    const RETURN: u64 = 0x0d0d_0d0d_0d0d_0d0d;
    let (mut feeds_before, mut returns_before, mut found) = (0, 0, 0);
    for word in 0..HEAD / 8 {
        // Not the length itself: the verifier would follow what each round says of it.
        let left = core::hint::black_box(len as i64 - word as i64 * 8);
        if left <= 0 {
            break;
        }
        // SAFETY: within the head, which is aligned in a `Conn`. Volatile, or it is put together from single bytes.
        let bytes = unsafe { core::ptr::read_volatile(head.as_ptr().cast::<u64>().add(word)) };
        let within = !((u64::MAX << ((left as u64 * 8) & 63)) & ((left - 8) >> 63) as u64);
        let feeds = zeros(u64::from_le(bytes) ^ LINE_FEED) & within;
        let returns = zeros(u64::from_le(bytes) ^ RETURN) & within;
        let after_feed = (feeds << 8) | (feeds_before >> 56);
        let after_return = (returns << 8) | (returns_before >> 56);
        let after_two = (feeds << 16) | (feeds_before >> 48);
        found |= feeds & (after_feed | after_return & after_two);
        (feeds_before, returns_before) = (feeds, returns);
    }
    found != 0
}

/// The highest bit of each byte that is zero.
#[inline(always)]
fn zeros(bytes: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    !(((bytes & LOW) + LOW) | bytes | LOW)
}

/// Payload went by that could not be read: what it said is not known, which is not that it said nothing.
#[inline(never)]
fn unseen(conn: &mut Conn) -> i32 {
    conn.flags |= CONN_BLIND;
    emit::lost(0);
    0
}

/// Room for what comes after the first piece: the halves add up to a head whatever the verifier assumes.
const HALF: u32 = HEAD as u32 / 2;

#[inline(always)]
fn piece(conn: &mut Conn, what: u32, at: u64, n: u64) {
    let (head, len) = match what & REPLY {
        0 => (&mut conn.request_head, &mut conn.request_len),
        _ => (&mut conn.reply_head, &mut conn.reply_len),
    };
    let start = *len as u32;
    let limit = conn::head_limit();
    if start >= limit {
        return;
    }
    let take = n.min((limit - start) as u64) as u32;
    let (to, take) = if start == 0 {
        (head.as_mut_ptr(), take.min(HEAD as u32))
    } else if start < HALF {
        // The mask says to the verifier what the comparison said to the compiler.
        let start = core::hint::black_box(start) & (HALF - 1);
        // SAFETY: start < HALF < HEAD.
        (unsafe { head.as_mut_ptr().add(start as usize) }, take.min(HALF))
    } else {
        return;
    };
    if take == 0 {
        return;
    }
    if kernel::copy_user(to, take, at) == 0 {
        *len = (start + take) as u16;
    } else {
        unseen(conn);
    }
}
