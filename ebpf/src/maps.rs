//! Every map and every global of the kernel side. Sizes are defaults; user space may override them before load.

use crate::sealed::Story;
use crate::sum::Sum;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::macros::btf_map;
use trace502_ebpf::{
    COMM, Conn, ConnRecord, ConnectTimes, Dialled, GROUP_PATH, GROUPS, Group, LOSSES, Offsets, Peer, Settings, Target,
    Tcp, Thread,
};

mod h2;
pub use h2::*;

/// Byte offsets of the running kernel, constant to the verifier.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::NONE;

/// What differs between kernels, constant to the verifier.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    reset_reason: 0,
    victim_task: 0,
    rss_stride: 0,
    head: trace502_ebpf::HEAD as u32,
    cpus: 1,
    jiffy_us: 4000,
    only_v6: u32::MAX,
    mptcp_first: u32::MAX,
    places: 16384,
    flows: 131072,
    _pad: 0,
    found: 0,
    drops: [0; 4],
};

/// Reads one constant so that the compiler does not fold it and the verifier does.
macro_rules! constant {
    ($global:ident . $field:ident) => {
        // SAFETY: a static of plain integers; volatile because the loader rewrites it.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::$global.$field) }
    };
}
pub(crate) use constant;

/// A tracked connection. Socket storage would cost two allocations that are accounted for and freed behind a grace
/// period, some two microseconds for each connection; a place costs nothing.
#[repr(C)]
pub struct Place {
    pub conn: Conn,
    /// Kernel address of its socket, which tells whether it still lives.
    pub sk: u64,
    /// Upstream: its other end on this host, from when it was established.
    pub peer: Peer,
    /// Upstream that ended and looked well: when, and how its socket was.
    pub ended: u64,
    pub tcp: Tcp,
    /// Client: the last attempt that did so for it: its cookie, its place, and which request it was made for.
    pub last: u64,
    pub last_place: u32,
    pub last_request: u32,
}

/// Connections. How many there is room for is set at load.
#[btf_map]
pub static PLACES: Array<Place, 16384> = Array::new();

/// Places in a group; see `places`.
pub const WAYS: usize = 4;

/// Who has which places of a group: cookies, 0 for nobody.
#[btf_map]
pub static TAGS: Array<[u64; WAYS], { 16384 / WAYS }> = Array::new();

const BPF_F_CLONE: usize = 1 << 9;

/// Socket storage that is copied from a listener to the sockets accepted from it (`BPF_F_CLONE`, 5.4).
#[repr(C)]
pub struct ClonedMark {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const u32,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize | BPF_F_CLONE],
}

// SAFETY: the pointers are placeholders for the loader and never dereferenced.
unsafe impl Sync for ClonedMark {}

/// Listeners of MPTCP that are proxies', and what was accepted from them.
#[btf_map]
pub static MPTCP_LISTENERS: ClonedMark = ClonedMark {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// What proxies did with a port.
#[repr(C)]
pub struct PortUse {
    /// The network namespace in which one listened on it: who is accepted there may be its client. 0 for none.
    pub served: u64,
    /// Not 0 where one dials or dialled it, from whatever namespace: who is accepted there may be its other end.
    pub dialled: u64,
}

#[btf_map]
pub static PORTS: Array<PortUse, 65536> = Array::new();

/// In `PortUse::served`: proxies of several namespaces did.
pub const ANYWHERE: u64 = u64::MAX;

/// The one way to user space. The type is not used: records differ in size.
#[btf_map]
pub static EVENTS: RingBuf<u64, { 8 << 20 }> = RingBuf::new();

/// What could not be told or kept; slot 0: payload that could not be read, then records that did not fit into the
/// ring buffer by kind, then entries for which a table had no room.
#[btf_map]
pub static LOST: PerCpuArray<u64, { LOSSES }> = PerCpuArray::new();

/// Not 0 once a listener was not kept, or may have been counted wrong; the second: while there is one whose port is not
/// known yet. Then nobody is said not to listen.
#[btf_map]
pub static LISTENERS_MISSING: Array<u32, 2> = Array::new();

/// Processes that matter, by process id: `PROC_*`.
#[btf_map]
pub static PROCS: HashMap<u32, u32, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Names of executables that are proxies: `PROC_*` to give them.
#[btf_map]
pub static NAMES: HashMap<[u8; COMM], u32, 256, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Cgroups whose processes are proxies. The first one that is all zeros ends them.
#[btf_map]
pub static CGROUPS: Array<Group, { GROUPS }> = Array::new();

/// Where in `CGROUPS` the cgroup with this path is, zeros behind it.
#[btf_map]
pub static CGROUP_PATHS: HashMap<[u8; GROUP_PATH], u32, { GROUPS }> = HashMap::new();

/// Room for a path: it would be half of the stack.
#[btf_map]
pub static SCRATCH_PATH: PerCpuArray<[u8; GROUP_PATH], 1> = PerCpuArray::new();

/// Names under which processes run that listened: their successors are worth watching.
#[btf_map]
pub static OWNER_NAMES: LruHashMap<[u8; COMM], u32, 1024> = LruHashMap::new();

/// Never written: what a new thread starts from.
#[btf_map]
pub static SCRATCH_THREAD: PerCpuArray<Thread, 1> = PerCpuArray::new();

#[btf_map]
pub static THREADS: HashMap<u32, Thread, 32768, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Where upstream connections have their places, by their addresses: see `flow`. 0 for none.
#[btf_map]
pub static ENDS: Array<[u64; WAYS], { 131072 / WAYS }> = Array::new();

/// The other end of a proxy's unix connection: sockets of that family seldom have a cookie, and no hook sees them accepted.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct UnixPeer {
    /// Kernel address and cookie of the proxy's socket, which tell it from a later one at the same address.
    pub owner: u64,
    pub cookie: u64,
    /// Who read from it last, 0 as long as nobody did.
    pub tgid: u32,
    pub _pad: u32,
}

/// By the kernel address of its socket.
#[btf_map]
pub static UNIX_PEERS: LruHashMap<u64, UnixPeer, 16384> = LruHashMap::new();

/// Every upstream that a proxy dialled lately.
#[btf_map]
pub static TARGETS: LruHashMap<Target, u64, 16384> = LruHashMap::new();

/// How many refusals of a process were told since a moment.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Refusals {
    pub since: u64,
    pub told: u64,
}

/// By the process that was refused: see `probes::state::refused`.
#[btf_map]
pub static REFUSALS: LruHashMap<u32, Refusals, 1024> = LruHashMap::new();

/// Who listens where; several sockets may share one address (SO_REUSEPORT).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ListenKey {
    pub addr: [u8; 16],
    pub netns: u32,
    pub port: u16,
    pub _pad: u16,
}

/// Who listens on an address. Several CPUs add and take away at the same time, so each is a sum: of one socket that is
/// left, the sums are what it is.
#[repr(C)]
pub struct ListenState {
    pub count: Sum,
    /// Kernel addresses, cookies and processes of the sockets.
    pub sk: Sum,
    pub cookie: Sum,
    pub tgid: Sum,
    /// 1 for a wildcard of IPv6 that does not take IPv4.
    pub only_v6: u64,
}

#[btf_map]
pub static LISTENERS: HashMap<ListenKey, ListenState, 32768, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Never written: what a new address starts from.
#[btf_map]
pub static NO_LISTENERS: PerCpuArray<ListenState, 1> = PerCpuArray::new();

/// A listening socket that was counted in `LISTENERS`: where, and whose it is.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Listens {
    pub key: ListenKey,
    pub tgid: u32,
    pub _pad: u32,
}

/// By cookie.
#[btf_map]
pub static LISTENER_KEYS: HashMap<u64, Listens, 32768, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Who has a listening socket of MPTCP open.
#[repr(C)]
pub struct Owner {
    pub tgid: u32,
    pub _pad: u32,
    pub cgroup: u64,
    pub comm: [u8; COMM],
}

/// Owners by the kernel address of the socket of TCP beneath, from one walk at the start to the next.
#[btf_map]
pub static BENEATH: LruHashMap<u64, Owner, 1024> = LruHashMap::new();

/// The last attempt of a client connection that looked well when it ended, by the client's cookie:
/// handed over when that client gets an error after all.
#[btf_map]
pub static RECENT: LruHashMap<u64, ConnRecord, 4096> = LruHashMap::new();

/// What is said inside TLS, by the cookie of the connection. It goes when the connection closes.
#[btf_map]
pub static SECURED: HashMap<u64, Conn, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// A connection as the TLS library of a process calls it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TlsKey {
    pub ssl: u64,
    pub tgid: u32,
    pub _pad: u32,
}

/// Cookies of the connections in `SECURED`.
#[btf_map]
pub static TLS_KEYS: HashMap<TlsKey, u64, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// How the library calls each of the connections in `SECURED`.
#[btf_map]
pub static TLS_NAMES: HashMap<u64, TlsKey, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// A function that a goroutine is in.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct GoKey {
    pub goroutine: u64,
    pub tgid: u32,
    pub function: u32,
}

/// What it was called with: its first two arguments.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct GoCall {
    pub of: u64,
    pub buffer: u64,
}

/// Calls of Go that have not returned: each idle client has one. Full, it refuses the next, which is known then; a table
/// that made room by itself would lose one that nobody knows of. A panic leaves a call behind, and the end of its
/// process, where user space takes them out.
#[btf_map]
pub static GO_CALLS: HashMap<GoKey, GoCall, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// By process id, which hooks of a Go program count: those that were told this number. After a program has become its next
/// version, its hooks and the new ones may stand at the same place for a while.
#[btf_map]
pub static GO_TURNS: HashMap<u32, u32, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Programs that go on with a call of Go as with one of any other TLS library: `GO_*`.
#[btf_map]
pub static GO_ON: ProgramArray<2> = ProgramArray::new();

/// What became of the last attempt for a client whose bytes cannot be read, by the client's cookie.
#[btf_map]
pub static SEALED: LruHashMap<u64, Story, 16384> = LruHashMap::new();

/// Room to put a record together: it is larger than the stack.
#[btf_map]
pub static SCRATCH: PerCpuArray<ConnRecord, 1> = PerCpuArray::new();

/// How long connects took, by proxy process and upstream.
#[btf_map]
pub static CONNECT_TIMES: LruHashMap<Dialled, ConnectTimes, 4096> = LruHashMap::new();

/// Never written: what a new histogram starts from.
#[btf_map]
pub static NO_CONNECTS: PerCpuArray<ConnectTimes, 1> = PerCpuArray::new();
