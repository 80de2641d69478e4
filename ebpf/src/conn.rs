//! The life of a tracked connection: its request and answer as they go through the owner's system calls,
//! and how it is handed over once it failed.
//!
//! While all goes well nothing leaves the kernel: the story of the current request lies in socket storage.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_ANY, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_jiffies64, bpf_sk_storage_get};
use trace502_ebpf::*;

use crate::head::{self, Source};
use crate::kernel::{self, Sock};
use crate::maps::{
    CONNS, LISTENERS, LISTENERS_MISSING, ListenKey, PROCS, RECENT, SCRATCH, SCRATCH_THREAD, Stream, UNIX_PEERS,
    UnixPeer, constant,
};
use crate::{emit, flow, sealed, thread};

#[inline(always)]
fn storage(sk: Sock, flags: u64) -> *mut Conn {
    let map = (&raw const CONNS).cast_mut().cast::<c_void>();
    // SAFETY: `sk` is the hook's own argument; the helper checks it and returns null or a value of the map.
    unsafe { bpf_sk_storage_get(map, sk.0.cast_mut().cast(), core::ptr::null_mut(), flags).cast() }
}

/// What we know of this socket.
#[inline(always)]
pub fn get(sk: Sock) -> Option<&'static mut Conn> {
    // SAFETY: null or a value of the map that lives as long as the socket.
    unsafe { storage(sk, 0).as_mut() }
}

/// Starts to track a socket.
#[inline(always)]
pub fn track(sk: Sock, role: u8) -> Option<&'static mut Conn> {
    // SAFETY: as above.
    let conn = unsafe { storage(sk, BPF_SK_STORAGE_GET_F_CREATE.into()).as_mut() }?;
    conn.role = role;
    conn.cookie = cookie(sk);
    Some(conn)
}

#[inline(always)]
pub fn cookie(sk: Sock) -> u64 {
    // SAFETY: as in `storage`.
    unsafe { bpf_get_socket_cookie(sk.0.cast_mut().cast()) }
}

/// A socket accepted from a proxy's listener carries a copy of the listener's state: make it a client connection.
#[inline(always)]
pub fn accepted(sk: Sock, conn: &mut Conn) {
    conn.role = ROLE_CLIENT;
    conn.cookie = cookie(sk);
    conn.phase = PHASE_OPEN;
    conn.request = 0;
    conn.flags = 0;
    conn.fin = 0;
    conn.reset = 0;
    conn.errno = 0;
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
    !head::begins_request(n, source)
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
        // A handshake that led to no request.
        PHASE_ANSWERED => is_tls(conn) && conn.flags & CONN_APPLICATION == 0,
        _ => false,
    }
}

/// The owner ends an upstream connection, or the kernel destroys it: judge its last request once.
#[inline(never)]
pub fn end_upstream(sk: Sock, conn: &mut Conn, in_task: bool) -> i32 {
    if conn.role != ROLE_UPSTREAM {
        return 0;
    }
    let (_, tid) = emit::current();
    let mut thread = if in_task { thread::of(tid) } else { None };
    let ended = match thread.as_mut() {
        Some(thread) => thread::ended(thread, conn),
        None => false,
    };
    // What was no answer has been told, and is a failure like others to the request that is tried again.
    let told = conn.flags & CONN_TOLD != 0;
    let failed = failed(conn) || told && (conn.status < 100 || is_http2(conn));
    if told && !ended {
        // Its answer was the news.
    } else if failed || ended {
        let why = match (told, failed) {
            (true, _) => WHY_ANSWERED,
            (false, true) => WHY_FAILED,
            (false, false) => WHY_ASKED,
        };
        let why = if in_task { why | IN_TASK } else { why };
        hand_over(sk, conn, Kind::Attempt, why);
        if failed && !told && conn.flags & CONN_SEALED != 0 {
            let gave_up = conn.fin == 0 && conn.reset == 0 && conn.errno == 0;
            sealed::failed(conn.tgid, conn.tid, conn.bound, conn.bound_request, gave_up);
        }
    } else if conn.bound != 0 && in_task {
        keep(sk, conn);
    }
    if failed
        && !ended
        && let Some(thread) = thread
    {
        let class = conn.class;
        let of = Waiting { client: conn.bound, request: conn.bound_request, since: 0 };
        thread::failed(thread, class, of, false);
        if class & PROC_LATE != 0 && conn.flags & CONN_CHECK == 0 {
            thread.ended = conn.cookie;
            thread.sleeps = kernel::sleeps();
        }
    }
    flow::forget(conn);
    conn.role = ROLE_OPAQUE;
    0
}

/// Puts a record of this connection together.
#[inline(always)]
fn compose(record: &mut ConnRecord, sk: Sock, conn: &Conn, kind: Kind, why: u16) {
    record.header = emit::header(kind, why, size_of::<ConnRecord>());
    emit::comm(&mut record.comm);
    record.cgroup = emit::cgroup();
    kernel::copy((&raw mut record.conn).cast(), (&raw const *conn).cast(), size_of::<Conn>());
    let keep = constant!(SETTINGS.head) as usize;
    if keep < LEAST_HEAD {
        withhold(&mut record.conn, keep);
    }
    record.path_len = 0;
    record.peer.seen = PEER_NONE;
    record.listener.seen = LISTENER_UNKNOWN;
    if sk.0.is_null() {
        nowhere(record, conn);
    } else if conn.flags & CONN_UNIX != 0 {
        unix(sk, record);
    } else {
        kernel::tuple(sk.0, &mut record.tuple);
        // Closed by then: its owner has begun to connect it again, perhaps to somewhere else.
        if record.tuple.remote_port == 0 || conn.last_state == kernel::TCP_CLOSE {
            record.tuple = conn.tuple;
        }
        // SAFETY: no arguments.
        kernel::tcp(sk, unsafe { bpf_jiffies64() }, &mut record.tcp);
        if conn.phase == PHASE_CONNECTING && record.tcp.error == 0 {
            record.tcp.error = sk.soft_error();
        }
        if conn.role == ROLE_UPSTREAM {
            peer(record);
            find_listener(&record.tuple, &mut record.listener);
        }
    }
}

/// What was only looked at leaves the kernel with no record.
#[inline(always)]
fn withhold(conn: &mut Conn, keep: usize) {
    const { assert!(size_of::<Thread>() >= HEAD, "there are zeros enough for a head") };
    conn.request_len = conn.request_len.min(keep as u16);
    conn.reply_len = conn.reply_len.min(keep as u16);
    if let Some(zeros) = SCRATCH_THREAD.get_ptr(0) {
        let (request, reply) = ((&raw mut conn.request_head).cast::<u8>(), (&raw mut conn.reply_head).cast::<u8>());
        kernel::copy(request.wrapping_add(keep), zeros.cast(), HEAD - keep);
        kernel::copy(reply.wrapping_add(keep), zeros.cast(), HEAD - keep);
    }
}

/// A record made in the owner's own code, where no socket is at hand.
#[inline(always)]
fn nowhere(record: &mut ConnRecord, conn: &Conn) {
    record.tuple = conn.tuple;
    // SAFETY: plain data; zero says "unknown" for each field.
    unsafe { core::ptr::write_bytes(&raw mut record.tcp, 0, 1) };
}

/// A stream of a client's connection got an error: tells it in the same way.
#[inline(never)]
pub fn stream_error(conn: &Conn, stream: &Stream, id: u32, status: u16, why: u16) -> i32 {
    emit::record::<ConnRecord>(Kind::Client, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        compose(record, Sock::NONE, conn, Kind::Client, why | IN_TASK);
        let told = &mut record.conn;
        told.role = ROLE_CLIENT;
        told.phase = if why == WHY_CLOSED { PHASE_ASKED } else { PHASE_ANSWERED };
        told.flags |= CONN_STREAM;
        told.bound = 0;
        told.request = id | STREAM;
        told.status = status;
        told.asked = stream.asked;
        told.tgid = stream.tgid;
        told.tid = stream.tid;
        told.request_bytes = stream.bytes.into();
        told.request_len = stream.len as u16;
        told.bound_request = stream.inserted;
        kernel::copy(told.request_head.as_mut_ptr(), stream.head.as_ptr(), HEAD);
    });
    last_attempt(conn.cookie, id | STREAM)
}

/// Hands a connection over to user space.
#[inline(never)]
pub fn hand_over(sk: Sock, conn: &Conn, kind: Kind, why: u16) -> i32 {
    emit::record::<ConnRecord>(kind, |record| {
        // SAFETY: reserved room of that size; user space reads what `seen` and the lengths allow.
        compose(unsafe { &mut *record }, sk, conn, kind, why);
    });
    0
}

/// Keeps an attempt that looked well, in case its client gets an error after all.
/// Only from the owner's context: an interrupt would write over the scratch of the program it interrupts.
#[inline(never)]
pub fn keep(sk: Sock, conn: &Conn) -> i32 {
    let key = recent_key(conn.bound, conn.bound_request);
    if let Some(record) = SCRATCH.get_ptr_mut(0) {
        // SAFETY: per-CPU scratch, used in task context only.
        let record = unsafe { &mut *record };
        compose(record, sk, conn, Kind::Attempt, WHY_ASKED);
        if conn.flags & CONN_UNIX == 0 && conn.phase == PHASE_ASKED {
            // SAFETY: see `address`.
            unsafe { *address(record) = sk.0 as u64 };
        }
        let _ = RECENT.insert(&key, &*record, BPF_ANY.into());
    }
    0
}

/// Where the path of a unix socket would be.
#[inline(always)]
fn address(record: &mut ConnRecord) -> *mut u64 {
    const { assert!(core::mem::offset_of!(ConnRecord, path).is_multiple_of(8) && PATH >= 8, "room for an address") };
    (&raw mut record.path).cast()
}

/// Its socket's address, which was put where the path of a unix socket would be, is of use only here.
#[inline(never)]
fn refresh_tcp(record: &mut ConnRecord) -> i32 {
    // SAFETY: see `address`.
    let at = unsafe { core::ptr::replace(address(record), 0) };
    if kernel::cookie_at(at) == record.conn.cookie {
        // SAFETY: no arguments.
        kernel::tcp(Sock(at as kernel::Ptr), unsafe { bpf_jiffies64() }, &mut record.tcp);
        peer(record);
    }
    0
}

/// A unix connection has no hook at its end: its story is kept as soon as it matters, and what its other end
/// did is read again when it is told. So is that of an upload which the upstream does not take: HAProxy leaves it open
/// for some time after its client has got the error.
#[inline(always)]
fn refresh(record: &mut ConnRecord) {
    if record.conn.phase == PHASE_ASKED {
        // The client has its error and the upstream has not answered: the owner gave up.
        record.conn.flags |= CONN_CLOSED_FIRST;
    } else if record.conn.flags & CONN_UNIX == 0 {
        return;
    }
    record.header.at = emit::now();
    if record.conn.flags & CONN_UNIX == 0 {
        refresh_tcp(record);
        return;
    }
    let peer = record.peer.sk;
    if peer == 0 {
        return;
    }
    record.peer.tgid = unix_reader(peer, record.conn.cookie);
    // The other end points back at us until it goes, even after we are gone.
    if kernel::unix_peer(peer) == record.peer.cookie {
        record.peer.state = kernel::state_at(peer);
        record.peer.unread = kernel::receive_queue(peer);
        if kernel::accepted_at(peer) {
            record.peer.flags |= PEER_ACCEPTED;
        }
    } else {
        record.peer.flags &= !PEER_LIVE;
    }
}

/// A client got an error: tell it, and what its last attempt was if that has not been told.
#[inline(never)]
pub fn client_error(sk: Sock, conn: &mut Conn, why: u16) -> i32 {
    conn.flags &= !CONN_AFTER_CALL;
    // The record's only: on the connection it says whose upstream end this is.
    let bound = conn.bound;
    closes_next(conn);
    hand_over(sk, conn, Kind::Client, why | IN_TASK);
    conn.bound = bound;
    last_attempt(conn.cookie, conn.request)
}

/// A proxy that writes first closes next what led to the error. What it did right before says the same: the record
/// tells that a connect() had failed in the call, or which connection it had closed.
#[inline(always)]
fn closes_next(conn: &mut Conn) {
    conn.bound = 0;
    let (tgid, tid) = emit::current();
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    if class & PROC_LATE == 0 {
        return;
    }
    let Some(thread) = thread::of(tid) else { return };
    let sleeps = kernel::sleeps();
    if thread.sleeps == sleeps {
        conn.bound = thread.ended;
        if thread.in_call != 0 {
            conn.flags |= CONN_AFTER_CALL;
        }
    }
    thread::acted(thread);
    thread.sleeps = sleeps;
    thread.closing = Waiting { client: conn.cookie, request: conn.request, since: 0 };
}

/// Under which key the last attempt of a request is kept: a client's, or a stream's of a client.
#[inline(always)]
fn recent_key(client: u64, request: u32) -> u64 {
    if request & STREAM == 0 { client } else { client ^ u64::from(request) << 32 }
}

/// A request got an error: tells what its last attempt was if that has not been told.
#[inline(never)]
pub fn last_attempt(client: u64, request: u32) -> i32 {
    if let Some(recent) = RECENT.get_ptr_mut(&recent_key(client, request)) {
        // SAFETY: a value of the map; a racing overwrite can only be by the same client's next attempt.
        let recent = unsafe { &mut *recent };
        if recent.conn.bound == client && recent.conn.bound_request == request {
            refresh(recent);
            emit::copied(Kind::Attempt, &raw const *recent);
        }
        let _ = RECENT.remove(&recent_key(client, request));
    }
    0
}

/// The other end of the connection, where it lives on this host.
#[inline(always)]
fn peer(record: &mut ConnRecord) {
    // A copy: kernels before 6.2 take no key from the ring buffer's memory.
    let mut key = record.tuple;
    let Some(flow) = flow::of(&mut key, record.conn.cookie) else { return };
    kernel::copy((&raw mut record.peer).cast(), (&raw const flow.peer).cast(), size_of::<Peer>());
    if flow.peer.sk == 0 || kernel::cookie_at(flow.peer.sk) != flow.peer.cookie {
        return;
    }
    record.peer.flags |= PEER_LIVE;
    record.peer.state = kernel::state_at(flow.peer.sk);
    if kernel::accepted_at(flow.peer.sk) {
        record.peer.flags |= PEER_ACCEPTED;
    }
    if record.peer.flags & PEER_CLOSED_FIRST == 0 {
        record.peer.unread = kernel::unread(flow.peer.sk as *const u8);
    }
}

/// The listener that a connection was meant for, in the same network namespace.
#[inline(always)]
pub fn find_listener(tuple: &Tuple, to: &mut Listener) {
    let mut key = ListenKey { addr: tuple.remote, netns: tuple.netns, port: tuple.remote_port, _pad: 0 };
    let v4 = kernel::is_mapped(&tuple.remote);
    // The exact address, then the wildcard of its family, then that of IPv6, which takes IPv4 too unless told otherwise.
    let mut found = LISTENERS.get_ptr(&key);
    if found.is_none() && v4 {
        key.addr = kernel::mapped(0);
        found = LISTENERS.get_ptr(&key);
    }
    if found.is_none() {
        key.addr = [0; 16];
        // SAFETY: a value of the map.
        found = LISTENERS.get_ptr(&key).filter(|state| !v4 || unsafe { (**state).only_v6 } == 0);
    }
    to.cookie = 0;
    to.tgid = 0;
    to.queue = 0;
    to.limit = 0;
    let Some(state) = found else {
        // Where the table had no room for somebody, that one may be who is looked for.
        let missing = LISTENERS_MISSING.get_ptr(0);
        // SAFETY: a number.
        let all = missing.is_some_and(|missing| unsafe { *missing } == 0);
        to.seen = if all { LISTENER_ABSENT } else { LISTENER_UNKNOWN };
        return;
    };
    // SAFETY: a value of the map.
    let state = unsafe { &*state };
    if state.count > 1 {
        // The kernel chooses one of them by the connection, and does not tell which: user space asks all of them.
        to.seen = LISTENER_SHARED;
        return;
    }
    to.seen = LISTENER_PRESENT;
    let member = &state.members[0];
    to.cookie = member.cookie;
    to.tgid = member.tgid;
    if kernel::cookie_at(member.sk) == member.cookie {
        (to.queue, to.limit) = kernel::accept_queue(member.sk);
    }
}

/// Path and other end of a unix connection.
#[inline(always)]
fn unix(sk: Sock, record: &mut ConnRecord) {
    // SAFETY: plain data; zero says "unknown" for each field.
    unsafe {
        core::ptr::write_bytes(&raw mut record.tuple, 0, 1);
        core::ptr::write_bytes(&raw mut record.tcp, 0, 1);
    }
    record.tcp.error = sk.error();
    let peer = kernel::unix_peer(sk.0 as u64);
    let named = if peer == 0 { sk.0 as u64 } else { peer };
    record.path_len = kernel::unix_path(named, &mut record.path);
    if peer == 0 {
        return;
    }
    let tgid = unix_reader(peer, record.conn.cookie);
    record.peer = Peer {
        sk: peer,
        // Unix sockets seldom have a cookie: what it points back at identifies it.
        cookie: sk.0 as u64,
        closed: 0,
        tgid,
        closed_tgid: 0,
        unread: kernel::receive_queue(peer),
        reset_reason: 0,
        netns: 0,
        seen: PEER_SEEN,
        state: kernel::state_at(peer),
        flags: if kernel::unix_peer(peer) == sk.0 as u64 { PEER_LIVE } else { 0 },
        _pad: 0,
    };
    if tgid != 0 || kernel::accepted_at(peer) {
        record.peer.flags |= PEER_ACCEPTED;
    }
}

/// A proxy sends the first bytes to the other end of a unix connection.
#[inline(always)]
pub fn unix_dialled(sk: Sock, peer: u64, cookie: u64) {
    let dialled = UnixPeer { owner: sk.0 as u64, cookie, tgid: 0, _pad: 0 };
    let _ = UNIX_PEERS.insert(&peer, &dialled, BPF_ANY.into());
}

/// A process reads from a unix socket: if that is the other end of a proxy's connection, its process matters.
#[inline(always)]
pub fn unix_read_by(sk: Sock, tgid: u32) {
    let at = sk.0 as u64;
    let Some(peer) = UNIX_PEERS.get_ptr_mut(&at) else { return };
    // SAFETY: a value of the map.
    let peer = unsafe { &mut *peer };
    if peer.tgid == tgid || kernel::unix_peer(at) != peer.owner {
        return;
    }
    peer.tgid = tgid;
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    if class & PROC_OWNER == 0 {
        owner(tgid, class);
    }
}

/// It listens, or reads for a proxy: from now on its process matters.
#[inline(always)]
pub fn owner(tgid: u32, class: u32) {
    if PROCS.insert(&tgid, &(class | PROC_OWNER), BPF_ANY.into()).is_err() {
        emit::full(Table::Processes);
    }
}

/// Who read last from the other end of a unix connection with this cookie.
#[inline(always)]
fn unix_reader(peer: u64, cookie: u64) -> u32 {
    match UNIX_PEERS.get_ptr(&peer) {
        // SAFETY: a value of the map.
        Some(known) => unsafe { if (*known).cookie == cookie { (*known).tgid } else { 0 } },
        None => 0,
    }
}

pub const NO_LISTENER: Listener =
    Listener { cookie: 0, tgid: 0, queue: 0, limit: 0, seen: LISTENER_UNKNOWN, _pad: [0; 3] };

/// Bytes of a head that are looked at.
#[inline(always)]
pub fn head_limit() -> u32 {
    constant!(SETTINGS.head).max(LEAST_HEAD as u32)
}
