//! What is said inside TLS, seen in the owner's own TLS library (OpenSSL and what is called like it).
//!
//! The library knows the plain text, the kernel knows the connection. They meet while the library reads from the
//! socket or writes to it: the thread is then inside a call whose first argument is the connection's `SSL`. From there
//! on the story of the connection is kept by its cookie (`secured`), and is told in the same way as one on the wire.
//! Keys are never looked at.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_attach_cookie;
use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use trace502_ebpf::*;

use crate::head::Source;
use crate::kernel::{self, Sock, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_LAST_ACK};
use crate::maps::THREADS;
use crate::probes::{go, handshake, state};
use crate::{client, conn, emit, h2, sealed, secured, story, thread, upstream};

const NO_CALL: TlsCall = TlsCall { ssl: 0, buffer: 0, len: 0, moved: 0 };

// int SSL_read(SSL *ssl, void *buf, int num)
// static int ssl_read_internal(SSL *s, void *buf, size_t num, size_t *readbytes)
// static int ssl_write_internal(SSL *s, const void *buf, size_t num, uint64_t flags, size_t *written), no flags before 3.3
// int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes)
// int SSL_write(SSL *ssl, const void *buf, int num)
// int SSL_write_ex(SSL *s, const void *buf, size_t num, size_t *written)
// int SSL_do_handshake(SSL *ssl), SSL_accept(SSL *ssl), SSL_connect(SSL *ssl)
#[uprobe]
pub fn tls_called(ctx: ProbeContext) -> i32 {
    let [ssl, buffer, len, fourth, fifth] = kernel::call_arguments(ctx.as_ptr());
    let doing = answers(ctx.as_ptr());
    let moved = if doing & TLS_FIFTH != 0 { fifth } else { fourth };
    let (_, tid) = emit::current();
    if let Some(thread) = thread::of(tid) {
        if doing & TLS_SHAKES != 0 && thread.call.ssl == ssl && thread.doing & TLS_SHAKES == 0 {
            // What reads or writes makes the handshake first, and goes on behind it (BoringSSL).
            return 0;
        }
        thread.call = TlsCall { ssl, buffer, len, moved };
        thread.doing = doing;
        thread.verdict = 0;
    }
    0
}

// The return of SSL_do_handshake and its kin.
#[uretprobe]
pub fn tls_shook(ctx: RetProbeContext) -> i32 {
    let (tgid, tid) = emit::current();
    let Some(thread) = THREADS.get_ptr_mut(tid) else { return 0 };
    // SAFETY: a map value; only this thread changes it.
    let thread = unsafe { &mut *thread };
    let ssl = thread.call.ssl;
    if thread.doing & TLS_SHAKES != 0 {
        thread.call = NO_CALL;
    }
    if kernel::call_result(ctx.as_ptr()) == 1 {
        handshake::done(tgid, ssl);
    }
    0
}

// The return of SSL_read and SSL_read_ex.
#[uretprobe]
pub fn tls_read(ctx: RetProbeContext) -> i32 {
    let (tgid, tid) = emit::current();
    let by_go = answers(ctx.as_ptr()) & TLS_GO != 0;
    let Some((call, n)) = (if by_go { go::read(ctx.as_ptr()) } else { moved(&ctx, tid) }) else { return 0 };
    let Some(conn) = secured::of(tgid, call.ssl) else { return 0 };
    if n == 0 {
        // The end that is announced comes before that of the connection. What will be read later says -1.
        let announced = kernel::call_result(ctx.as_ptr()) == 0 && answers(ctx.as_ptr()) & TLS_VAGUE == 0;
        match conn.role {
            ROLE_CLIENT if announced => {
                state::left(Sock::NONE, conn);
            }
            ROLE_UPSTREAM if by_go => go::unread(ctx.as_ptr(), tgid, conn, &call),
            ROLE_UPSTREAM if announced => secured::ended(conn),
            _ => {}
        }
        return 0;
    }
    if conn.role == ROLE_UPSTREAM {
        upstream::received(Sock::NONE, conn, n, Source::At(call.buffer));
        return 0;
    }
    let before = conn.role;
    if before == ROLE_CLIENT {
        conn.tgid = tgid;
        conn.tid = tid;
        let new = client::received(conn, n, Source::At(call.buffer));
        if new {
            conn.flags &= !CONN_ANSWERING;
        }
        if new && conn.request == 1 && h2::is_preface(conn) {
            h2::begin(conn);
        } else {
            client::asked(conn, tid, new);
        }
    }
    if before == ROLE_SEALED {
        sealed::read(conn, n, tid);
    } else if conn.role == ROLE_H2 {
        h2::read(conn, call.buffer, n);
    }
    0
}

// The return of SSL_write and SSL_write_ex: what it did not take will be written again.
#[uretprobe]
pub fn tls_wrote(ctx: RetProbeContext) -> i32 {
    let (tgid, tid) = emit::current();
    let by_go = answers(ctx.as_ptr()) & TLS_GO != 0;
    let Some((call, n)) = (if by_go { go::writes(ctx.as_ptr()) } else { moved(&ctx, tid) }) else { return 0 };
    let Some(conn) = secured::of(tgid, call.ssl) else { return 0 };
    if n == 0 {
        return 0;
    }
    if conn.role == ROLE_H2 {
        h2::wrote(conn, call.buffer, n);
        return 0;
    }
    if conn.role == ROLE_UPSTREAM {
        upstream::sent(Sock::NONE, conn, n, Source::At(call.buffer));
        return 0;
    }
    if conn.role == ROLE_SEALED {
        sealed::wrote(Sock::NONE, conn, n);
    }
    if conn.role != ROLE_CLIENT {
        return 0;
    }
    let why = client::sent(conn, n, Source::At(call.buffer));
    // What went out was no answer yet, or is one now.
    conn.flags &= !CONN_ANSWERING;
    if why != 0 {
        story::client_error(Sock::NONE, conn, why);
        if why == WHY_GARBLED {
            conn.role = ROLE_OPAQUE;
        }
    }
    0
}

// int SSL_shutdown(SSL *s)
#[uprobe]
pub fn tls_parts(ctx: ProbeContext) -> i32 {
    let [ssl, ..] = kernel::call_arguments(ctx.as_ptr());
    if let Some(conn) = secured::of(emit::current().0, ssl) {
        secured::parts(conn);
    }
    0
}

/// The call that this thread comes back from.
#[inline(always)]
fn returned(tid: u32) -> Option<TlsCall> {
    let thread = THREADS.get_ptr_mut(tid)?;
    // SAFETY: a map value; only this thread changes it.
    let call = core::mem::replace(unsafe { &mut (*thread).call }, NO_CALL);
    (call.ssl != 0).then_some(call)
}

/// How the call answers: `TLS_*`, noted where it is attached.
#[inline(always)]
pub fn answers(ctx: *mut c_void) -> u64 {
    // SAFETY: the context of this very program.
    unsafe { bpf_get_attach_cookie(ctx) }
}

/// The call that this thread comes back from, and how many bytes it moved.
#[inline(always)]
fn moved(ctx: &RetProbeContext, tid: u32) -> Option<(TlsCall, u64)> {
    let call = returned(tid)?;
    let result = kernel::call_result(ctx.as_ptr());
    if result <= 0 {
        return Some((call, 0));
    }
    let by_success = answers(ctx.as_ptr()) & TLS_SUCCESS != 0;
    let n = if by_success { kernel::read_user(call.moved).unwrap_or(0) } else { result as u64 };
    Some((call, n))
}

/// A client began with TLS: nothing on the wire is its request.
#[inline(always)]
pub fn begin(sk: Sock, conn: &mut Conn) -> i32 {
    conn.role = ROLE_SECURED;
    conn.phase = PHASE_OPEN;
    conn.request = 0;
    conn.request_len = 0;
    secured::accepted(sk, conn)
}

/// The connection underneath changes its state.
#[inline(never)]
pub fn state(sk: Sock, conn: &mut Conn, old: u8, new: u8) -> i32 {
    if conn.bound != 0 {
        state::peer(sk, conn, old, new);
    }
    conn.last_state = old;
    match new {
        TCP_CLOSE_WAIT => {
            conn.fin = emit::now();
            left(sk, conn);
        }
        TCP_CLOSE if old == TCP_ESTABLISHED && !sk.ended_by_owner() => {
            left(sk, conn);
        }
        TCP_FIN_WAIT1 | TCP_CLOSE if old == TCP_ESTABLISHED && conn.reset == 0 => {
            if let Some(inside) = secured::inside(conn)
                && inside.phase == PHASE_ASKED
                && inside.role == ROLE_CLIENT
                && conn::is_http1(inside)
            {
                inside.flags |= CONN_CLOSED_FIRST;
                story::client_error(sk, inside, WHY_CLOSED);
                inside.role = ROLE_OPAQUE;
            }
        }
        _ => {}
    }
    match new {
        // The owner is done with it, and may have freed what the library knows: a connection to an upstream may be the
        // next to get that address, while this one still waits for its last bytes to be taken.
        TCP_FIN_WAIT1 | TCP_LAST_ACK => secured::unlink(conn),
        TCP_CLOSE => {
            secured::forget(conn);
        }
        _ => {}
    }
    0
}

/// The client is gone, whatever it still waited for.
#[inline(always)]
pub fn left(sk: Sock, conn: &Conn) -> i32 {
    match secured::inside(conn) {
        Some(inside) if inside.role == ROLE_CLIENT && inside.flags & CONN_ANSWERING == 0 => state::left(sk, inside),
        Some(inside) if inside.role == ROLE_H2 => h2::left(inside.cookie, STREAM),
        _ => 0,
    }
}
