//! What both sides of the ring buffer agree on: record layouts, the offsets table and the settings.
//!
//! No logic. Every record starts with a [`Header`]; sizes are asserted below so that a change of
//! layout is a change of [`ABI`], which a recording carries in its first bytes.
#![no_std]

/// Version of every layout in this file.
pub const ABI: u32 = 1;

/// Bytes kept of a request and of an answer.
pub const HEAD: usize = 256;
/// Fewer do not tell a status, so that many are looked at whatever shall be kept.
pub const LEAST_HEAD: usize = 24;
/// Bytes kept of a DNS message: enough for any name and the header.
pub const DNS: usize = 288;
/// `sun_path` of the kernel.
pub const PATH: usize = 108;
/// `TASK_COMM_LEN` of the kernel.
pub const COMM: usize = 16;

/// The kinds of record. The numbers are part of a recording: add, never renumber.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Kind {
    /// [`ConnRecord`]: a client connection of a proxy got an error status, bytes that are no HTTP, or nothing at all.
    Client = 1,
    /// [`ConnRecord`]: one request of a proxy on an upstream connection, handed over because it failed or was asked for.
    Attempt = 2,
    /// [`ConnectRecord`]: connect() failed in the call itself.
    Connect = 3,
    /// [`FlowRecord`]: the client went away while its request was unanswered.
    ClientLeft = 4,
    /// [`FlowRecord`]: a stack of this host sent a reset that concerns a known upstream.
    ResetSent = 5,
    /// [`FlowRecord`]: a packet of a known upstream was dropped on this host.
    Drop = 6,
    /// [`ListenRecord`]: a socket started to listen, or was found listening at start.
    Listen = 7,
    /// [`ListenRecord`]: a listening socket closed.
    Unlisten = 8,
    /// [`TaskRecord`]: a process that matters was executed.
    Exec = 9,
    /// [`TaskRecord`]: a process that matters forked.
    Fork = 10,
    /// [`TaskRecord`]: a process that matters exited.
    Exit = 11,
    /// [`TaskRecord`]: somebody sent a fatal signal to a process that matters.
    Signal = 12,
    /// [`TaskRecord`]: the OOM killer chose a victim.
    Oom = 13,
    /// [`DnsRecord`]: a proxy sent or received a DNS message.
    Dns = 14,
    /// [`FlowRecord`]: an upstream answered a client that an unseen error had been told of.
    Rescued = 15,
}

impl Kind {
    pub const ALL: [Kind; 15] = [
        Kind::Client,
        Kind::Attempt,
        Kind::Connect,
        Kind::ClientLeft,
        Kind::ResetSent,
        Kind::Drop,
        Kind::Listen,
        Kind::Unlisten,
        Kind::Exec,
        Kind::Fork,
        Kind::Exit,
        Kind::Signal,
        Kind::Oom,
        Kind::Dns,
        Kind::Rescued,
    ];

    /// One past the largest number, for tables indexed by kind.
    pub const COUNT: usize = 16;

    /// The word used in `trace502_events_total{kind}`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Client => "client",
            Kind::Attempt => "attempt",
            Kind::Connect => "connect",
            Kind::ClientLeft => "client_left",
            Kind::ResetSent => "reset_sent",
            Kind::Drop => "drop",
            Kind::Listen => "listen",
            Kind::Unlisten => "unlisten",
            Kind::Exec => "exec",
            Kind::Fork => "fork",
            Kind::Exit => "exit",
            Kind::Signal => "signal",
            Kind::Oom => "oom",
            Kind::Dns => "dns",
            Kind::Rescued => "rescued",
        }
    }
}

/// Tables of the kernel side that may be full when something is to be kept in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Upstream connections by their addresses: without its entry the other end is not known.
    Flows,
    /// Threads of proxies: without its entry an attempt is bound to no request.
    Threads,
    /// Who listens where: from then on nobody is said not to listen.
    Listeners,
    /// Processes that matter: without its entry a process's end is not told.
    Processes,
}

impl Table {
    pub const ALL: [Table; 4] = [Table::Flows, Table::Threads, Table::Listeners, Table::Processes];

    /// Where it is counted, behind the kinds.
    pub const fn slot(self) -> usize {
        Kind::COUNT + self as usize
    }

    /// The word used in `trace502_events_lost_total{where}`.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Flows => "table_flows",
            Table::Threads => "table_threads",
            Table::Listeners => "table_listeners",
            Table::Processes => "table_processes",
        }
    }
}

/// Counters of what could not be told or kept: slot 0 for payload that could not be read, the kinds, the tables.
pub const LOSSES: usize = Kind::COUNT + Table::ALL.len();

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

/// What a connection is to us.
pub const ROLE_NONE: u8 = 0;
/// A listening socket of a proxy; accepted sockets inherit a copy.
pub const ROLE_LISTENER: u8 = 1;
/// A proxy's connection to a client.
pub const ROLE_CLIENT: u8 = 2;
/// A proxy's connection to an upstream.
pub const ROLE_UPSTREAM: u8 = 3;
/// The upstream's own end of such a connection, on this host.
pub const ROLE_PEER: u8 = 4;
/// Bytes that we do not follow: TLS, HTTP/2, an upgraded or tunnelled connection.
pub const ROLE_OPAQUE: u8 = 5;
/// A UDP socket of a proxy that asks a name server without being connected to it.
pub const ROLE_RESOLVER: u8 = 6;
/// A client connection that speaks TLS: its story is told by the owner's TLS library.
pub const ROLE_SECURED: u8 = 7;
/// A client connection whose bytes nobody can read for us, but whose rhythm is followed.
pub const ROLE_SEALED: u8 = 8;
/// A client connection that speaks HTTP/2: each of its streams is a request.
pub const ROLE_H2: u8 = 9;

/// How far the current request of a connection is.
pub const PHASE_CONNECTING: u8 = 1;
/// Connected, nothing asked yet (a client that has sent nothing, an upstream that was sent nothing).
pub const PHASE_OPEN: u8 = 2;
/// The request went over (client: to the proxy; upstream: to it), no answer yet.
pub const PHASE_ASKED: u8 = 3;
/// The answer has begun.
pub const PHASE_ANSWERED: u8 = 4;

/// Flags of [`Conn`].
/// Found when the agent started: `opened` and the first request may be unknown.
pub const CONN_OLD: u16 = 1;
/// A second request was sent on it at least: the connection was reused.
pub const CONN_REUSED: u16 = 2;
/// A unix socket: no tuple.
pub const CONN_UNIX: u16 = 4;
/// The owner closed it (shutdown or close) before the other side did.
pub const CONN_CLOSED_FIRST: u16 = 8;
/// The other side's FIN came before any byte of the answer was there.
pub const CONN_FIN_EARLY: u16 = 16;
/// An answer began although no new request had been read (pipelining).
pub const CONN_AHEAD: u16 = 32;
/// Bound with more than one request to choose from.
pub const CONN_CHOICE: u16 = 64;
/// Bound as a retry of the request whose last attempt failed on this thread.
pub const CONN_RETRY: u16 = 128;
/// A system call whose buffer we cannot read carried payload of this connection.
pub const CONN_BLIND: u16 = 256;
/// The reset that ended it was received (not sent) by this socket.
pub const CONN_RESET: u16 = 512;
/// The current request has been handed over already.
pub const CONN_TOLD: u16 = 1024;
/// TLS: a request was sent, so the handshake had come to its end.
pub const CONN_APPLICATION: u16 = 2048;
/// What is known of it was seen inside the owner's TLS library.
pub const CONN_SECURED: u16 = 4096;
/// Upstream: it serves a client whose bytes cannot be read.
pub const CONN_SEALED: u16 = 8192;
/// Upstream: its owner closed it right behind the error of the client it is bound to, and did nothing between.
pub const CONN_ENDED: u16 = 16384;
/// Client (an upstream's bit says something else): right before the error, its writer's connect() had failed in the call.
pub const CONN_AFTER_CALL: u16 = 32768;
/// Upstream: opened by the proxy for itself, to see whether the upstream is well.
pub const CONN_CHECK: u16 = 32768;
/// Client (an upstream's bit says something else): a stream of HTTP/2. `request_head` is its header block, and `reply_head` that of the connection's first request, which
/// fills most of the table that later ones refer to.
pub const CONN_STREAM: u16 = 16384;

/// Set in the number of a request that is a stream of HTTP/2.
pub const STREAM: u32 = 1 << 31;
/// What `inserted` is where it is not known.
pub const UNCOUNTED: u32 = u32::MAX;

/// State of a tracked connection: lives in socket storage, and is what a [`ConnRecord`] carries.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Conn {
    pub cookie: u64,
    /// Upstream: cookie of the client connection it serves, 0 if unknown. Peer: cookie of the upstream connection.
    pub bound: u64,
    /// Upstream: which request of that client connection. Stream: how many entries the table of headers had been given
    /// before its block.
    pub bound_request: u32,
    /// Ordinal of the current request on this connection, from 1.
    pub request: u32,
    pub tgid: u32,
    pub tid: u32,
    pub role: u8,
    pub phase: u8,
    /// TCP state before it closed.
    pub last_state: u8,
    /// Requests that this thread could have meant when the connection was bound.
    pub choices: u8,
    pub flags: u16,
    /// Status of the answer, 0 if none was recognised.
    pub status: u16,
    /// The error the owner learnt (negative errno of its last failing call), 0 if none.
    pub errno: i32,
    /// Slot of this request in the thread's list of unserved requests.
    pub slot: u32,
    pub opened: u64,
    pub established: u64,
    /// When the current request began: first byte read from a client, first byte sent to an upstream.
    pub asked: u64,
    /// When the last request before it began.
    pub asked_before: u64,
    /// When the other side's FIN came, 0 if it did not.
    pub fin: u64,
    /// When the other side's reset came, 0 if it did not.
    pub reset: u64,
    /// Bytes of the current request and answer that went through the owner's system calls.
    pub request_bytes: u64,
    pub reply_bytes: u64,
    /// Upstream: where it was dialled. The kernel forgets it when a blocking connect() fails.
    pub tuple: Tuple,
    pub request_len: u16,
    pub reply_len: u16,
    /// Upstream: `PROC_*` of its owner, which says how its requests are bound.
    pub class: u32,
    pub request_head: [u8; HEAD],
    pub reply_head: [u8; HEAD],
}

/// What the kernel knew of a TCP socket at the moment of the record.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Tcp {
    pub state: u8,
    /// Retransmissions of the oldest unacknowledged segment (the SYN while connecting).
    pub retransmits: u8,
    pub _pad: u16,
    /// sk_err: the positive errno waiting for the owner.
    pub error: i32,
    /// Segments in flight.
    pub in_flight: u32,
    /// Bytes that arrived and were not read by the owner.
    pub unread: u32,
    /// The window that the other side advertises.
    pub window: u32,
    /// Milliseconds since the last data segment came, and went, as exact as a jiffy. u32::MAX: never.
    pub idle_in_ms: u32,
    pub idle_out_ms: u32,
    /// Bytes written by the owner that the other side has not acknowledged.
    pub unacked: u32,
}

/// The other end of an upstream connection, as far as it lives on this host.
pub const PEER_NONE: u8 = 0;
/// Its socket exists (or existed): the fields are what was seen last.
pub const PEER_SEEN: u8 = 1;

/// Flags of [`Peer`].
/// The application has accepted it.
pub const PEER_ACCEPTED: u8 = 1;
/// Its socket still exists; what is said of it is of this moment.
pub const PEER_LIVE: u8 = 2;
/// Its owner closed it (close, shutdown or exit) before the proxy did.
pub const PEER_CLOSED_FIRST: u8 = 4;
/// It received a reset from the proxy's side.
pub const PEER_GOT_RESET: u8 = 8;
/// It, or the stack in its name, sent a reset.
pub const PEER_SENT_RESET: u8 = 16;
/// It had unread bytes when its owner closed it.
pub const PEER_UNREAD: u8 = 32;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Peer {
    /// Kernel address of its socket: only the kernel side uses it, together with the cookie.
    pub sk: u64,
    pub cookie: u64,
    /// When its owner closed it, 0 if it did not.
    pub closed: u64,
    /// Who reads it, and who closed it.
    pub tgid: u32,
    pub closed_tgid: u32,
    /// Bytes it received and did not read (now, or when it was closed).
    pub unread: u32,
    /// Reason of the reset that its stack sent, in the kernel's numbering, 0 if none or unknown.
    pub reset_reason: u32,
    pub netns: u32,
    pub seen: u8,
    pub state: u8,
    pub flags: u8,
    pub _pad: u8,
}

/// The listener that an upstream connection was meant for, read at the moment of the record.
pub const LISTENER_UNKNOWN: u8 = 0;
pub const LISTENER_ABSENT: u8 = 1;
pub const LISTENER_PRESENT: u8 = 2;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Listener {
    pub cookie: u64,
    pub tgid: u32,
    /// Connections waiting to be accepted, and how many may wait.
    pub queue: u32,
    pub limit: u32,
    pub seen: u8,
    pub _pad: [u8; 3],
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

/// What a process is to us: a proxy.
pub const PROC_PROXY: u32 = 1;
/// Owns, or is a child of one that owns, a listening socket that a proxy could dial.
pub const PROC_OWNER: u32 = 2;
/// Bind the oldest unserved request, not the last one read (HAProxy).
pub const PROC_OLDEST: u32 = 4;
/// Its threads pass requests around (Go): what a thread read last is only a hint.
pub const PROC_LOOSE: u32 = 8;
/// It closes the upstream connection after it wrote the error to the client (HAProxy, lighttpd).
pub const PROC_LATE: u32 = 16;
/// Its TLS library is hooked: what clients say inside TLS will be seen.
pub const PROC_TLS: u32 = 32;
/// It reads the body of a request to its end before it asks an upstream (nginx).
pub const PROC_WHOLE: u32 = 64;

/// A client request that a thread read and that nobody serves yet.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Waiting {
    pub client: u64,
    pub request: u32,
    /// Since when, in microseconds of the monotonic clock, cut to 32 bits.
    pub since: u32,
}

/// Requests that one thread may have read and not served before older ones are forgotten.
pub const WAITING: usize = 64;
/// Requests of one thread that may wait for another try.
pub const DELAYED: usize = 16;

/// A call of the TLS library that a thread is in: its first four arguments.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TlsCall {
    /// Address of the connection's `SSL`, 0 while there is none.
    pub ssl: u64,
    pub buffer: u64,
    pub len: u64,
    /// Where the calls that answer with success or failure put how many bytes they moved.
    pub moved: u64,
}

/// What a thread of a proxy did last: all that binding an attempt to a request needs.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Thread {
    pub last: Waiting,
    /// The request whose attempt failed last on this thread, as long as the thread read nothing since.
    pub retry: Waiting,
    /// What was bound last.
    pub bound: Waiting,
    /// What was answered last.
    pub answered: Waiting,
    /// What the thread did last was to write an error to this client: what it closes next led to it (`PROC_LATE`).
    pub closing: Waiting,
    /// A bit for each slot of `waiting` that holds a request.
    pub open: u64,
    /// The same for those that are streams of HTTP/2.
    pub streams: u64,
    pub tail: u32,
    pub live: u32,
    /// What the thread did last was a connect() that failed in the call.
    pub in_call: u32,
    /// It serves clients whose bytes cannot be read.
    pub sealed: u32,
    /// Attempts that it has begun.
    pub births: u32,
    pub _pad: u32,
    /// Healthy traffic, for the display: requests read, answers begun.
    pub requests: u64,
    pub answers: u64,
    /// Client whose upstream answered this thread with what is no HTTP, as long as the thread tried no other.
    pub garbled: u64,
    pub call: TlsCall,
    pub waiting: [Waiting; WAITING],
    /// Requests whose attempt failed, in order, for a proxy that tries again after a while (`PROC_OLDEST`).
    pub delayed: [Waiting; DELAYED],
    pub delayed_head: u32,
    pub delayed_tail: u32,
}

/// Address and port of an upstream.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Target {
    pub addr: [u8; 16],
    pub port: u16,
    pub _pad: [u8; 6],
}

/// Who dialled which upstream.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Dialled {
    pub addr: [u8; 16],
    pub tgid: u32,
    pub port: u16,
    pub _pad: u16,
}

/// Powers of two of microseconds in a histogram of connects.
pub const CONNECT_BUCKETS: usize = 24;

/// How long connects took.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ConnectTimes {
    /// Connects of less than 1, 2, 4, 8 ... microseconds; the last one takes all that are longer.
    pub counts: [u64; CONNECT_BUCKETS],
    pub micros: u64,
}

/// Struct members of the running kernel, resolved from its BTF: byte offsets.
/// `u32::MAX` marks a member that this kernel lacks.
macro_rules! offsets {
    ($($name:ident = $strukt:literal . $member:literal),* $(,)?) => {
        #[derive(Clone, Copy)]
        #[repr(C)]
        pub struct Offsets { $(pub $name: u32),* }

        impl Offsets {
            pub const NONE: Offsets = Offsets { $($name: u32::MAX),* };
            /// (field, struct, member path) of each, in order.
            pub const TABLE: &'static [(&'static str, &'static str, &'static str)] =
                &[$((stringify!($name), $strukt, $member)),*];

            /// Asks for the offset of each (field, struct, member path), in order.
            pub fn resolve(mut offset: impl FnMut(&'static str, &'static str, &'static str) -> u32) -> Offsets {
                Offsets { $($name: offset(stringify!($name), $strukt, $member)),* }
            }
        }
    };
}

offsets! {
    sk_family = "sock_common"."skc_family",
    sk_state = "sock_common"."skc_state",
    sk_num = "sock_common"."skc_num",
    sk_dport = "sock_common"."skc_dport",
    sk_saddr = "sock_common"."skc_rcv_saddr",
    sk_daddr = "sock_common"."skc_daddr",
    sk_saddr6 = "sock_common"."skc_v6_rcv_saddr",
    sk_daddr6 = "sock_common"."skc_v6_daddr",
    sk_net = "sock_common"."skc_net.net",
    sk_cookie = "sock_common"."skc_cookie",
    sk_sport = "inet_sock"."inet_sport",
    sk_protocol = "sock"."sk_protocol",
    sk_type = "sock"."sk_type",
    sk_err = "sock"."sk_err",
    sk_err_soft = "sock"."sk_err_soft",
    sk_error_queue = "sock"."sk_error_queue.next",
    sk_socket = "sock"."sk_socket",
    sk_shutdown = "sock"."sk_shutdown",
    sk_ack_backlog = "sock"."sk_ack_backlog",
    sk_max_ack_backlog = "sock"."sk_max_ack_backlog",
    sk_receive_qlen = "sock"."sk_receive_queue.qlen",
    net_ns_inum = "net"."ns.inum",
    socket_sk = "socket"."sk",
    icsk_retransmits = "inet_connection_sock"."icsk_retransmits",
    icsk_pingpong = "inet_connection_sock"."icsk_ack.pingpong",
    icsk_lrcvtime = "inet_connection_sock"."icsk_ack.lrcvtime",
    tp_packets_out = "tcp_sock"."packets_out",
    tp_snd_una = "tcp_sock"."snd_una",
    tp_write_seq = "tcp_sock"."write_seq",
    tp_snd_wnd = "tcp_sock"."snd_wnd",
    tp_rcv_nxt = "tcp_sock"."rcv_nxt",
    tp_copied_seq = "tcp_sock"."copied_seq",
    tp_lsndtime = "tcp_sock"."lsndtime",
    unix_peer = "unix_sock"."peer",
    unix_addr = "unix_sock"."addr",
    unix_addr_len = "unix_address"."len",
    unix_addr_name = "unix_address"."name",
    skb_cb = "sk_buff"."cb",
    exterr_ee = "sock_exterr_skb"."ee",
    skb_head = "sk_buff"."head",
    skb_network = "sk_buff"."network_header",
    skb_protocol = "sk_buff"."protocol",
    skb_dev = "sk_buff"."dev",
    dev_net = "net_device"."nd_net.net",
    task_tgid = "task_struct"."tgid",
    task_pid = "task_struct"."pid",
    task_comm = "task_struct"."comm",
    task_exit_code = "task_struct"."exit_code",
    task_mm = "task_struct"."mm",
    task_parent = "task_struct"."real_parent",
    task_signal = "task_struct"."signal",
    task_nsproxy = "task_struct"."nsproxy",
    task_cgroups = "task_struct"."cgroups",
    css_set_group = "css_set"."dfl_cgrp",
    group_node = "cgroup"."kn",
    node_id = "kernfs_node"."id",
    nsproxy_net = "nsproxy"."net_ns",
    signal_group_exit_code = "signal_struct"."group_exit_code",
    signal_live = "signal_struct"."live",
    // The first counter; the next ones are `Settings::rss_stride` apart.
    mm_rss = "mm_struct"."rss_stat.count",
    siginfo_code = "kernel_siginfo"."si_code",
}

/// Kernel facts that change what a program does, resolved before load and constant afterwards.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Settings {
    /// `tcp_send_reset` has a reason as its third argument (6.10).
    pub reset_reason: u32,
    /// `mark_victim` gets the task (6.9), not the pid.
    pub victim_task: u32,
    /// Stride of one `mm_struct.rss_stat` counter; 0 when it cannot be read.
    pub rss_stride: u32,
    /// Bytes of each head that are kept, up to [`HEAD`].
    pub head: u32,
    /// Number of possible CPUs.
    pub cpus: u32,
    /// Microseconds of one jiffy.
    pub jiffy_us: u32,
    /// HTTP/2 inside TLS is followed: this kernel's verifier can be shown that it ends.
    pub h2: u32,
    /// Which bit of a socket says that it takes IPv6 alone, counted from its start; `u32::MAX` when it cannot be read.
    pub only_v6: u32,
    /// Drop reasons worth telling, a bit each. The others belong to every healthy connection's end.
    pub drops: [u64; 4],
}

const _: () = {
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Tuple>() == 40);
    assert!(size_of::<Conn>() == 160 + 2 * HEAD);
    assert!(size_of::<Tcp>() == 32);
    assert!(size_of::<Peer>() == 48);
    assert!(size_of::<Listener>() == 24);
    assert!(size_of::<ConnRecord>().is_multiple_of(8));
    assert!(size_of::<ConnectRecord>().is_multiple_of(8));
    assert!(size_of::<FlowRecord>().is_multiple_of(8));
    assert!(size_of::<ListenRecord>().is_multiple_of(8));
    assert!(size_of::<TaskRecord>().is_multiple_of(8));
    assert!(size_of::<DnsRecord>().is_multiple_of(8));
};
