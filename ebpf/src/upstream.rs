//! What an upstream is asked and what it answers, on the wire or inside TLS.

use trace502_ebpf::*;

use crate::head::{self, Source};
use crate::kernel::Sock;
use crate::maps::{PROCS, SAID};
use crate::{conn, emit, fastcgi, flow, h2, sealed, story, thread};

/// The largest TLS alert, encrypted; no request fits into it.
const ALERT: u64 = 31;

/// The owner sent `n` bytes to it. Inside TLS no socket is at hand.
#[inline(always)]
pub fn sent(sk: Sock, conn: &mut Conn, n: u64, source: Source) {
    if told_inside(sk, conn) {
        conn.request_bytes += n;
        return;
    }
    let (tgid, tid) = emit::current();
    let tls = conn::is_tls(conn);
    let bind = if tls {
        tls_sent(conn, n, source)
    } else if conn.class & CLASS_FRAMES != 0 {
        // Bound by the stream. Acknowledgements and windows ask for nothing.
        h2::asked::sent(conn, n, source);
        conn.request_bytes += n;
        false
    } else if conn.phase == PHASE_ANSWERED && conn::is_http2(conn) && !begins_stream(conn, n, source) {
        conn.request_bytes += n;
        return;
    } else if conn::upstream_sent(conn, n, source) {
        conn.tgid = tgid;
        conn.tid = tid;
        // A connection bound when it was made keeps that for its first request.
        conn.request > 1 || conn.bound == 0
    } else {
        continued(sk, conn, n);
        false
    };
    if bind {
        thread::bind(conn, tid);
    }
    if !tls && conn.request_len < HEAD as u16 && conn.phase == PHASE_ASKED {
        head::append_request(conn, n, source);
        if conn.flags & CONN_UNIX != 0 && conn.bound != 0 {
            story::keep(sk, conn);
        }
        // There is no hook at the end of a unix connection: what is kept of its frames would stay.
        if conn.request == 1 && conn.flags & CONN_UNIX == 0 && conn.request_bytes == n && conn::is_http2(conn) {
            h2::asked::sent(conn, n, source);
        }
    }
}

/// Whether these are bytes on the wire of a connection whose story its owner's TLS library tells.
#[inline(always)]
fn told_inside(sk: Sock, conn: &Conn) -> bool {
    conn.flags & CONN_SECURED != 0 && !sk.0.is_null()
}

/// More of a handshake came. OpenSSL reads the head of a record by itself: which alert it is comes with the next call.
#[inline(always)]
fn handshake(conn: &mut Conn, n: u64, source: Source) {
    head::append_reply(conn, n, source);
}

/// An upload beyond this size does not fit into what a receiver holds for an application that does not read.
const UPLOAD: u64 = 1 << 16;

/// More of a request was sent. If its proxy writes an error first and closes later, the story of an upload is told
/// with that error: kept once, and read again then.
#[inline(always)]
fn continued(sk: Sock, conn: &Conn, n: u64) {
    let crossed = conn.request_bytes >= UPLOAD && conn.request_bytes - n < UPLOAD;
    if crossed && conn.class & PROC_LATE != 0 && conn.bound != 0 {
        story::keep(sk, conn);
    }
}

/// Whether these frames, which nobody follows, begin with HEADERS. Acknowledgements and windows ask for nothing.
#[inline(always)]
fn begins_stream(conn: &mut Conn, n: u64, source: Source) -> bool {
    let (what, at) = source.numbers();
    begins_with_headers(conn, what, n, at) != 0
}

/// Global to the verifier, since few come here.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn begins_with_headers(conn: *mut Conn, what: u32, n: u64, at: u64) -> i32 {
    const HEADERS: u8 = 1;
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_mut() }) else { return 0 };
    i32::from(head::first_bytes_or_blind(conn, n, Source::of(what, at)).is_some_and(|first| first[3] == HEADERS))
}

/// Record type of TLS application data.
const APPLICATION_DATA: u8 = 0x17;

/// Of TLS only the rhythm is seen on the wire: application data sent after an answer begins a request. The heads stay
/// those of the handshake, which tell why one failed. Returns whether the request is one to bind.
#[inline(always)]
fn tls_sent(conn: &mut Conn, n: u64, source: Source) -> bool {
    conn.request_bytes += n;
    if conn.phase != PHASE_ANSWERED || n <= ALERT {
        return false;
    }
    if head::first_bytes_or_blind(conn, n, source).is_none_or(|first| first[0] != APPLICATION_DATA) {
        return false;
    }
    conn.phase = PHASE_ASKED;
    conn.asked_before = conn.asked;
    conn.asked = emit::now();
    conn.request_bytes = n;
    conn.reply_bytes = 0;
    conn.flags &= !(CONN_FIN_EARLY | CONN_TOLD);
    // The first request is the one that the connection was made for.
    let later = conn.flags & CONN_APPLICATION != 0;
    if later {
        conn.request += 1;
        conn.flags |= CONN_REUSED;
    }
    conn.flags |= CONN_APPLICATION;
    later
}

/// The owner received `n` bytes of it.
#[inline(always)]
pub fn received(sk: Sock, conn: &mut Conn, n: u64, source: Source) {
    if told_inside(sk, conn) {
        conn.reply_bytes += n;
        conn.phase = PHASE_ANSWERED;
        if conn.reply_len < HEAD as u16 {
            handshake(conn, n, source);
        }
        return;
    }
    let first = conn.phase != PHASE_ANSWERED;
    let waited = waits_for_answer(conn);
    answer(sk, conn, n, source);
    if conn.class & CLASS_FRAMES != 0 {
        streams_failed(sk, conn, n, source);
    }
    if waited && conn.phase == PHASE_ANSWERED {
        match conn.flags & CONN_TOLD {
            0 => sealed::answered(conn),
            _ => sealed::failed(conn.tgid, conn.tid, conn.bound, conn.bound_request, false),
        }
    }
    // There is no hook at the end of a unix connection: what it came to so far is kept.
    if first && conn.flags & (CONN_UNIX | CONN_TOLD) == CONN_UNIX && conn.bound != 0 {
        story::keep(sk, conn);
    }
}

/// Streams of this connection that the upstream answered with an error of its own.
#[inline(always)]
fn streams_failed(sk: Sock, conn: &mut Conn, n: u64, source: Source) {
    let failed = h2::asked::received(conn, n, source);
    if failed == 0 {
        return;
    }
    learnt();
    let mut status = 0;
    for nth in 0..SAID as u32 {
        if nth >= failed {
            break;
        }
        status |= h2::asked::stream_failed(sk.address(), conn, nth);
    }
    // That of its newest request, which is one of them at most.
    if status != 0 {
        conn.flags |= CONN_TOLD;
        conn.status = status as u16;
    }
}

#[inline(always)]
fn answer(sk: Sock, conn: &mut Conn, n: u64, source: Source) {
    conn.reply_bytes += n;
    if conn::is_tls(conn) && conn.reply_len != 0 {
        conn.phase = PHASE_ANSWERED;
        if conn.reply_len < HEAD as u16 && conn.flags & CONN_APPLICATION == 0 {
            handshake(conn, n, source);
        }
        return;
    }
    // What comes in small pieces is put together as far as a head is kept.
    let known = conn.status != 0;
    let full = conn.reply_len >= HEAD as u16 || known && conn.reply_bytes - n >= HEAD as u64;
    if conn.phase == PHASE_ANSWERED && full && (known || !fastcgi::begins_with_errors(conn)) {
        return;
    }
    head::append_reply(conn, n, source);
    if conn.phase == PHASE_ANSWERED && known {
        return;
    }
    if conn.phase != PHASE_ANSWERED && conn.flags & CONN_SECURED == 0 {
        conn.slot = 0;
    }
    let mut status = match fastcgi::begins_with_errors(conn) {
        // Nobody speaks it inside TLS.
        true if !sk.0.is_null() => fastcgi::status_behind_errors(conn, n) as u16,
        true => conn::NO_HTTP,
        false if fastcgi::may_become(conn) => 0,
        false => conn::status_of(&conn.reply_head, conn.reply_len),
    };
    if (100..200).contains(&status) && status != 101 {
        // No answer yet, unless one came in the same piece.
        conn.reply_len = head::after_interim(&mut conn.reply_head, conn.reply_len);
        conn.reply_bytes = conn.reply_len.into();
        if conn.reply_len == 0 {
            return;
        }
        status = conn::status_of(&conn.reply_head, conn.reply_len);
    }
    conn.phase = PHASE_ANSWERED;
    let failed = match status {
        0 => false,
        conn::NO_HTTP => {
            // Known not to be HTTP: look no further. 1 is no status that anybody sends.
            conn.status = 1;
            let told = conn::is_http1(conn) && conn.flags & CONN_BLIND == 0;
            if told {
                garbled(conn);
            }
            told
        }
        101 => {
            flow::forget_flow(conn);
            conn.role = ROLE_OPAQUE;
            false
        }
        _ => {
            conn.status = status;
            // Who speaks HTTP/2 begins with a frame.
            matches!(status, 502..=504) || conn::is_http2(conn)
        }
    };
    if failed {
        learnt();
        // The answer itself is the failure: told now, since the connection may go on.
        story::hand_over(sk, conn, Kind::Attempt, WHY_ANSWERED | IN_TASK);
        conn.flags |= CONN_TOLD;
    }
}

/// Whether a client whose bytes cannot be read waits for what this connection will bring.
#[inline(always)]
fn waits_for_answer(conn: &Conn) -> bool {
    // What a handshake brings is no answer.
    conn.flags & CONN_SEALED != 0
        && conn.phase == PHASE_ASKED
        && (!conn::is_tls(conn) || conn.flags & CONN_APPLICATION != 0)
}

/// An upstream answered what is no HTTP. Its client may get it as if it were: Apache wraps it.
#[inline(always)]
fn garbled(conn: &Conn) {
    let (tgid, tid) = emit::current();
    if class_of(tgid) & PROC_LOOSE == 0
        && let Some(thread) = thread::of(tid)
    {
        thread.garbled = conn.bound;
    }
}

/// The running thread learnt that an attempt failed: what it closes next is that one.
#[inline(always)]
pub fn learnt() {
    let (_, tid) = emit::current();
    if let Some(thread) = thread::of(tid) {
        thread::acted(thread);
    }
}

/// What the process is to us: `PROC_*`.
#[inline(always)]
pub fn class_of(tgid: u32) -> u32 {
    // SAFETY: a plain number.
    unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0)
}
