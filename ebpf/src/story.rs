//! How a connection is told: one record with its request and answer, and what was at its other end; at once, or kept in
//! case its client gets an error.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use trace502_ebpf::*;

use crate::kernel::{self, Ptr, Sock};
use crate::maps::{PLACES, PROCS, Place, RECENT, SCRATCH, SCRATCH_THREAD, STREAMS, Stream, StreamKey, constant};
use crate::{emit, peer, places, thread};

/// Puts a record of this connection together. Its socket is an address here, 0 for none: see [`hand_over`].
#[inline(always)]
fn compose(record: &mut ConnRecord, sk: u64, conn: &Conn, kind: u16, why: u16) {
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
    if sk == 0 {
        nowhere(record, conn);
    } else if conn.flags & CONN_UNIX != 0 {
        peer::unix(sk, record);
    } else {
        kernel::tuple(sk as Ptr, &mut record.tuple);
        // Closed by then: its owner has begun to connect it again, perhaps to somewhere else.
        if record.tuple.remote_port == 0 || conn.last_state == kernel::TCP_CLOSE {
            kernel::assign(&mut record.tuple, &conn.tuple);
        }
        // SAFETY: no arguments.
        kernel::tcp_at(sk, unsafe { bpf_jiffies64() }, &mut record.tcp);
        if conn.phase == PHASE_CONNECTING && record.tcp.error == 0 {
            record.tcp.error = Sock(sk as Ptr).soft_error();
        }
    }
}

/// Adds where an upstream connection ends on this host, to what was put together of it. Apart, since streams of clients
/// are told from deep inside a program, where there is no stack left for what they have no use for.
#[inline(always)]
fn add_end(record: &mut ConnRecord, conn: &Conn) {
    if conn.role == ROLE_UPSTREAM && conn.flags & CONN_UNIX == 0 {
        peer::other_end(record);
        peer::find_listener(&record.tuple, &mut record.listener);
    }
}

/// What was only looked at leaves the kernel with no record. A function of its own: the stack of 6.1 has no room for it
/// below what is put together there.
#[inline(never)]
fn withhold(conn: &mut Conn, keep: usize) -> i32 {
    const { assert!(size_of::<Thread>() >= HEAD, "there are zeros enough for a head") };
    conn.request_len = conn.request_len.min(keep as u16);
    conn.reply_len = conn.reply_len.min(keep as u16);
    if let Some(zeros) = SCRATCH_THREAD.get_ptr(0) {
        let (request, reply) = ((&raw mut conn.request_head).cast::<u8>(), (&raw mut conn.reply_head).cast::<u8>());
        kernel::copy(request.wrapping_add(keep), zeros.cast(), HEAD - keep);
        kernel::copy(reply.wrapping_add(keep), zeros.cast(), HEAD - keep);
    }
    0
}

/// A record made in the owner's own code, where no socket is at hand.
#[inline(always)]
fn nowhere(record: &mut ConnRecord, conn: &Conn) {
    kernel::assign(&mut record.tuple, &conn.tuple);
    kernel::clear(&mut record.tcp);
}

/// A stream of a client's connection got an error: tells it in the same way.
#[inline(never)]
pub fn stream_error(conn: &Conn, stream: &Stream, id: u32, status: u16, why: u16) -> i32 {
    let key = StreamKey { cookie: conn.cookie, id, _pad: 0 };
    emit::record_if::<ConnRecord>(Kind::Client, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        compose(record, 0, conn, Kind::Client as u16, why | IN_TASK);
        let told = &mut record.conn;
        told.role = ROLE_CLIENT;
        told.phase = if why == WHY_CLOSED { PHASE_ASKED } else { PHASE_ANSWERED };
        told.flags |= CONN_STREAM;
        told.bound = 0;
        told.request = id | STREAM;
        told.status = status;
        told.asked = stream.asked;
        // SAFETY: a plain number.
        told.class = unsafe { PROCS.get(&stream.tgid) }.copied().unwrap_or(0);
        told.tgid = stream.tgid;
        told.tid = stream.tid;
        told.choices = stream.rank.min(255) as u8;
        told.request_bytes = stream.bytes.into();
        told.bound_request = stream.inserted;
        // What was only looked at stays here, see `withhold`.
        if constant!(SETTINGS.head) as usize >= LEAST_HEAD {
            told.request_len = stream.len as u16;
            kernel::copy(told.request_head.as_mut_ptr(), stream.head.as_ptr(), HEAD);
        }
        // Newer streams push out older ones, and the place may be another's by now.
        STREAMS.get_ptr(&key).is_some_and(|now| core::ptr::eq(now, stream))
    });
    last_attempt(conn.cookie, id | STREAM)
}

/// Hands a connection over to user space.
#[inline(always)]
pub fn hand_over(sk: Sock, conn: &Conn, kind: Kind, why: u16) -> i32 {
    told(sk.address(), conn, kind as u32, why.into())
}

/// Global to the verifier, which walks through it once for each program and not once for each way to it: there are thirty
/// in some. It is given numbers and a connection that may be anybody's, so the socket is read through its address.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn told(sk: u64, conn: *const Conn, kind: u32, why: u32) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    let Some(conn) = (unsafe { conn.as_ref() }) else { return 0 };
    emit::record_as::<ConnRecord>(kind, |record| {
        // SAFETY: reserved room of that size; user space reads what `seen` and the lengths allow.
        let record = unsafe { &mut *record };
        compose(record, sk, conn, kind as u16, why as u16);
        add_end(record, conn);
    });
    0
}

/// The place of the connection with this cookie, as long as it has it.
#[inline(always)]
fn place_of(cookie: u64) -> Option<(u32, &'static mut Place)> {
    let number = places::find(cookie);
    // SAFETY: a value of the map.
    let place = PLACES.get_ptr_mut(number).map(|place| unsafe { &mut *place })?;
    (place.conn.cookie == cookie).then_some((number, place))
}

/// An attempt that looked well is at its end. Most of those that answered need not be kept: what is known of one stays in
/// its place for as long as nobody else is given that, which the place of its client says.
#[inline(never)]
pub fn leave(sk: Sock, conn: &Conn) -> i32 {
    if conn.flags & CONN_UNIX != 0 || conn.phase != PHASE_ANSWERED || conn.bound_request & STREAM != 0 {
        return keep(sk, conn);
    }
    let Some((_, client)) = place_of(conn.bound) else { return 0 };
    let Some((number, own)) = place_of(conn.cookie) else { return 0 };
    own.ended = emit::now();
    // SAFETY: no arguments.
    sk.tcp(unsafe { bpf_jiffies64() }, &mut own.tcp);
    client.last = conn.cookie;
    client.last_place = number;
    client.last_request = conn.bound_request;
    0
}

/// Keeps an attempt that looked well, in case its client gets an error after all.
/// Only from the owner's context: an interrupt would write over the scratch of the program it interrupts.
#[inline(always)]
pub fn keep(sk: Sock, conn: &Conn) -> i32 {
    kept(sk.address(), conn)
}

/// Global for the same reason as [`told`].
#[unsafe(no_mangle)]
#[inline(never)]
pub fn kept(sk: u64, conn: *const Conn) -> i32 {
    // SAFETY: as in `told`.
    let Some(conn) = (unsafe { conn.as_ref() }) else { return 0 };
    let key = recent_key(conn.bound, conn.bound_request);
    if let Some(record) = SCRATCH.get_ptr_mut(0) {
        // SAFETY: per-CPU scratch, used in task context only.
        let record = unsafe { &mut *record };
        compose(record, sk, conn, Kind::Attempt as u16, WHY_ASKED);
        add_end(record, conn);
        if conn.flags & CONN_UNIX == 0 && conn.phase == PHASE_ASKED {
            // SAFETY: see `address`.
            unsafe { *address(record) = sk };
        }
        let _ = RECENT.insert(&key, &*record, BPF_ANY.into());
    }
    // It is the last one now.
    if let Some((_, client)) = place_of(conn.bound) {
        client.last = 0;
    }
    0
}

/// Where the path of a unix socket would be.
#[inline(always)]
fn address(record: &mut ConnRecord) -> *mut u64 {
    const { assert!(core::mem::offset_of!(ConnRecord, path).is_multiple_of(8) && PATH >= 8, "room for an address") };
    (&raw mut record.path).cast()
}

/// Its socket's address, which was put where the path of a unix socket would be, is of use only here. Returns whether
/// the socket is still there.
#[inline(never)]
fn refresh_tcp(record: &mut ConnRecord) -> i32 {
    // SAFETY: see `address`.
    let at = unsafe { core::ptr::replace(address(record), 0) };
    if kernel::cookie_at(at) == record.conn.cookie {
        // SAFETY: no arguments.
        kernel::tcp_at(at, unsafe { bpf_jiffies64() }, &mut record.tcp);
        return 1;
    }
    0
}

/// A function of its own: what this needs of the stack and what `refresh_tcp` does is too much in one.
#[inline(never)]
fn refresh_peer(record: &mut ConnRecord) -> i32 {
    peer::other_end(record);
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
        if refresh_tcp(record) != 0 {
            refresh_peer(record);
        }
        return;
    }
    let peer = record.peer.sk;
    if peer == 0 {
        return;
    }
    record.peer.tgid = peer::unix_reader(peer, record.conn.cookie);
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
    left(conn.cookie, conn.request);
    last_attempt(conn.cookie, conn.request)
}

/// Tells the last attempt of this request, where it was left in its place.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn left(client: u64, request: u32) -> i32 {
    let Some((_, of)) = place_of(client) else { return 0 };
    let cookie = of.last;
    if cookie == 0 || of.last_request != request {
        return 0;
    }
    of.last = 0;
    let Some(place) = PLACES.get_ptr(of.last_place) else { return 0 };
    // SAFETY: a value of the map, which may be given to another at any time.
    let place = unsafe { &*place };
    emit::record_if::<ConnRecord>(Kind::Attempt, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        compose(record, 0, &place.conn, Kind::Attempt as u16, WHY_ASKED);
        record.header.at = place.ended;
        kernel::copy((&raw mut record.tcp).cast(), (&raw const place.tcp).cast(), size_of::<Tcp>());
        record.conn.role = ROLE_UPSTREAM;
        peer::as_it_is(record, &place.peer);
        peer::find_listener(&record.tuple, &mut record.listener);
        // SAFETY: numbers of a value of the map. Opaque is what has ended.
        let still = unsafe { core::ptr::read_volatile(&raw const place.conn.cookie) == cookie };
        still && place.conn.role == ROLE_OPAQUE && record.conn.bound == client && record.conn.bound_request == request
    });
    // Whatever was kept is older.
    let _ = RECENT.remove(&client);
    0
}

/// A proxy that writes first closes next what led to the error. What it did right before says the same: the record
/// tells that a connect() had failed in the call, or which connection it had closed.
#[inline(always)]
fn closes_next(conn: &mut Conn) {
    conn.bound = 0;
    let (tgid, tid) = emit::current();
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    conn.class = class;
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
#[unsafe(no_mangle)]
#[inline(never)]
pub fn last_attempt(client: u64, request: u32) -> i32 {
    let key = recent_key(client, request);
    let Some(recent) = RECENT.get_ptr(&key) else { return 0 };
    // SAFETY: plain numbers of a value of the map.
    let (bound, of) = unsafe { ((*recent).conn.bound, (*recent).conn.bound_request) };
    if bound == client && of == request {
        emit::record_if::<ConnRecord>(Kind::Attempt, |record| {
            kernel::copy(record.cast(), recent.cast(), size_of::<ConnRecord>());
            // The place may have been given to another client's attempt while it was copied.
            if !RECENT.get_ptr(&key).is_some_and(|now| core::ptr::eq(now, recent)) {
                return false;
            }
            // SAFETY: reserved room of that size, just filled.
            refresh(unsafe { &mut *record });
            true
        });
    }
    let _ = RECENT.remove(&key);
    0
}
