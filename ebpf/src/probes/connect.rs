//! connect() calls that fail in the call itself and leave no other trace: no route, no free port, and everything
//! that can go wrong with a unix socket.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fexit, uprobe};
use aya_ebpf::programs::{FExitContext, ProbeContext};
use trace502_ebpf::*;

use crate::kernel::{self, AF_INET, AF_INET6, AF_UNIX};
use crate::maps::{PROCS, TARGETS};
use crate::{emit, flow, peer, sealed, thread};

const ECONNREFUSED: i32 = 111;
const ETIMEDOUT: i32 = 110;
const EINPROGRESS: i32 = 115;
const EALREADY: i32 = 114;
const EISCONN: i32 = 106;
const EINTR: i32 = 4;
const EBADF: i32 = 9;
const ENOTSOCK: i32 = 88;
const ECONNRESET: i32 = 104;
const EADDRNOTAVAIL: i32 = 99;

// int __sys_connect_file(struct file *file, struct sockaddr_storage *address, int addrlen, int file_flags)
#[fexit(function = "__sys_connect_file")]
pub fn connect_returned(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(4);
    if ret >= 0 {
        return 0;
    }
    failed(ctx.arg(1), false, -ret)
}

/// Behind the system call instruction of the C library's connect(): the registers still hold its arguments.
#[uprobe]
pub fn connect_uprobe(ctx: ProbeContext) -> i32 {
    let (address, ret) = kernel::call_registers(ctx.as_ptr());
    if (-4095..0).contains(&ret) { failed(address, true, -ret as i32) } else { 0 }
}

#[repr(C)]
struct Address {
    family: u16,
    port: u16,
    v4: u32,
    v6: [u8; 16],
}

#[inline(always)]
fn fetch(to: *mut u8, len: u32, from: u64, user: bool) -> bool {
    if user { kernel::copy_user(to, len, from) == 0 } else { kernel::copy_checked(to, len, from) == 0 }
}

#[inline(always)]
pub fn failed(address: u64, user: bool, errno: i32) -> i32 {
    if matches!(errno, EINPROGRESS | EALREADY | EISCONN | EINTR | EBADF | ENOTSOCK) {
        return 0;
    }
    let (tgid, tid) = emit::current();
    // SAFETY: a plain number.
    let Some(&class) = (unsafe { PROCS.get(&tgid) }) else { return 0 };
    if class & PROC_PROXY == 0 {
        return 0;
    }
    let mut to = Address { family: 0, port: 0, v4: 0, v6: [0; 16] };
    let out = (&raw mut to).cast::<u8>();
    if !fetch(out, 16, address, user) {
        return 0;
    }
    let is_unix = to.family == AF_UNIX;
    // What a TCP handshake came to is told when its socket closes; a second connect() only reads it again.
    if !is_unix && matches!(errno, ECONNREFUSED | ETIMEDOUT | ECONNRESET) {
        if let Some(thread) = thread::of(tid) {
            thread::acted(thread);
        }
        return 0;
    }
    if to.family == AF_INET6 && !fetch((&raw mut to.v6).cast(), 16, address + 8, user) {
        return 0;
    }
    if !is_unix && to.family != AF_INET && to.family != AF_INET6 {
        return 0;
    }
    let bound = match thread::of(tid) {
        Some(thread) => {
            // Without a free port the socket had begun to connect, and was bound then.
            let bound = if errno == EADDRNOTAVAIL {
                thread::Choice { to: thread.bound, choices: 1, flags: 0 }
            } else {
                thread::choose(thread, class)
            };
            thread::failed(thread, class, bound.to, true);
            thread::began(thread);
            thread.in_call = 1;
            thread.sleeps = kernel::sleeps();
            if thread.sealed != 0 {
                sealed::failed(tgid, tid, bound.to.client, bound.to.request, false);
            }
            bound
        }
        None => thread::Choice { to: thread::NOBODY, choices: 0, flags: 0 },
    };
    tell(&to, &bound, address, user, errno);
    if !is_unix {
        let target = Target {
            addr: if to.family == AF_INET6 { to.v6 } else { kernel::mapped(to.v4) },
            port: u16::from_be(to.port),
            _pad: [0; 6],
        };
        flow::dials(target.port);
        let _ = TARGETS.insert(&target, emit::now(), 0);
    }
    0
}

/// A function of its own: the kernels before 6.13 have 512 bytes of stack for it and all that it is called from.
#[inline(never)]
fn tell(to: &Address, bound: &thread::Choice, address: u64, user: bool, errno: i32) -> i32 {
    let is_unix = to.family == AF_UNIX;
    emit::record::<ConnectRecord>(Kind::Connect, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        record.header = emit::header(Kind::Connect as u16, IN_TASK, size_of::<ConnectRecord>());
        // One by one: put together first, they would be on the stack.
        let tuple = &mut record.tuple;
        tuple.local = [0; 16];
        tuple.remote = if to.family == AF_INET6 { to.v6 } else { kernel::mapped(to.v4) };
        tuple.local_port = 0;
        tuple.remote_port = u16::from_be(to.port);
        tuple.netns = kernel::current_netns();
        emit::comm(&mut record.comm);
        record.cgroup = emit::cgroup();
        record.cookie = 0;
        record.bound = bound.to.client;
        record.bound_request = bound.to.request;
        let in_turn = bound.flags & CONN_IN_TURN != 0;
        record.choices = bound.choices as u16 | if in_turn { CONNECT_IN_TURN } else { 0 };
        record.errno = errno;
        record.family = to.family;
        record.path_len = 0;
        record.listener = peer::NO_LISTENER;
        if is_unix {
            // sun_path follows the family; what is behind the address is not ours, but harmless.
            let whole = fetch(record.path.as_mut_ptr(), PATH as u32, address + 2, user);
            record.path_len = if whole { PATH as u32 } else { 0 };
        } else {
            peer::find_listener(&record.tuple, &mut record.listener);
        }
    });
    0
}
