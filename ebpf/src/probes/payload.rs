//! What the owner of a socket sent and learnt.
//!
//! `sock_send_length` and `sock_recv_length` (6.3) run in the owner's context for every socket family, after the
//! call: `(sk, ret, flags)`. Older kernels offer the same through fexit on the families' sendmsg and recvmsg.
//! A socket that is not tracked costs one look-up.

use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};
use trace502_ebpf::*;

use crate::head::{self, Source};
use crate::kernel::{self, AF_UNIX, SHUTDOWN_RECEIVE, Sock, Way};
use crate::maps::PROCS;
use crate::probes::{state, tls};
use crate::{client, conn, emit, fastcgi, flow, h2, peer, sealed, story, thread};

const EAGAIN: i32 = -11;
const EINTR: i32 = -4;
const EINPROGRESS: i32 = -115;
const MSG_PEEK: i32 = 2;
/// What is received goes nowhere: HAProxy empties what it closes.
const MSG_TRUNC: i32 = 0x20;
const SOCK_STREAM: u16 = 1;
const IPPROTO_UDP: u16 = 17;
const DNS_PORT: u16 = 53;
/// The largest TLS alert, encrypted; no request fits into it.
const ALERT: u64 = 31;

// void sock_send_length(struct sock *sk, int ret, int flags)
#[btf_tracepoint(function = "sock_send_length")]
pub fn sent(ctx: BtfTracePointContext) -> i32 {
    on_send(Sock(ctx.arg(0)), ctx.arg(1))
}

// void sock_recv_length(struct sock *sk, int ret, int flags)
#[btf_tracepoint(function = "sock_recv_length")]
pub fn received(ctx: BtfTracePointContext) -> i32 {
    on_receive(Sock(ctx.arg(0)), ctx.arg(1), ctx.arg(2))
}

macro_rules! sendmsg {
    ($name:ident, $function:literal) => {
        // int FUNCTION(struct socket *sock, struct msghdr *msg, size_t size)
        #[fexit(function = $function)]
        pub fn $name(ctx: FExitContext) -> i32 {
            on_send(kernel::sock_of(ctx.arg(0)), ctx.arg(3))
        }
    };
}

macro_rules! sendpage {
    ($name:ident, $function:literal) => {
        // int FUNCTION(struct socket *sock, struct page *page, int offset, size_t size, int flags)
        // Until 6.5: the way of sendfile() and splice(), whose bytes we cannot read, but which are an answer.
        #[fexit(function = $function)]
        pub fn $name(ctx: FExitContext) -> i32 {
            on_send(kernel::sock_of(ctx.arg(0)), ctx.arg(5))
        }
    };
}

macro_rules! recvmsg {
    ($name:ident, $function:literal) => {
        // int FUNCTION(struct socket *sock, struct msghdr *msg, size_t size, int flags)
        #[fexit(function = $function)]
        pub fn $name(ctx: FExitContext) -> i32 {
            on_receive(kernel::sock_of(ctx.arg(0)), ctx.arg(4), ctx.arg(3))
        }
    };
}

sendmsg!(inet_sent, "inet_sendmsg");
sendmsg!(inet6_sent, "inet6_sendmsg");
sendmsg!(unix_sent, "unix_stream_sendmsg");
sendpage!(inet_paged, "inet_sendpage");
sendpage!(unix_paged, "unix_stream_sendpage");
recvmsg!(inet_received, "inet_recvmsg");
recvmsg!(inet6_received, "inet6_recvmsg");
recvmsg!(unix_received, "unix_stream_recvmsg");

#[inline(always)]
fn on_send(sk: Sock, ret: i32) -> i32 {
    let Some(conn) = conn::get(sk).or_else(|| adopt(sk, ret, false)) else { return 0 };
    match conn.role {
        ROLE_UPSTREAM if ret > 0 => upstream_sent(sk, conn, ret as u64),
        ROLE_UPSTREAM if ret < 0 => upstream_error(sk, conn, ret),
        ROLE_CLIENT if ret > 0 => client_sent(sk, conn, ret as u64),
        ROLE_SEALED if ret > 0 => {
            sealed::wrote(sk, conn, ret as u64);
            0
        }
        ROLE_H2 if ret > 0 => h2::plain(sk, conn, ret as u64, true),
        ROLE_RESOLVER if ret > 0 => dns(sk, ret, false, Some(&conn.tuple)),
        _ => 0,
    }
}

#[inline(always)]
fn on_receive(sk: Sock, ret: i32, flags: i32) -> i32 {
    if flags & (MSG_PEEK | MSG_TRUNC) != 0 {
        return 0;
    }
    let Some(conn) = conn::get(sk).or_else(|| adopt(sk, ret, true)) else { return 0 };
    match conn.role {
        ROLE_UPSTREAM if ret > 0 => {
            let first = conn.phase != PHASE_ANSWERED;
            let waited = waits_for_answer(conn);
            upstream_received(sk, conn, ret as u64);
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
            0
        }
        ROLE_UPSTREAM => upstream_error(sk, conn, ret),
        ROLE_CLIENT if ret > 0 => client_received(sk, conn, ret as u64),
        ROLE_SEALED if ret > 0 => {
            sealed::read(conn, ret as u64, emit::current().1);
            0
        }
        ROLE_SECURED if ret > 0 => tls::link(sk, conn),
        ROLE_H2 if ret > 0 => h2::plain(sk, conn, ret as u64, false),
        ROLE_PEER if conn.tgid == 0 => state::read_by(sk, conn, emit::current().0),
        ROLE_RESOLVER if ret > 0 => dns(sk, ret, true, Some(&conn.tuple)),
        _ => 0,
    }
}

#[inline(always)]
fn client_received(sk: Sock, conn: &mut Conn, n: u64) -> i32 {
    let (tgid, tid) = emit::current();
    conn.tgid = tgid;
    conn.tid = tid;
    let class = if conn.request == 0 { class_of(tgid) } else { 0 };
    // Somebody else who listens on the port of a proxy, in another namespace or for another address.
    if conn.request == 0 && class & PROC_PROXY == 0 && conn.flags & CONN_OLD == 0 {
        if conn.bound == 0 {
            return conn::gone(conn.cookie);
        }
        conn.role = ROLE_PEER;
        return state::read_by(sk, conn, tgid);
    }
    let new = client::received(conn, n, Source::Call(sk, Way::In));
    if new && conn.request == 1 {
        if conn.bound != 0 {
            state::read_by(sk, conn, tgid);
        }
        if conn::looks_tls(conn) && class & PROC_TLS != 0 {
            return tls::begin(sk, conn);
        }
        if h2::is_preface(conn) {
            h2::begin_plain(sk, conn);
            return h2::plain(sk, conn, n, false);
        }
    }
    client::asked(conn, tid, new);
    0
}

#[inline(always)]
fn client_sent(sk: Sock, conn: &mut Conn, n: u64) -> i32 {
    let why = client::sent(conn, n, Source::Call(sk, Way::Out));
    // The one place where an error leaves: the verifier walks through all of it for each.
    if why != 0 {
        story::client_error(sk, conn, why);
        // What was wrapped leaves the connection as it was.
        if why == WHY_GARBLED && conn.status < 100 {
            conn.role = ROLE_OPAQUE;
        }
    }
    0
}

#[inline(always)]
fn upstream_sent(sk: Sock, conn: &mut Conn, n: u64) -> i32 {
    let (tgid, tid) = emit::current();
    let tls = conn::is_tls(conn);
    let source = Source::Call(sk, Way::Out);
    let bind = if tls {
        tls_sent(conn, n, source)
    } else if conn.phase == PHASE_ANSWERED && conn::is_http2(conn) && !begins_stream(conn, n, source) {
        conn.request_bytes += n;
        return 0;
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
        if let Some(thread) = thread::of(tid) {
            thread.garbled = 0;
            thread::bind(thread, conn.class, conn);
        }
    }
    if !tls && conn.request_len < HEAD as u16 && conn.phase == PHASE_ASKED {
        head::append(&mut conn.request_head, &mut conn.request_len, n, source, &mut conn.flags);
        if conn.flags & CONN_UNIX != 0 && conn.bound != 0 {
            story::keep(sk, conn);
        }
    }
    0
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

/// Whether these frames begin with HEADERS. Acknowledgements and windows ask for nothing.
#[inline(always)]
fn begins_stream(conn: &mut Conn, n: u64, source: Source) -> bool {
    const HEADERS: u8 = 1;
    head::first_bytes(n, source, &mut conn.flags).is_some_and(|first| first[3] == HEADERS)
}

/// Record type of TLS application data.
const APPLICATION_DATA: u8 = 0x17;

/// Inside TLS only the rhythm is seen: application data sent after an answer begins a request. The heads stay those
/// of the handshake, which tell why one failed. Returns whether the request is one to bind.
#[inline(always)]
fn tls_sent(conn: &mut Conn, n: u64, source: Source) -> bool {
    conn.request_bytes += n;
    if conn.phase != PHASE_ANSWERED || n <= ALERT {
        return false;
    }
    if head::first_bytes(n, source, &mut conn.flags).is_none_or(|first| first[0] != APPLICATION_DATA) {
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

#[inline(always)]
fn upstream_received(sk: Sock, conn: &mut Conn, n: u64) -> i32 {
    conn.reply_bytes += n;
    if conn::is_tls(conn) && conn.reply_len != 0 {
        conn.phase = PHASE_ANSWERED;
        return 0;
    }
    // What comes in small pieces is put together as far as a head is kept.
    let known = conn.status != 0;
    let full = conn.reply_len >= HEAD as u16 || known && conn.reply_bytes - n >= HEAD as u64;
    if conn.phase == PHASE_ANSWERED && full && (known || !fastcgi::begins_with_errors(conn)) {
        return 0;
    }
    let source = Source::Call(sk, Way::In);
    head::append(&mut conn.reply_head, &mut conn.reply_len, n, source, &mut conn.flags);
    if conn.phase == PHASE_ANSWERED && known {
        return 0;
    }
    let mut status = match fastcgi::begins_with_errors(conn) {
        true => fastcgi::status_behind_errors(sk, n) as u16,
        false => conn::status_of(&conn.reply_head, conn.reply_len),
    };
    if (100..200).contains(&status) && status != 101 {
        // No answer yet, unless one came in the same piece.
        conn.reply_len = head::after_interim(&mut conn.reply_head, conn.reply_len);
        conn.reply_bytes = conn.reply_len.into();
        if conn.reply_len == 0 {
            return 0;
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
            flow::forget(conn);
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
    0
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

/// The owner learnt the end of a connection, or an error.
#[inline(always)]
fn upstream_error(sk: Sock, conn: &mut Conn, ret: i32) -> i32 {
    // A send that opens the connection by itself (TCP Fast Open) is on its way.
    if ret == EAGAIN || ret == EINTR || ret == EINPROGRESS {
        return 0;
    }
    if ret == 0 && sk.shutdown() & SHUTDOWN_RECEIVE == 0 {
        // Nothing is what was asked for.
        return 0;
    }
    learnt();
    if ret < 0 {
        conn.errno = ret;
    } else if conn.fin == 0 && conn.reset == 0 {
        conn.fin = emit::now();
        if conn.phase == PHASE_ASKED {
            conn.flags |= CONN_FIN_EARLY;
        }
    }
    // Unix sockets have no other hook for their end.
    if conn.flags & CONN_UNIX != 0 && conn.phase == PHASE_ASKED {
        conn::end_upstream(sk, conn, true);
    }
    0
}

/// The running thread learnt that an attempt failed: what it closes next is that one.
#[inline(always)]
fn learnt() {
    let (_, tid) = emit::current();
    if let Some(thread) = thread::of(tid) {
        thread::acted(thread);
    }
}

#[inline(always)]
fn class_of(tgid: u32) -> u32 {
    // SAFETY: a plain number.
    unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0)
}

/// A socket that we do not know: leave, unless a proxy uses it for a unix connection or for DNS.
#[inline(always)]
fn adopt(sk: Sock, ret: i32, receiving: bool) -> Option<&'static mut Conn> {
    if ret <= 0 {
        return None;
    }
    if sk.family() == AF_UNIX {
        if sk.kind() == SOCK_STREAM {
            return adopt_unix(sk, receiving);
        }
    } else if sk.protocol() == IPPROTO_UDP {
        match sk.remote_port() {
            DNS_PORT if class_of(emit::current().0) & PROC_PROXY != 0 => {
                dns(sk, ret, receiving, None);
            }
            0 if !receiving => return adopt_resolver(sk),
            _ => {}
        }
    }
    None
}

/// A UDP socket that is not connected sends: its first datagram says what it is for.
#[inline(always)]
fn adopt_resolver(sk: Sock) -> Option<&'static mut Conn> {
    if class_of(emit::current().0) & PROC_PROXY == 0 {
        return None;
    }
    let (addr, port) = kernel::destination(sk)?;
    let conn = conn::track(sk, if port == DNS_PORT { ROLE_RESOLVER } else { ROLE_OPAQUE })?;
    conn.tuple.remote = addr;
    conn.tuple.remote_port = port;
    Some(conn)
}

#[inline(always)]
fn adopt_unix(sk: Sock, receiving: bool) -> Option<&'static mut Conn> {
    let (tgid, _) = emit::current();
    if receiving {
        peer::unix_read_by(sk, tgid);
    }
    let class = class_of(tgid);
    if class & PROC_PROXY == 0 {
        return None;
    }
    let conn = conn::track(sk, ROLE_OPAQUE)?;
    conn.class = class;
    conn.flags |= CONN_UNIX;
    conn.phase = PHASE_OPEN;
    let at = sk.0 as u64;
    let peer = kernel::unix_peer(at);
    if kernel::unix_is_bound(at) {
        // Accepted sockets carry their listener's address.
        conn.role = ROLE_CLIENT;
    } else if peer != 0 && kernel::unix_is_bound(peer) && !receiving {
        conn.role = ROLE_UPSTREAM;
        peer::unix_dialled(sk, peer, conn.cookie);
    }
    Some(conn)
}

#[inline(never)]
fn dns(sk: Sock, ret: i32, receiving: bool, server: Option<&Tuple>) -> i32 {
    emit::record::<DnsRecord>(Kind::Dns, |record| {
        // SAFETY: reserved room of that size; the message is bounded below.
        let record = unsafe { &mut *record };
        record.header = emit::header(Kind::Dns, IN_TASK, size_of::<DnsRecord>());
        sk.tuple(&mut record.tuple);
        if let Some(server) = server {
            record.tuple.remote = server.remote;
            record.tuple.remote_port = server.remote_port;
        }
        record.received = receiving as u32;
        record.total = ret as u32;
        record._pad = 0;
        let want = (ret as u64).min(DNS as u64) as u32;
        record.kept = match head::buffer(sk, if receiving { Way::In } else { Way::Out }, ret as u64) {
            Some((at, _)) if kernel::copy_user(record.message.as_mut_ptr(), want.min(DNS as u32), at) == 0 => want,
            _ => 0,
        };
    });
    0
}
