//! The floor: programs that do nothing, on the hooks that trace502 uses. Two instructions each, loaded by hand, so that
//! no compiler and no loader has a part in it.
//!
//! They hang on raw tracepoints, which need no types; the kernel calls them on the same path as typed ones.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context, Result};

const PROG_LOAD: libc::c_long = 5;
const PROG_GET_NEXT_ID: libc::c_long = 11;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const RAW_TRACEPOINT: u32 = 17;

/// The kernel's `union bpf_attr` as PROG_LOAD reads it.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    _pad: u32,
}

#[repr(C)]
struct NextId {
    start: u32,
    next: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_long, argument: &mut T) -> io::Result<i32> {
    // SAFETY: each caller passes the structure that the command reads, with its size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *argument, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Programs that are attached as long as this lives.
pub struct Floor {
    _links: Vec<OwnedFd>,
}

impl Floor {
    /// On both lengths of a call, as trace502's own.
    pub fn attach() -> Result<Floor> {
        Floor::on(&CALLS)
    }

    /// On every tracepoint that trace502 has a program on while requests go through a proxy. Not in its libraries.
    pub fn attach_all() -> Result<Floor> {
        Floor::on(&[&CALLS[..], &OTHERS].concat())
    }

    fn on(tracepoints: &[&CStr]) -> Result<Floor> {
        let links = tracepoints.iter().map(|tracepoint| empty(tracepoint)).collect::<Result<_>>()?;
        Ok(Floor { _links: links })
    }

    /// What the kernel's clock counts for one run of a program that does nothing, in nanoseconds.
    pub fn run() -> Option<f64> {
        let floors = ran().into_iter().filter(|ran| ran.name == FLOOR);
        let (nanos, runs) = floors.fold((0, 0), |(nanos, runs), ran| (nanos + ran.nanos, runs + ran.runs));
        (runs > 0).then(|| nanos as f64 / runs as f64)
    }
}

const CALLS: [&CStr; 2] = [c"sock_send_length", c"sock_recv_length"];
const OTHERS: [&CStr; 9] = [
    c"inet_sock_set_state",
    c"tcp_destroy_sock",
    c"tcp_receive_reset",
    c"tcp_send_reset",
    c"kfree_skb",
    c"sched_process_exec",
    c"sched_process_fork",
    c"sched_process_exit",
    c"signal_generate",
];

/// What programs that do nothing are called.
pub const FLOOR: &str = "floor";

fn empty(tracepoint: &CStr) -> Result<OwnedFd> {
    // r0 = 0; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    let mut load = Load {
        kind: RAW_TRACEPOINT,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: 0,
        name: std::array::from_fn(|at| FLOOR.as_bytes().get(at).copied().unwrap_or(0)),
    };
    let program = owned(bpf(PROG_LOAD, &mut load).context("the kernel refuses an empty program: is this root?")?);
    let mut open = Open { name: tracepoint.as_ptr() as u64, program: program.as_raw_fd() as u32, _pad: 0 };
    let link = bpf(RAW_TRACEPOINT_OPEN, &mut open);
    Ok(owned(link.with_context(|| format!("this kernel has no tracepoint {tracepoint:?}"))?))
}

const GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO: libc::c_long = 15;
const ENABLE_STATS: libc::c_long = 32;

/// Has the kernel take the time of every program as long as it lives (5.8).
pub struct Clock {
    _on: OwnedFd,
}

impl Clock {
    pub fn start() -> Result<Clock> {
        let mut run_time = 0_u32;
        let on = bpf(ENABLE_STATS, &mut run_time).context("the kernel does not take the time of programs")?;
        Ok(Clock { _on: owned(on) })
    }
}

/// The part of `struct bpf_prog_info` that says how long a program ran.
#[repr(C)]
struct Info {
    _before: [u64; 8],
    name: [u8; 16],
    _between: [u64; 14],
    nanos: u64,
    runs: u64,
}

#[repr(C)]
struct GetInfo {
    program: u32,
    len: u32,
    info: u64,
}

/// A program and what it ran so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub id: u32,
    pub name: String,
    pub nanos: u64,
    pub runs: u64,
}

/// Every program in the kernel. Those loaded later have larger numbers.
pub fn ran() -> Vec<Ran> {
    let mut all = Vec::new();
    let mut id = NextId { start: 0, next: 0, flags: 0 };
    while bpf(PROG_GET_NEXT_ID, &mut id).is_ok() {
        id.start = id.next;
        all.extend(info(id.next));
    }
    all
}

/// `None`: it went meanwhile.
fn info(id: u32) -> Option<Ran> {
    let mut by_id = NextId { start: id, next: 0, flags: 0 };
    let program = owned(bpf(GET_FD_BY_ID, &mut by_id).ok()?);
    let mut info = Info { _before: [0; 8], name: [0; 16], _between: [0; 14], nanos: 0, runs: 0 };
    let len = size_of::<Info>() as u32;
    let mut get = GetInfo { program: program.as_raw_fd() as u32, len, info: &raw mut info as u64 };
    bpf(OBJ_GET_INFO, &mut get).ok()?;
    let name = CStr::from_bytes_until_nul(&info.name).ok()?.to_string_lossy().into_owned();
    Some(Ran { id, name, nanos: info.nanos, runs: info.runs })
}

/// Programs in the kernel, whoever loaded them: a batch during which the number changes is not ours alone.
pub fn loaded() -> usize {
    let mut count = 0;
    let mut id = NextId { start: 0, next: 0, flags: 0 };
    while bpf(PROG_GET_NEXT_ID, &mut id).is_ok() {
        count += 1;
        id.start = id.next;
    }
    count
}
