//! The records of the ring buffer.

use super::{COMM, Conn, DNS, Listener, PATH, Peer, Tcp};

/// First bytes of every record.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Header {
    pub kind: u16,
    /// Why it was handed over: `WHY_*` for connections, other small numbers where a record says so.
    pub why: u16,
    /// Bytes of the whole record.
    pub len: u32,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub at: u64,
    /// The process and thread in whose context the hook ran. They say something only where `IN_TASK` is set.
    pub tgid: u32,
    pub tid: u32,
}

/// Set in `why`: the hook ran in the context of the process that acted, not in an interrupt.
pub const IN_TASK: u16 = 0x8000;

/// Why a client connection was handed over.
pub const WHY_STATUS: u16 = 1;
pub const WHY_GARBLED: u16 = 2;
pub const WHY_CLOSED: u16 = 3;
/// An answer that cannot be read, right after an attempt for it failed.
pub const WHY_UNSEEN: u16 = 7;
/// Why an upstream connection was handed over.
pub const WHY_FAILED: u16 = 4;
/// It had answered, with 502, 503 or 504, or with bytes that are no HTTP; the connection goes on.
pub const WHY_ANSWERED: u16 = 5;
/// It looked well, but the client it served got an error.
pub const WHY_ASKED: u16 = 6;

/// Both ends of a socket. IPv4 is kept as an IPv4-mapped address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Tuple {
    pub local: [u8; 16],
    pub remote: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    /// Inode number of the network namespace; 0 in keys that span namespaces.
    pub netns: u32,
}

/// A client connection or an attempt, with everything that was known of it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ConnRecord {
    pub header: Header,
    pub tuple: Tuple,
    pub comm: [u8; COMM],
    /// cgroup v2 id of the owner.
    pub cgroup: u64,
    pub conn: Conn,
    pub tcp: Tcp,
    pub peer: Peer,
    pub listener: Listener,
    /// Path of the unix socket, zero-terminated; an abstract name begins with a zero byte.
    pub path: [u8; PATH],
    pub path_len: u32,
}

/// In `choices` of a connect() that failed: what [`CONN_IN_TURN`](super::CONN_IN_TURN) says.
pub const CONNECT_IN_TURN: u16 = 256;

/// connect() failed in the call itself.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ConnectRecord {
    pub header: Header,
    /// `remote` and `remote_port` are set for TCP.
    pub tuple: Tuple,
    pub comm: [u8; COMM],
    pub cgroup: u64,
    /// Socket and client it would have served, 0 if unknown.
    pub cookie: u64,
    pub bound: u64,
    pub bound_request: u32,
    /// Positive errno.
    pub errno: i32,
    /// AF_INET, AF_INET6, AF_UNIX.
    pub family: u16,
    /// As in [`Conn`], and [`CONNECT_IN_TURN`].
    pub choices: u16,
    pub listener: Listener,
    pub path: [u8; PATH],
    pub path_len: u32,
}

/// Something that happened to a packet or a flow.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FlowRecord {
    pub header: Header,
    /// As the sender of the packet saw it: `local` sent it.
    pub tuple: Tuple,
    pub cookie: u64,
    /// Address of the kernel function that dropped the packet.
    pub location: u64,
    /// Reason in the kernel's numbering (reset or drop), 0 if the kernel gives none.
    pub reason: u32,
    /// Request of the client connection that left.
    pub request: u32,
    /// TCP state of the socket, 0 if there is none.
    pub state: u8,
    /// TCP flags of the packet.
    pub tcp_flags: u8,
    /// 1 when a socket of this host took part.
    pub has_socket: u8,
    pub _pad: [u8; 5],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct ListenRecord {
    pub header: Header,
    pub tuple: Tuple,
    pub comm: [u8; COMM],
    pub cgroup: u64,
    pub cookie: u64,
    pub queue: u32,
    pub limit: u32,
    pub family: u16,
    /// 1 when the owner is a tracked proxy.
    pub proxy: u16,
    pub path_len: u32,
    pub path: [u8; PATH],
    pub _pad: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct TaskRecord {
    pub header: Header,
    /// The process it is about: executed, forked, exited, signalled, chosen.
    pub tgid: u32,
    /// Its parent (fork), or the sender (signal).
    pub other: u32,
    pub comm: [u8; COMM],
    /// Name of the sender of a signal.
    pub other_comm: [u8; COMM],
    /// cgroup v2 id of the process it is about, 0 where it cannot be read.
    pub cgroup: u64,
    /// Exit code as wait() shows it; signal number for a signal.
    pub code: u32,
    /// `PROC_*` of the process.
    pub class: u32,
    /// Pages of resident memory (OOM).
    pub rss_pages: u64,
    /// si_code of a signal: > 0 is made by the kernel.
    pub si_code: i32,
    pub _pad: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct DnsRecord {
    pub header: Header,
    pub tuple: Tuple,
    /// 0: the proxy asked. 1: the answer it read.
    pub received: u32,
    /// Bytes of the message kept, and in all.
    pub kept: u32,
    pub total: u32,
    pub _pad: u32,
    pub message: [u8; DNS],
}
