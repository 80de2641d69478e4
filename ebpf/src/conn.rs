//! The life of a tracked connection: its request and answer as they go through the owner's system calls,
//! and whether it failed; how it is told is in `story`.
//!
//! While all goes well nothing leaves the kernel: the story of the current request lies in a place of its own.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_sk_storage_get};
use trace502_ebpf::*;

use crate::head::{self, Source};
use crate::kernel::{self, Sock};
use crate::maps::{MPTCP_LISTENERS, PLACES, constant};
use crate::{emit, flow, places, sealed, secured, story, thread};

pub use crate::places::gone;

/// What we know of this socket. One that has no cookie costs one load.
#[inline(always)]
pub fn get(sk: Sock) -> Option<&'static mut Conn> {
    let cookie = sk.known_cookie();
    if cookie == 0 {
        return None;
    }
    conn_at(places::find(cookie))
}

#[inline(always)]
fn conn_at(place: u32) -> Option<&'static mut Conn> {
    // SAFETY: a value of the map. It belongs to one connection from `track` to `gone`, both of which run while its
    // socket is there, as does whoever is between.
    PLACES.get_ptr_mut(place).map(|place| unsafe { &mut (*place).conn })
}

/// Starts to track a socket that is not tracked.
#[inline(always)]
pub fn track(sk: Sock, role: u8) -> Option<&'static mut Conn> {
    let cookie = cookie(sk);
    let number = places::claim(cookie);
    let Some(place) = PLACES.get_ptr_mut(number) else {
        emit::full(Table::Connections);
        return None;
    };
    // SAFETY: a value of the map, which is nobody else's by now.
    let place = unsafe { &mut *place };
    place.sk = sk.0 as u64;
    renew(&mut place.conn, cookie, role);
    place.last = 0;
    places::publish(number, cookie);
    Some(&mut place.conn)
}

/// What was known of this connection is forgotten.
#[inline(always)]
pub fn renew(conn: &mut Conn, cookie: u64, role: u8) {
    clear(conn);
    conn.cookie = cookie;
    conn.role = role;
}

/// Nothing is known of a connection. What follows the fields is covered by its lengths, but for what is
/// looked at first.
#[inline(always)]
fn clear(conn: &mut Conn) {
    const FIELDS: usize = core::mem::offset_of!(Conn, request_head) / 8;
    const { assert!(FIELDS == 20) };
    let words = (&raw mut *conn).cast::<u64>();
    for word in 0..FIELDS {
        // SAFETY: within the fields. Volatile, or the stores become a loop over bytes in a function of its own.
        unsafe { core::ptr::write_volatile(words.add(word), 0) };
    }
    // SAFETY: both heads are longer, and aligned.
    unsafe {
        core::ptr::write_volatile((&raw mut conn.request_head).cast::<u64>(), 0);
        core::ptr::write_volatile((&raw mut conn.reply_head).cast::<u64>(), 0);
    }
}

/// What is accepted from this listener of MPTCP is a proxy's.
#[inline(always)]
pub fn mark_listener(sk: Sock) {
    mark(sk, BPF_SK_STORAGE_GET_F_CREATE.into());
}

/// Whether a socket of MPTCP was accepted from such a listener.
#[inline(always)]
pub fn is_marked(sk: Sock) -> bool {
    !mark(sk, 0).is_null()
}

#[inline(always)]
fn mark(sk: Sock, flags: u64) -> *mut u32 {
    let map = (&raw const MPTCP_LISTENERS).cast_mut().cast::<c_void>();
    // SAFETY: `sk` is the hook's own argument; the helper checks it and returns null or a value of the map.
    unsafe { bpf_sk_storage_get(map, sk.0.cast_mut().cast(), core::ptr::null_mut(), flags).cast() }
}

#[inline(always)]
pub fn cookie(sk: Sock) -> u64 {
    let known = sk.known_cookie();
    if known != 0 {
        return known;
    }
    // SAFETY: as in `mark`.
    unsafe { bpf_get_socket_cookie(sk.0.cast_mut().cast()) }
}

/// A client was accepted.
#[inline(always)]
pub fn accepted(conn: &mut Conn) {
    conn.phase = PHASE_OPEN;
    conn.last_state = kernel::TCP_ESTABLISHED;
}

/// Nothing is known yet of a new request and its answer.
#[inline(always)]
fn begin(conn: &mut Conn) {
    conn.request_len = 0;
    conn.reply_len = 0;
    conn.status = 0;
    // SAFETY: two fields. Volatile, or the two stores become a loop over sixteen bytes in a function of its own.
    unsafe {
        core::ptr::write_volatile(&raw mut conn.request_bytes, 0);
        core::ptr::write_volatile(&raw mut conn.reply_bytes, 0);
    }
}

/// Whether bytes that come after an answer began are the rest of the request that was answered: it had a body, and
/// these do not begin as a request does.
#[inline(always)]
fn goes_on(conn: &Conn, n: u64, source: Source) -> bool {
    // GET and HEAD have none, so that most requests are spared the look.
    if conn.phase != PHASE_ANSWERED || !is_http1(conn) || matches!(conn.request_head[0], b'G' | b'H') {
        return false;
    }
    !head::begins_request(conn, n, source)
}

/// A client connection read `n` bytes. Returns whether a new request began with them.
#[inline(always)]
pub fn client_read(conn: &mut Conn, n: u64, source: Source) -> bool {
    let new = conn.phase != PHASE_ASKED && !goes_on(conn, n, source);
    if new {
        conn.phase = PHASE_ASKED;
        conn.request += 1;
        conn.asked_before = conn.asked;
        conn.asked = emit::now();
        begin(conn);
        conn.flags &= !CONN_AHEAD;
        if conn.request > 1 {
            conn.flags |= CONN_REUSED;
        }
    }
    conn.request_bytes += n;
    new
}

/// An upstream connection sent `n` bytes. Returns whether a new request began with them.
#[inline(always)]
pub fn upstream_sent(conn: &mut Conn, n: u64, source: Source) -> bool {
    let new = conn.phase != PHASE_ASKED && !goes_on(conn, n, source);
    if new {
        conn.phase = PHASE_ASKED;
        conn.request += 1;
        conn.asked_before = conn.asked;
        conn.asked = emit::now();
        // What the other side said before it was asked anything is part of its first answer.
        let spoke_first = conn.request == 1 && conn.reply_len != 0;
        let (len, bytes) = (conn.reply_len, conn.reply_bytes);
        begin(conn);
        if spoke_first {
            conn.reply_len = len;
            conn.reply_bytes = bytes;
        }
        conn.errno = 0;
        conn.flags &= !(CONN_FIN_EARLY | CONN_TOLD);
        if conn.request > 1 {
            conn.flags |= CONN_REUSED;
        }
    }
    conn.request_bytes += n;
    new
}

/// Status of an answer that begins with these bytes: 0 while too short, `NO_HTTP` if it is none.
pub const NO_HTTP: u16 = u16::MAX;

#[inline(always)]
pub fn status_of(head: &[u8; HEAD], len: u16) -> u16 {
    // FastCGI: version 1, STDOUT, then "Status: 502".
    if len >= 20 && head[0] == 1 && head[1] == 6 && head[8] == b'S' && head[14] == b':' {
        return digits(head[16], head[17], head[18]);
    }
    let same =
        head[0] == b'H' && (len < 5 || (head[1] == b'T' && head[2] == b'T' && head[3] == b'P' && head[4] == b'/'));
    if !same {
        return NO_HTTP;
    }
    if len < 12 { 0 } else { digits(head[9], head[10], head[11]) }
}

#[inline(always)]
pub fn digits(a: u8, b: u8, c: u8) -> u16 {
    let (a, b, c) = (a.wrapping_sub(b'0') as u16, b.wrapping_sub(b'0') as u16, c.wrapping_sub(b'0') as u16);
    if a > 9 || b > 9 || c > 9 { NO_HTTP } else { a * 100 + b * 10 + c }
}

/// Whether a request head is one of HTTP/1: then an answer that is no HTTP is worth telling.
#[inline(always)]
pub fn is_http1(conn: &Conn) -> bool {
    let first = conn.request_head[0];
    // "PRI * HTTP/2.0" opens HTTP/2.
    conn.request_len > 3
        && first.is_ascii_uppercase()
        && !(first == b'P' && conn.request_head[1] == b'R' && conn.request_head[2] == b'I')
}

/// Whether the owner speaks HTTP/2 on this connection: it began with the preface.
#[inline(always)]
pub fn is_http2(conn: &Conn) -> bool {
    conn.request_len > 3 && conn.request_head[0] == b'P' && conn.request_head[1] == b'R' && conn.request_head[2] == b'I'
}

/// Whether the owner speaks TLS on this connection: its first bytes were a handshake record.
#[inline(always)]
pub fn is_tls(conn: &Conn) -> bool {
    conn.request_len > 2 && conn.request_head[0] == 0x16 && conn.request_head[1] == 3
}

/// Whether what a client sent first is TLS: a handshake, or where the agent came later, any record.
#[inline(always)]
pub fn looks_tls(conn: &Conn) -> bool {
    let kind = conn.request_head[0];
    conn.request_len > 2 && (kind == 0x16 || kind == 0x17) && conn.request_head[1] == 3
}

/// Whether the current attempt of an upstream connection ended without a usable answer.
#[inline(always)]
fn failed(conn: &Conn) -> bool {
    match conn.phase {
        PHASE_CONNECTING | PHASE_ASKED => true,
        // Never used: a failure only if the other side ended it.
        PHASE_OPEN => conn.fin != 0 || conn.reset != 0 || conn.errno != 0,
        // A handshake that led to no request, or an answer that broke off in its header.
        PHASE_ANSWERED if is_tls(conn) => conn.flags & CONN_APPLICATION == 0,
        PHASE_ANSWERED => conn.flags & CONN_UNIX == 0 && head::breaks_off(conn) != 0,
        _ => false,
    }
}

/// The owner ends an upstream connection, or the kernel destroys it: judge its last request once.
#[inline(never)]
pub fn end_upstream(sk: Sock, conn: &mut Conn, in_task: bool) -> i32 {
    if conn.role != ROLE_UPSTREAM {
        return 0;
    }
    if conn.flags & CONN_SECURED != 0 {
        secured::reveal(conn);
        secured::forget(conn);
    }
    if conn.role != ROLE_UPSTREAM {
        // Upgraded inside TLS.
        return flow::forget_flow(conn);
    }
    let (_, tid) = emit::current();
    let mut thread = if in_task { thread::of(tid) } else { None };
    let ended = match thread.as_mut() {
        Some(thread) => thread::ended(thread, conn),
        None => false,
    };
    // What was no answer has been told, and is a failure like others to the request that is tried again.
    let told = conn.flags & CONN_TOLD != 0;
    let frames = conn.class & CLASS_FRAMES != 0;
    let failed = failed(conn) || told && !frames && (conn.status < 100 || is_http2(conn));
    if told && !ended {
        // Its answer was the news.
    } else if failed || ended {
        let why = match (told, failed) {
            (true, _) => WHY_ANSWERED,
            (false, true) => WHY_FAILED,
            (false, false) => WHY_ASKED,
        };
        let why = if in_task { why | IN_TASK } else { why };
        story::hand_over(sk, conn, Kind::Attempt, why);
        if failed && !told && conn.flags & CONN_SEALED != 0 {
            let gave_up = conn.fin == 0 && conn.reset == 0 && conn.errno == 0;
            sealed::failed(conn.tgid, conn.tid, conn.bound, conn.bound_request, gave_up);
        }
    } else if conn.bound != 0 && in_task && !thread.as_ref().is_some_and(|thread| thread::has_answered(thread, conn)) {
        story::leave(sk, conn);
    }
    // Asked behind the thread, and so that both stay questions: joined into one number, the verifier of 6.1 would not see
    // that there is a thread.
    if let Some(thread) = thread
        && core::hint::black_box(failed && !ended)
    {
        let class = conn.class;
        let of = Waiting { client: conn.bound, request: conn.bound_request, since: 0 };
        thread::failed(thread, class, of, false);
        if class & PROC_LATE != 0 && conn.flags & CONN_CHECK == 0 {
            thread.ended = conn.cookie;
            thread.sleeps = kernel::sleeps();
        }
    }
    flow::forget_flow(conn);
    conn.role = ROLE_OPAQUE;
    0
}

/// Bytes of a head that are looked at.
#[inline(always)]
pub fn head_limit() -> u32 {
    constant!(SETTINGS.head).max(LEAST_HEAD as u32)
}
