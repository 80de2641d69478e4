//! The life of TCP sockets: who connects, what is accepted, who closes first.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use trace502_ebpf::*;

use crate::kernel::{self, *};
use crate::maps::{CONNECT_TIMES, NO_CONNECTS, PROCS, Place, REFUSALS, Refusals, TARGETS, constant};
use crate::probes::{listen, process, tls};
use crate::{conn, emit, flow, peer, story, thread};

const IPPROTO_TCP: u16 = 6;

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    let (old, new) = (ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    if new == TCP_ESTABLISHED && old != TCP_SYN_SENT && sk.protocol() == IPPROTO_MPTCP {
        return accepted_mptcp(sk);
    }
    // The change behind these says all that they do.
    if matches!((old, new), (TCP_LISTEN, TCP_SYN_RECV) | (TCP_FIN_WAIT1, TCP_FIN_WAIT2)) {
        return 0;
    }
    match conn::get(sk) {
        // A socket may be connected again after a failure, or after it was told to forget its connection.
        Some(conn) if (old, new) == (TCP_CLOSE, TCP_SYN_SENT) => again(sk, conn),
        Some(conn) => match conn.role {
            ROLE_UPSTREAM => upstream(sk, conn, old, new),
            ROLE_CLIENT => client(sk, conn, old, new),
            ROLE_SECURED | ROLE_H2 => {
                tls::state(sk, conn, old, new);
            }
            ROLE_PEER => peer(sk, conn, old, new),
            _ => {}
        },
        None => match (old, new) {
            (TCP_CLOSE, TCP_SYN_SENT) => connecting(sk),
            (TCP_SYN_SENT, TCP_CLOSE) => refused(sk),
            (TCP_SYN_RECV, TCP_ESTABLISHED) if sk.protocol() == IPPROTO_TCP => accepted(sk),
            (_, TCP_LISTEN) => listen::started(sk),
            // An accepted socket starts as a copy of its listener, state and cookie included: only a close ends one.
            (TCP_LISTEN, TCP_CLOSE) => listen::stopped(sk),
            _ => {}
        },
    }
    0
}

// void tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn destroyed(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock(ctx.arg(0));
    if let Some(conn) = conn::get(sk) {
        if conn.role == ROLE_UPSTREAM {
            let (tgid, _) = emit::current();
            conn::end_upstream(sk, conn, tgid == conn.tgid);
        }
        conn::gone(conn.cookie);
    }
    0
}

/// A socket that is known starts to connect: what it was before ends here.
#[inline(never)]
fn again(sk: Sock, conn: &mut Conn) {
    // Its addresses are those of the new connection by now; see `story::compose`.
    conn.last_state = TCP_CLOSE;
    conn::end_upstream(sk, conn, true);
    // It keeps its place.
    conn::renew(conn, conn.cookie, ROLE_OPAQUE);
    let class = dials(sk);
    if class != 0 {
        dialling(sk, conn, class, |conn, tid| drop(thread::bind_again(conn, tid)));
    }
}

/// A process starts to connect: the hook runs in its context.
#[inline(never)]
fn connecting(sk: Sock) {
    let class = dials(sk);
    if class != 0
        && let Some(conn) = conn::track(sk, ROLE_OPAQUE)
    {
        dialling(sk, conn, class, thread::bind);
    }
}

/// A connection of nobody's did not come about. Where it was refused to a process that serves a proxy, that may be why
/// the proxy gets no answer: told only within the call, where it is sure whose it was.
#[inline(never)]
fn refused(sk: Sock) {
    let (tgid, _) = emit::current();
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    let errno = sk.error();
    if class & (PROC_LISTENS | PROC_OWNER) == 0 || errno == 0 || !kernel::connects(sk) || !seldom(tgid) {
        return;
    }
    emit::record::<FlowRecord>(Kind::DialFailed, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        record.header = emit::header(Kind::DialFailed as u16, IN_TASK, size_of::<FlowRecord>());
        sk.tuple(&mut record.tuple);
        record.cookie = 0;
        record.location = 0;
        record.reason = errno as u32;
        record.request = 0;
        record.state = TCP_SYN_SENT;
        record.tcp_flags = 0;
        record.has_socket = 1;
        record._pad = [0; 5];
    });
}

/// Whether this process was not told of often right now: who dials in a loop must not fill the ring, and what it was
/// refused a moment ago says the same.
#[inline(always)]
fn seldom(tgid: u32) -> bool {
    const WHILE: u64 = 100_000_000;
    const MOST: u64 = 32;
    let now = emit::now();
    if let Some(refusals) = REFUSALS.get_ptr_mut(&tgid) {
        // SAFETY: a value of the map; an increment lost between two CPUs is one record more.
        let refusals = unsafe { &mut *refusals };
        if now.wrapping_sub(refusals.since) < WHILE {
            refusals.told += 1;
            return refusals.told <= MOST;
        }
    }
    let _ = REFUSALS.insert(&tgid, Refusals { since: now, told: 1 }, BPF_ANY.into());
    true
}

/// What the process is that starts to connect, 0 where its connections are none of ours.
#[inline(always)]
fn dials(sk: Sock) -> u32 {
    let (tgid, _) = emit::current();
    // SAFETY: a plain number.
    let Some(&class) = (unsafe { PROCS.get(&tgid) }) else { return 0 };
    if sk.protocol() != IPPROTO_TCP {
        return 0;
    }
    if class & PROC_PROXY != 0 { class } else { found(kernel::current_task(), class) }
}

#[inline(always)]
fn dialling(sk: Sock, conn: &mut Conn, class: u32, bind: impl FnOnce(&mut Conn, u32)) {
    let (tgid, tid) = emit::current();
    conn.role = ROLE_UPSTREAM;
    conn.class = class;
    conn.tgid = tgid;
    conn.tid = tid;
    conn.phase = PHASE_CONNECTING;
    conn.last_state = TCP_SYN_SENT;
    conn.opened = emit::now();
    // HAProxy does this where it looks after its servers, and nowhere else.
    if class & PROC_OLDEST != 0 && sk.delays_acks() {
        conn.flags |= CONN_CHECK;
    }
    bind(conn, tid);
    sk.tuple(&mut conn.tuple);
    remember_target(target(&conn.tuple), conn.opened);
}

/// A process dials that is no proxy so far. Who listens, too, is one where that is asked for. Returns what it is then.
#[inline(always)]
pub fn found(task: TaskPtr, class: u32) -> u32 {
    let made = constant!(SETTINGS.found);
    if made == 0 || class & PROC_LISTENS == 0 {
        return 0;
    }
    let class = class | made;
    process::became(task, class);
    class
}

#[inline(always)]
pub fn target(tuple: &Tuple) -> Target {
    Target { addr: tuple.remote, port: tuple.remote_port, _pad: [0; 6] }
}

/// Notes that a proxy dials this address: resets and drops that concern it are told from now on.
#[inline(always)]
pub fn remember_target(target: Target, now: u64) {
    flow::dials(target.port);
    // Most are known, and to write into the entry is less than to replace it.
    match TARGETS.get_ptr_mut(&target) {
        // SAFETY: a value of the map; whoever writes it at the same time writes the same.
        Some(when) => unsafe { *when = now },
        None => drop(TARGETS.insert(&target, now, BPF_ANY.into())),
    }
}

#[inline(never)]
fn upstream(sk: Sock, conn: &mut Conn, old: u8, new: u8) {
    conn.last_state = old;
    match new {
        TCP_ESTABLISHED => {
            conn.established = emit::now();
            // With TCP Fast Open the request is on its way before.
            if conn.phase == PHASE_CONNECTING {
                conn.phase = PHASE_OPEN;
            }
            flow::remember(sk, conn);
            count_connect(conn);
        }
        TCP_CLOSE_WAIT => {
            conn.fin = emit::now();
            if conn.phase <= PHASE_ASKED && sk.unread() <= 1 {
                conn.flags |= CONN_FIN_EARLY;
            }
        }
        TCP_CLOSE if old == TCP_SYN_SENT => {
            conn.phase = PHASE_CONNECTING;
            sk.seldom_tuple(&mut conn.tuple);
            let error = sk.error();
            if error != 0 {
                conn.errno = -error;
            } else if conn.reset == 0 {
                conn.flags |= CONN_CLOSED_FIRST;
                // Given up, with a message of the way waiting.
                conn.errno = -sk.soft_error();
            }
        }
        TCP_FIN_WAIT1 | TCP_LAST_ACK => {
            if new == TCP_FIN_WAIT1 {
                conn.flags |= CONN_CLOSED_FIRST;
            }
            // shutdown() alone leaves the other direction open: the answer may still come.
            if sk.shutdown() == SHUTDOWN_BOTH {
                conn::end_upstream(sk, conn, true);
            }
        }
        TCP_CLOSE if conn.reset == 0 && conn.fin == 0 => conn.flags |= CONN_CLOSED_FIRST,
        _ => {}
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub fn count_connect(conn: *const Conn) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_ref() }) else { return 0 };
    let key = Dialled { addr: conn.tuple.remote, tgid: conn.tgid, port: conn.tuple.remote_port, _pad: 0 };
    let micros = conn.established.wrapping_sub(conn.opened) / 1000;
    let bucket = (64 - micros.leading_zeros()).min(CONNECT_BUCKETS as u32 - 1) as usize;
    let mut times = CONNECT_TIMES.get_ptr_mut(&key);
    if times.is_none()
        && let Some(empty) = NO_CONNECTS.get_ptr(0)
    {
        // SAFETY: a slot that nobody writes.
        let _ = CONNECT_TIMES.insert(&key, unsafe { &*empty }, BPF_ANY.into());
        times = CONNECT_TIMES.get_ptr_mut(&key);
    }
    if let Some(times) = times {
        // SAFETY: a map value; a lost increment between two CPUs is one connect in a histogram.
        let times = unsafe { &mut *times };
        if bucket < CONNECT_BUCKETS {
            times.counts[bucket] += 1;
            times.micros += micros;
        }
    }
    0
}

/// The owner of a proxy's other end reads from it: from now on its process matters.
#[inline(never)]
pub fn read_by(conn: &mut Conn, tgid: u32) -> i32 {
    conn.tgid = tgid;
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    if class & PROC_OWNER == 0 {
        peer::owner(tgid, class);
    }
    if let Some(upstream) = flow::linked(conn.bound) {
        upstream.peer.tgid = tgid;
    }
    0
}

/// A connection was accepted by some stack of this host: a client of a proxy, the other end of one, or both, since a
/// proxy may be its own upstream. Whether it is a proxy that serves the port shows who reads first.
#[inline(never)]
fn accepted(sk: Sock) {
    if !listen::is_proxy_port(sk) {
        return passive(sk);
    }
    client_of(sk);
}

/// A connection of MPTCP was accepted. It is a copy of its listener, cookie included where that has one: then nothing
/// tells it from others, and it is counted instead of taken for one of them.
#[inline(never)]
fn accepted_mptcp(sk: Sock) -> i32 {
    if !conn::is_marked(sk) {
        return 0;
    }
    if sk.known_cookie() == 0 {
        client_of(sk);
    } else {
        emit::full(Table::Connections);
    }
    0
}

#[inline(never)]
pub fn client_of(sk: Sock) {
    if let Some(conn) = conn::track(sk, ROLE_CLIENT) {
        conn::accepted(conn);
        link(sk, conn);
    }
}

/// Is this the other end of a proxy's connection?
#[inline(never)]
pub fn passive(sk: Sock) {
    if let Some(upstream) = flow::mirrored(sk)
        && let Some(conn) = conn::track(sk, ROLE_PEER)
    {
        join(sk, conn, upstream);
    }
}

/// Notes of a proxy's connection that this socket is its other end, if it is.
#[inline(never)]
pub fn link(sk: Sock, conn: &mut Conn) {
    conn.bound = 0;
    if let Some(upstream) = flow::mirrored(sk) {
        join(sk, conn, upstream);
    }
}

#[inline(always)]
fn join(sk: Sock, conn: &mut Conn, upstream: &mut Place) {
    conn.bound = upstream.conn.cookie;
    let peer = &mut upstream.peer;
    peer.cookie = conn.cookie;
    peer.sk = sk.0 as u64;
    peer.netns = sk.netns();
    peer.seen = PEER_SEEN;
    peer.state = TCP_ESTABLISHED;
}

#[inline(never)]
pub fn peer(sk: Sock, conn: &mut Conn, old: u8, new: u8) {
    if conn.bound == 0 {
        return;
    }
    let Some(upstream) = flow::linked(conn.bound) else {
        // The proxy's end is gone: what this one still does is nobody's news.
        conn.bound = 0;
        return;
    };
    let peer = &mut upstream.peer;
    peer.state = new;
    if old != TCP_ESTABLISHED || peer.closed != 0 || !matches!(new, TCP_FIN_WAIT1 | TCP_CLOSE) {
        return;
    }
    if sk.is_accepted() {
        peer.flags |= PEER_ACCEPTED;
    }
    if peer.flags & PEER_GOT_RESET != 0 || !sk.ended_by_owner() {
        return;
    }
    peer.closed = emit::now();
    peer.closed_tgid = emit::current().0;
    peer.flags |= PEER_CLOSED_FIRST;
    peer.unread = sk.unread();
    if peer.unread > 0 {
        peer.flags |= PEER_UNREAD;
    }
}

#[inline(never)]
fn client(sk: Sock, conn: &mut Conn, old: u8, new: u8) {
    if conn.bound != 0 {
        peer(sk, conn, old, new);
    }
    conn.last_state = old;
    match new {
        TCP_CLOSE_WAIT => {
            conn.fin = emit::now();
            left(sk, conn);
        }
        TCP_FIN_WAIT1 | TCP_CLOSE if old == TCP_ESTABLISHED && conn.reset == 0 => {
            if !sk.ended_by_owner() {
                left(sk, conn);
                conn.role = ROLE_OPAQUE;
                return;
            }
            conn.flags |= CONN_CLOSED_FIRST;
            if conn.phase == PHASE_ASKED
                && let Some(thread) = thread::of(conn.tid)
            {
                thread::gone(thread, conn);
            }
            if conn.phase == PHASE_ASKED && conn::is_http1(conn) {
                story::client_error(sk, conn, WHY_CLOSED);
            }
            conn.role = ROLE_OPAQUE;
        }
        _ => {}
    }
}

/// The client is gone while its request is unanswered.
#[inline(always)]
pub fn left(sk: Sock, conn: &Conn) -> i32 {
    if conn.phase != PHASE_ASKED { 0 } else { left_at(sk.address(), conn) }
}

/// Global to the verifier, and given an address instead of a socket: see `story::told`.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn left_at(sk: u64, conn: *const Conn) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_ref() }) else { return 0 };
    emit::record::<FlowRecord>(Kind::ClientLeft, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        record.header = emit::header(Kind::ClientLeft as u16, 0, size_of::<FlowRecord>());
        if sk == 0 {
            kernel::assign(&mut record.tuple, &conn.tuple);
        } else {
            kernel::tuple(sk as Ptr, &mut record.tuple);
        }
        record.cookie = conn.cookie;
        record.location = 0;
        record.reason = 0;
        record.request = conn.request;
        record.state = conn.last_state;
        record.tcp_flags = 0;
        record.has_socket = 1;
        record._pad = [0; 5];
    });
    0
}
