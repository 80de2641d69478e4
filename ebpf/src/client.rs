//! What a client asked and what it was answered, on the wire or inside TLS.

use trace502_ebpf::*;

use crate::head::{self, Source};
use crate::{conn, sealed, thread};

/// An answer to a pipelined request is looked for only in writes up to this size: larger ones are bodies.
const HEAD_WRITE: u64 = 4096;

/// The owner read `n` bytes of a client. Returns whether a new request began with them.
#[inline(always)]
pub fn received(conn: &mut Conn, n: u64, source: Source) -> bool {
    let new = conn::client_read(conn, n, source);
    // The rest of a request that is answered is not looked at.
    if conn.request_len < HEAD as u16 && conn.phase == PHASE_ASKED {
        head::append_request(conn, n, source);
    }
    new
}

/// What was received is the thread's to serve.
#[inline(always)]
pub fn asked(conn: &mut Conn, tid: u32, new: bool) {
    let Some(thread) = thread::of(tid) else { return };
    if new {
        if !conn::is_http1(conn) && conn.request_len > 3 {
            // A protocol of its own is not ours to read; of TLS and HTTP/2 the rhythm tells something.
            conn.role = ROLE_OPAQUE;
            if conn::looks_tls(conn) || conn::is_http2(conn) {
                sealed::begin(conn);
                thread.sealed = 1;
            }
        }
        thread::asked(thread, conn);
    } else if conn.phase == PHASE_ANSWERED {
        thread::heard(thread, conn.cookie);
    } else {
        thread::continued(thread, conn);
    }
}

/// The owner wrote `n` bytes to a client. Returns why that is news, 0 if it is not.
#[inline(always)]
pub fn sent(conn: &mut Conn, n: u64, source: Source) -> u16 {
    conn.reply_bytes += n;
    match conn.phase {
        PHASE_ASKED => {}
        PHASE_ANSWERED if conn.reply_len < 12 => {}
        PHASE_ANSWERED if n < HEAD_WRITE && next_answer(conn, n, source) => {
            conn.flags |= CONN_AHEAD;
            conn.request += 1;
            conn.reply_len = 0;
            conn.reply_bytes = n;
        }
        _ => return 0,
    }
    let mut status = match well(conn, n, source) {
        // Nobody will ask for more of it.
        status @ 1.. if conn.reply_len == 0 => {
            conn.reply_len = head::PEEK as u16;
            status
        }
        _ => {
            head::append_reply(conn, n, source);
            conn::status_of(&conn.reply_head, conn.reply_len)
        }
    };
    if (100..200).contains(&status) && status != 101 {
        conn.reply_len = head::after_interim(&mut conn.reply_head, conn.reply_len);
        conn.reply_bytes = conn.reply_len.into();
        if conn.reply_len == 0 {
            return 0;
        }
        status = conn::status_of(&conn.reply_head, conn.reply_len);
    }
    let mut why = answer(conn, status);
    if conn.phase == PHASE_ASKED {
        conn.phase = PHASE_ANSWERED;
        // It was read by the thread that waits for it, whoever writes it.
        if let Some(thread) = thread::of(conn.tid) {
            let garbled = core::mem::replace(&mut thread.garbled, 0) == conn.cookie;
            // What is no HTTP was wrapped into an answer that says that all is well.
            if why == 0 && garbled && (200..300).contains(&status) {
                why = WHY_GARBLED;
            }
            thread::answered(thread, conn, why != 0);
        }
    }
    why
}

/// The status of an answer to a client is known: why it is news, 0 if it is not.
#[inline(always)]
fn answer(conn: &mut Conn, status: u16) -> u16 {
    match status {
        0 => {}
        conn::NO_HTTP => {
            if conn.reply_len >= 12 {
                conn.status = 1;
            }
            if conn::is_http1(conn) && conn.flags & CONN_BLIND == 0 {
                return WHY_GARBLED;
            }
            conn.role = ROLE_OPAQUE;
        }
        // Upgraded, or a tunnel: what follows is not HTTP.
        101 => conn.role = ROLE_OPAQUE,
        200 if conn.request_head[0] == b'C' && conn.request_head[1] == b'O' && conn.request_head[2] == b'N' => {
            conn.role = ROLE_OPAQUE;
        }
        500 | 502 | 503 | 504 => {
            conn.status = status;
            return WHY_STATUS;
        }
        _ => conn.status = status,
    }
    0
}

/// A small write after an answer began may be the next answer of a pipeline.
#[inline(always)]
fn next_answer(conn: &Conn, n: u64, source: Source) -> bool {
    // A body that cannot be read says nothing about the connection.
    let peek = head::first_bytes(conn, n, source);
    peek.is_some_and(|peek| peek[0] == b'H' && peek[4] == b'/' && peek[5] == b'1')
}

/// The status of an answer that is well, 0 for all others: a look at a few bytes instead of a copy of the head.
#[inline(always)]
fn well(conn: &Conn, n: u64, source: Source) -> u16 {
    // What cannot be read is counted by whoever tries to read all of it.
    let Some(peek) = head::first_bytes(conn, n, source) else { return 0 };
    if peek[0] != b'H' || peek[4] != b'/' {
        return 0;
    }
    match conn::digits(peek[9], peek[10], peek[11]) {
        status @ 200..500 => status,
        _ => 0,
    }
}
