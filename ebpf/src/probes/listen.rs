//! Who listens where; and what exists already when the agent starts.
//!
//! Listening TCP sockets are counted by address so that a refused or stalled connect finds the queue it was meant
//! for. Unix sockets have no hook when they start to listen: those that exist at start are told, later ones are
//! asked of the host.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_sock_from_file};
use trace502_ebpf::*;

use crate::kernel::{self, *};
use crate::maps::{
    ANYWHERE, BENEATH, LISTENER_KEYS, LISTENERS, LISTENERS_MISSING, ListenKey, Listens, NO_LISTENERS, OWNER_NAMES,
    Owner, PORTS, PROCS, constant,
};
use crate::places::exchanged;
use crate::probes::state;
use crate::{conn, emit, flow, peer};

/// A socket starts to listen: the hook runs in its owner's context.
#[inline(never)]
pub fn started(sk: Sock) {
    let (tgid, _) = emit::current();
    if sk.protocol() == IPPROTO_MPTCP {
        // The socket of TCP beneath it starts to listen as well, and is the one that counts.
        // SAFETY: a plain number.
        let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
        if class & PROC_PROXY != 0 {
            conn::mark_listener(sk);
        }
        return;
    }
    let mut comm = [0; COMM];
    emit::comm(&mut comm);
    found(sk, tgid, comm, emit::cgroup(), IN_TASK);
}

#[inline(always)]
fn found(sk: Sock, tgid: u32, comm: [u8; COMM], cgroup: u64, why: u16) {
    let cookie = conn::cookie(sk);
    let known = LISTENER_KEYS.get_ptr(&cookie).is_some();
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    // Of a socket that several have open, each of them listens.
    let listens = if constant!(SETTINGS.found) != 0 { PROC_LISTENS } else { 0 };
    if !known || class & listens != listens {
        peer::owner(tgid, class | listens);
    }
    if class & PROC_PROXY != 0 {
        // Also one that has become a proxy since.
        serves(sk.port(), sk.seldom_netns());
    }
    if known {
        return;
    }
    let _ = OWNER_NAMES.insert(&comm, &1, BPF_ANY.into());
    let mut tuple = Tuple { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, netns: 0 };
    sk.seldom_tuple(&mut tuple);
    let key = ListenKey { addr: tuple.local, netns: tuple.netns, port: tuple.local_port, _pad: 0 };
    let listens = Listens { key, tgid, _pad: 0 };
    if key.port == 0 {
        // Never bound: it gets its port right after this hook, and is looked for once it has been told.
        unnamed();
    } else if !join(&key, cookie, tgid, sk) || LISTENER_KEYS.insert(&cookie, &listens, BPF_ANY.into()).is_err() {
        emit::full(Table::Listeners);
        doubt();
    }
    tell(Kind::Listen, sk, &tuple, why, |record| {
        record.header.tgid = tgid;
        record.comm = comm;
        record.cgroup = cgroup;
        record.proxy = (class & PROC_PROXY != 0) as u16;
    });
}

/// A proxy listens on this port in this namespace. It stays marked: who else uses it is asked who they are once for each
/// connection.
#[inline(always)]
fn serves(port: u16, netns: u32) {
    if let Some(used) = PORTS.get_ptr_mut(port.into()) {
        // SAFETY: a value of the map.
        let mark = unsafe { &mut (*used).served };
        if !exchanged(mark, 0, netns.into()) && *mark != u64::from(netns) {
            *mark = ANYWHERE;
        }
    }
}

/// What a process that has become another program brought along.
struct Brought {
    open: Descriptors,
    proxy: bool,
    listens: bool,
}

/// A process has become another program, and may have been given sockets that listen already, as those are that a
/// service manager starts at the first connection. Returns what it is because of them.
#[inline(never)]
pub fn brought(class: u32) -> u32 {
    let (proxy, found) = (class & PROC_PROXY != 0, constant!(SETTINGS.found) != 0);
    if !proxy && !found {
        return 0;
    }
    let mut brought = Brought { open: Descriptors::of_current(), proxy, listens: false };
    // SAFETY: a function of this program and a place on this stack.
    unsafe { bpf_loop(brought.open.room, look as *mut c_void, (&raw mut brought).cast(), 0) };
    if found && brought.listens { PROC_OWNER | PROC_LISTENS } else { 0 }
}

extern "C" fn look(number: u32, brought: *mut c_void) -> i64 {
    // SAFETY: the place that `brought` gave.
    let brought = unsafe { &mut *brought.cast::<Brought>() };
    if let Some((port, netns)) = brought.open.listening(number) {
        brought.listens = true;
        if brought.proxy {
            serves(port, netns);
        }
    }
    0
}

/// Whether a proxy listened on the port that a connection was accepted on, in this namespace as far as is known.
#[inline(always)]
pub fn is_proxy_port(sk: Sock) -> bool {
    // SAFETY: a number.
    let mark = PORTS.get_ptr(sk.port().into()).map_or(0, |used| unsafe { (*used).served });
    // Most ports are nobody's: of them nothing more is read.
    mark != 0 && (mark == ANYWHERE || mark == u64::from(sk.netns()))
}

/// One more listens on this address. Returns whether it is known for sure.
#[inline(always)]
fn join(key: &ListenKey, cookie: u64, tgid: u32, sk: Sock) -> bool {
    let Some(none) = NO_LISTENERS.get_ptr(0) else { return false };
    // Whoever was the last one there may take the entry away as it is added to: then again, in one that is new.
    for _ in 0..2 {
        if LISTENERS.get_ptr(key).is_none() {
            // SAFETY: a slot that nobody writes.
            let _ = LISTENERS.insert(key, unsafe { &*none }, BPF_NOEXIST.into());
        }
        let Some(at) = LISTENERS.get_ptr_mut(key) else { return false };
        // SAFETY: a value of the map.
        let state = unsafe { &mut *at };
        state.only_v6 = sk.only_v6().into();
        // Whoever reads a sum of two owners sees a cookie that is none: see `peer::find_listener`.
        state.cookie.add(cookie);
        state.sk.add(sk.0 as u64);
        state.tgid.add(tgid.into());
        state.count.add(1);
        if LISTENERS.get_ptr(key).is_some_and(|now| core::ptr::eq(now, at)) {
            return true;
        }
        doubt();
    }
    false
}

/// A socket listens no more.
#[inline(always)]
fn leave(listens: &Listens, cookie: u64, sk: Sock) {
    let Some(at) = LISTENERS.get_ptr_mut(&listens.key) else { return };
    // SAFETY: a value of the map.
    let state = unsafe { &*at };
    state.sk.take(sk.0 as u64);
    state.cookie.take(cookie);
    state.tgid.take(listens.tgid.into());
    if state.count.take(1) == 1 {
        let _ = LISTENERS.remove(&listens.key);
        // Somebody joined who was just taken away with it.
        if state.count.get() != 0 {
            doubt();
        }
    }
}

/// Until all listeners have been looked at, nobody is said not to listen.
#[inline(always)]
fn unnamed() {
    if let Some(missing) = LISTENERS_MISSING.get_ptr_mut(1) {
        // SAFETY: a number; user space makes it 0 when it has looked.
        unsafe { *missing = 1 };
    }
}

/// From now on nobody is said not to listen.
#[inline(always)]
fn doubt() {
    if let Some(missing) = LISTENERS_MISSING.get_ptr_mut(0) {
        // SAFETY: a number that only ever becomes 1.
        unsafe { *missing = 1 };
    }
}

/// A listening socket closes.
#[inline(never)]
pub fn stopped(sk: Sock) {
    let cookie = conn::cookie(sk);
    let Some(listens) = LISTENER_KEYS.get_ptr(&cookie) else { return };
    // SAFETY: a value of the map, copied before it is removed.
    let listens = unsafe { *listens };
    let Listens { key, tgid, .. } = listens;
    leave(&listens, cookie, sk);
    let _ = LISTENER_KEYS.remove(&cookie);
    let tuple = Tuple { local: key.addr, remote: [0; 16], local_port: key.port, remote_port: 0, netns: key.netns };
    tell(Kind::Unlisten, sk, &tuple, IN_TASK, |record| {
        record.header.tgid = tgid;
        emit::comm(&mut record.comm);
        record.cgroup = emit::cgroup();
        record.proxy = 0;
    });
}

#[inline(always)]
fn tell(kind: Kind, sk: Sock, tuple: &Tuple, why: u16, owner: impl FnOnce(&mut ListenRecord)) {
    emit::record::<ListenRecord>(kind, |record| {
        // SAFETY: reserved room of that size; `owner` fills what is left.
        let record = unsafe { &mut *record };
        record.header = emit::header(kind as u16, why, size_of::<ListenRecord>());
        record.tuple = *tuple;
        record.cookie = conn::cookie(sk);
        (record.queue, record.limit) = kernel::accept_queue(sk.0 as u64);
        record.family = AF_INET;
        record.path_len = 0;
        record._pad = 0;
        owner(record);
    });
}

#[repr(C)]
struct TaskFile {
    meta: *mut c_void,
    task: Ptr,
    fd: u64,
    file: *mut c_void,
}

/// The socket behind a file that an iterator shows, and the process that has it open.
#[inline(always)]
fn socket_of(ctx: *mut c_void) -> Option<(Sock, TaskPtr)> {
    let ctx = ctx.cast::<TaskFile>();
    // SAFETY: the context of iter/task_file has this shape; each pointer may be null.
    unsafe {
        let (task, file) = ((*ctx).task, (*ctx).file);
        if task.is_null() || file.is_null() {
            return None;
        }
        let socket = bpf_sock_from_file(file.cast());
        if socket.is_null() {
            return None;
        }
        let sk = kernel::sock_of(socket.cast_const().cast());
        if sk.0.is_null() { None } else { Some((sk, TaskPtr(task))) }
    }
}

const IPPROTO_TCP: u16 = 6;

// iter/task_file: sockets that listen already.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn found_listening(ctx: *mut c_void) -> i32 {
    let Some((sk, task)) = socket_of(ctx) else { return 0 };
    if sk.state() != TCP_LISTEN {
        return 0;
    }
    let family: u16 = sk.family();
    let tgid = task.tgid();
    if family == AF_INET || family == AF_INET6 {
        // Shared with a child, or told at its start.
        if tgid == task.tid() {
            let owner = Owner { tgid, _pad: 0, cgroup: task.cgroup(), comm: task.comm() };
            match kernel::beneath(sk) {
                0 => found(sk, tgid, owner.comm, owner.cgroup, 0),
                beneath => {
                    if BENEATH.insert(&beneath, &owner, BPF_ANY.into()).is_err() {
                        emit::full(Table::Listeners);
                        doubt();
                    }
                }
            }
        }
    } else if family == AF_UNIX {
        unix_listener(sk, tgid, task);
    }
    0
}

// iter/tcp: sockets that listen for those of MPTCP, which alone are files.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
pub extern "C" fn found_beneath(ctx: *mut c_void) -> i32 {
    // SAFETY: the context of iter/tcp has this shape; the socket may be null.
    let sk = unsafe { (*ctx.cast::<IterTcp>()).sk };
    if sk.is_null() || kernel::state_at(sk as u64) != TCP_LISTEN {
        return 0;
    }
    if let Some(owner) = BENEATH.get_ptr(&(sk as u64)) {
        // SAFETY: a value of the map, written by the walk before this one.
        let owner = unsafe { &*owner };
        found(Sock(sk), owner.tgid, owner.comm, owner.cgroup, 0);
    }
    0
}

#[inline(always)]
fn unix_listener(sk: Sock, tgid: u32, task: TaskPtr) {
    let comm = task.comm();
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    peer::owner(tgid, class);
    let _ = OWNER_NAMES.insert(&comm, &1, BPF_ANY.into());
    emit::record::<ListenRecord>(Kind::Listen, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        record.header = emit::header(Kind::Listen as u16, 0, size_of::<ListenRecord>());
        record.header.tgid = tgid;
        record.tuple =
            Tuple { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, netns: sk.seldom_netns() };
        record.comm = comm;
        record.cgroup = task.cgroup();
        record.cookie = conn::cookie(sk);
        record.queue = kernel::receive_queue(sk.0 as u64);
        record.limit = kernel::accept_queue(sk.0 as u64).1;
        record.family = AF_UNIX;
        record.proxy = (class & PROC_PROXY != 0) as u16;
        record.path_len = kernel::unix_path(sk.0 as u64, &mut record.path);
        record._pad = 0;
    });
}

// iter/task_file: connections that proxies have already.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn found_connected(ctx: *mut c_void) -> i32 {
    let Some((sk, task)) = socket_of(ctx) else { return 0 };
    let tgid = task.tgid();
    // SAFETY: a plain number.
    let class = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    let family = sk.family();
    // Connected UDP sockets (resolvers) are in the same state as connections.
    let other = family != AF_INET && family != AF_INET6 || sk.protocol() != IPPROTO_TCP;
    let named = class & PROC_PROXY != 0;
    if other || !named && class & PROC_LISTENS == 0 {
        return 0;
    }
    let state = sk.state();
    if state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT && state != TCP_LISTEN {
        return 0;
    }
    match conn::get(sk) {
        // It was known as the other end of a proxy's connection. Its owner is a proxy, too, by now.
        Some(conn) if conn.role == ROLE_PEER && named => {
            conn.role = ROLE_CLIENT;
            conn.phase = PHASE_OPEN;
            conn.flags = CONN_OLD;
            return 0;
        }
        Some(_) => return 0,
        None => {}
    }
    if state == TCP_LISTEN {
        if named {
            serves(sk.port(), sk.seldom_netns());
        }
        return 0;
    }
    // A connection whose own address is listened on was accepted; all others were dialled.
    let mut tuple = Tuple { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, netns: 0 };
    sk.seldom_tuple(&mut tuple);
    let mut own = Listener { cookie: 0, tgid: 0, queue: 0, limit: 0, seen: 0, _pad: [0; 3] };
    peer::find_listener(&kernel::mirror(&tuple), &mut own);
    let accepted = matches!(own.seen, LISTENER_PRESENT | LISTENER_SHARED);
    let class = match (named, accepted) {
        (true, _) => class,
        (false, true) => 0,
        // What was passed over up to here is found by the walk after the news of it.
        (false, false) => state::found(task, class),
    };
    if class == 0 {
        return 0;
    }
    let role = if accepted { ROLE_CLIENT } else { ROLE_UPSTREAM };
    let Some(conn) = conn::track(sk, role) else { return 0 };
    conn.flags = CONN_OLD;
    conn.class = class;
    conn.tgid = tgid;
    conn.last_state = state;
    if role == ROLE_CLIENT {
        conn.phase = PHASE_OPEN;
    } else {
        // It has served before, or is in the middle of it: its next request is not its first.
        conn.phase = PHASE_ANSWERED;
        conn.request = 1;
        flow::remember(sk, conn);
        state::remember_target(state::target(&tuple), emit::now());
    }
    0
}

#[repr(C)]
struct IterTcp {
    meta: *mut c_void,
    sk: Ptr,
    uid: u32,
}

// iter/tcp: the other ends of those connections.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
pub extern "C" fn found_peers(ctx: *mut c_void) -> i32 {
    // SAFETY: the context of iter/tcp has this shape; the socket may be null.
    let sk = unsafe { (*ctx.cast::<IterTcp>()).sk };
    if sk.is_null() {
        return 0;
    }
    let state = kernel::state_at(sk as u64);
    if state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT {
        return 0;
    }
    match conn::get(Sock(sk)) {
        None => state::passive(Sock(sk)),
        Some(conn) if conn.role == ROLE_CLIENT => state::link(Sock(sk), conn),
        Some(_) => {}
    }
    0
}
