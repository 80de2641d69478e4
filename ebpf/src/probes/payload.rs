//! What the owner of a socket sent and learnt.
//!
//! `sock_send_length` and `sock_recv_length` (6.3) run in the owner's context for every socket family, after the
//! call: `(sk, ret, flags)`. Older kernels offer the same through fexit on the families' sendmsg and recvmsg.
//! A socket that is not tracked costs one look-up.

use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};
use trace502_ebpf::*;

use crate::head::{self, Source};
use crate::kernel::{self, AF_UNIX, SHUTDOWN_RECEIVE, Sock, TCP_SYN_RECV, Way};
use crate::probes::{listen, state, tls};
use crate::{client, conn, emit, h2, peer, sealed, secured, story, thread, upstream};

const EAGAIN: i32 = -11;
const EINTR: i32 = -4;
const EINPROGRESS: i32 = -115;
const MSG_PEEK: i32 = 2;
/// What is received goes nowhere: HAProxy empties what it closes.
const MSG_TRUNC: i32 = 0x20;
const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const DNS_PORT: u16 = 53;

// void sock_send_length(struct sock *sk, int ret, int flags)
#[btf_tracepoint(function = "sock_send_length")]
#[inline(always)]
pub fn sent(ctx: BtfTracePointContext) -> i32 {
    on_send(Sock(ctx.arg(0)), ctx.arg(1))
}

// void sock_recv_length(struct sock *sk, int ret, int flags)
#[btf_tracepoint(function = "sock_recv_length")]
#[inline(always)]
pub fn received(ctx: BtfTracePointContext) -> i32 {
    on_receive(Sock(ctx.arg(0)), ctx.arg(1), ctx.arg(2))
}

macro_rules! sendmsg {
    ($name:ident, $function:literal) => {
        // int FUNCTION(struct socket *sock, struct msghdr *msg, size_t size)
        #[fexit(function = $function)]
        #[inline(always)]
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
        #[inline(always)]
        pub fn $name(ctx: FExitContext) -> i32 {
            on_send(kernel::sock_of(ctx.arg(0)), ctx.arg(5))
        }
    };
}

macro_rules! recvmsg {
    ($name:ident, $function:literal) => {
        // int FUNCTION(struct socket *sock, struct msghdr *msg, size_t size, int flags)
        #[fexit(function = $function)]
        #[inline(always)]
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
    let Some(conn) = known(sk, ret, false) else { return 0 };
    match conn.role {
        ROLE_UPSTREAM if ret > 0 => upstream_sent(sk, conn, ret as u64),
        ROLE_UPSTREAM if ret < 0 => upstream_error(sk, conn, ret),
        ROLE_CLIENT if ret > 0 => client_sent(sk, conn, ret as u64),
        ROLE_SEALED if ret > 0 => {
            sealed::wrote(sk, conn, ret as u64);
            0
        }
        ROLE_SECURED if ret > 0 => secured::answering(conn),
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
    let Some(conn) = known(sk, ret, true) else { return 0 };
    match conn.role {
        ROLE_UPSTREAM if ret > 0 => upstream_received(sk, conn, ret as u64),
        ROLE_UPSTREAM => upstream_error(sk, conn, ret),
        ROLE_CLIENT if ret > 0 => client_received(sk, conn, ret as u64),
        ROLE_SEALED if ret > 0 => {
            sealed::read(conn, ret as u64, emit::current().1);
            0
        }
        ROLE_SECURED if ret > 0 => secured::accepted(sk, conn),
        ROLE_H2 if ret > 0 => h2::plain(sk, conn, ret as u64, false),
        ROLE_PEER if conn.tgid == 0 => state::read_by(conn, emit::current().0),
        ROLE_RESOLVER if ret > 0 => dns(sk, ret, true, Some(&conn.tuple)),
        _ => 0,
    }
}

#[inline(always)]
fn client_received(sk: Sock, conn: &mut Conn, n: u64) -> i32 {
    let (tgid, tid) = emit::current();
    conn.tgid = tgid;
    conn.tid = tid;
    let class = if conn.request == 0 { upstream::class_of(tgid) } else { 0 };
    // Somebody else who listens on the port of a proxy, in another namespace or for another address.
    if conn.request == 0 && class & PROC_PROXY == 0 && conn.flags & CONN_OLD == 0 {
        if conn.bound == 0 {
            return conn::gone(conn.cookie);
        }
        conn.role = ROLE_PEER;
        return state::read_by(conn, tgid);
    }
    let new = client::received(conn, n, Source::Call(Way::In));
    if new && conn.request == 1 {
        if conn.bound != 0 {
            state::read_by(conn, tgid);
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
    let why = client::sent(conn, n, Source::Call(Way::Out));
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
    upstream::sent(sk, conn, n, Source::Call(Way::Out));
    secured::dialled(conn)
}

#[inline(always)]
fn upstream_received(sk: Sock, conn: &mut Conn, n: u64) -> i32 {
    upstream::received(sk, conn, n, Source::Call(Way::In));
    secured::dialled(conn)
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
    upstream::learnt();
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

/// What we know of a socket. Most are nobody's whom we watch, and TCP's: they are left here, since to call a function
/// would cost them more than all that is asked.
#[inline(always)]
fn known(sk: Sock, ret: i32, receiving: bool) -> Option<&'static mut Conn> {
    if let Some(conn) = conn::get(sk) {
        return Some(conn);
    }
    if ret <= 0 || sk.protocol() == IPPROTO_TCP && !(receiving && listen::is_proxy_port(sk)) {
        return None;
    }
    adopt(sk, ret, receiving)
}

/// A socket that we do not know: leave, unless a proxy uses it for a unix connection or for DNS.
#[inline(never)]
fn adopt(sk: Sock, ret: i32, receiving: bool) -> Option<&'static mut Conn> {
    if sk.family() == AF_UNIX {
        if sk.kind() == SOCK_STREAM {
            return adopt_unix(sk, receiving);
        }
    } else if sk.protocol() == IPPROTO_UDP {
        match sk.remote_port() {
            DNS_PORT if upstream::class_of(emit::current().0) & PROC_PROXY != 0 => {
                dns(sk, ret, receiving, None);
            }
            0 if !receiving => return adopt_resolver(sk),
            _ => {}
        }
    } else if sk.protocol() == IPPROTO_TCP {
        return unknown_client(sk, ret as u64);
    }
    None
}

/// A proxy may read from a client that we do not know.
#[inline(never)]
fn unknown_client(sk: Sock, n: u64) -> Option<&'static mut Conn> {
    let (tgid, tid) = emit::current();
    if upstream::class_of(tgid) & PROC_PROXY == 0 {
        return None;
    }
    // Its request came with the first packet (TCP Fast Open), or it had been waiting since before this was the port of a
    // proxy: a service manager listened there. Nothing of it was missed.
    if sk.state() == TCP_SYN_RECV || sk.began_with(n) {
        state::client_of(sk);
        if let Some(conn) = conn::get(sk) {
            return Some(conn);
        }
    } else {
        emit::full(Table::Connections);
    }
    // There is, or was, no room for it. What the thread does next must not be taken for another client's.
    if let Some(thread) = thread::of(tid) {
        thread::turned(thread);
    }
    None
}

/// A UDP socket that is not connected sends: its first datagram says what it is for.
#[inline(always)]
fn adopt_resolver(sk: Sock) -> Option<&'static mut Conn> {
    if upstream::class_of(emit::current().0) & PROC_PROXY == 0 {
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
    let class = upstream::class_of(tgid);
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
        record.header = emit::header(Kind::Dns as u16, IN_TASK, size_of::<DnsRecord>());
        sk.seldom_tuple(&mut record.tuple);
        if let Some(server) = server {
            record.tuple.remote = server.remote;
            record.tuple.remote_port = server.remote_port;
        }
        record.received = receiving as u32;
        record.total = ret as u32;
        record._pad = 0;
        let want = (ret as u64).min(DNS as u64) as u32;
        record.kept = match head::buffer(if receiving { Way::In } else { Way::Out }, ret as u64, || sk.address()) {
            Some((at, _)) if kernel::copy_user(record.message.as_mut_ptr(), want.min(DNS as u32), at) == 0 => want,
            _ => 0,
        };
    });
    0
}
