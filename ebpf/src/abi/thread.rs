//! What is kept of processes and their threads, and of the addresses that they dial.

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
/// It is a proxy because of the cgroup that it is in, and no longer than that.
pub const PROC_CGROUP: u32 = 128;
/// It is a proxy because of what it does: it listens, and it dials.
pub const PROC_FOUND: u32 = 256;
/// It has, or had, a TCP socket that listens. Kept only where proxies are to be found by what they do.
pub const PROC_LISTENS: u32 = 512;
/// It begins what it needs for all streams that it read before it minds what failed (Envoy).
pub const PROC_POOLED: u32 = 1024;
/// The highest of them, and all below.
pub const PROC_ALL: u32 = 2 * PROC_POOLED - 1;

/// Cgroups whose processes are proxies: this many may be named.
pub const GROUPS: usize = 16;
/// Bytes of the path of one, with the zero at its end.
pub const GROUP_PATH: usize = 256;

/// A cgroup whose processes are proxies.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Group {
    /// 0 while there is none of that name.
    pub id: u64,
    /// How far below the root it is.
    pub level: u32,
    /// `PROC_*` of the processes in it.
    pub class: u32,
}

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

/// Streams that a thread read one behind the other, and the connections that it began for them right behind that: one
/// for each at most, in the same order (`PROC_POOLED`).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Turn {
    pub number: u32,
    pub read: u16,
    pub begun: u16,
}

/// Turns of one thread that are known until their streams are answered.
pub const TURNS: usize = 32;
/// More was begun than was read: in this turn nothing follows from the order.
pub const DISORDER: u16 = u16::MAX;

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

/// A call of the TLS library answers with success or failure, and puts how many bytes it moved where its fourth argument
/// points; without it the answer is how many.
pub const TLS_SUCCESS: u64 = 1;
/// Not the fourth argument, the fifth.
pub const TLS_FIFTH: u64 = 2;
/// A failure of such a call does not tell the end of a connection from what only has to wait.
pub const TLS_VAGUE: u64 = 4;
/// The call is one of Go's crypto/tls.
pub const TLS_GO: u64 = 8;
/// The reason of an error is the third argument, not the second (OpenSSL 1.1).
pub const TLS_THIRD: u64 = 16;
/// The library is BoringSSL, which has numbers of its own.
pub const TLS_BORING: u64 = 32;
/// The call makes a handshake.
pub const TLS_SHAKES: u64 = 64;
/// The call writes.
pub const TLS_WRITES: u64 = 128;
/// From this bit on, in which turn the hook was attached: see `GO_TURNS`.
pub const GO_TURN: u32 = 32;

/// Programs that go on with a call of Go, by their place in `GO_ON`.
pub const GO_READ: u32 = 0;
pub const GO_WRITES: u32 = 1;

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
    /// What the thread did last was to close this upstream connection, which had failed (`PROC_LATE`): its cookie.
    pub ended: u64,
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
    /// How often it had gone to sleep when `closing`, `in_call` or `ended` was set: asleep, it serves somebody else.
    pub sleeps: u32,
    /// Healthy traffic, for the display: requests read, answers begun.
    pub requests: u64,
    pub answers: u64,
    /// Client whose upstream answered this thread with what is no HTTP, as long as the thread tried no other.
    pub garbled: u64,
    pub call: TlsCall,
    /// What kind of call that is: `TLS_*`.
    pub doing: u64,
    /// `SSL` whose certificate the thread asked about last, as long as it called nothing else for any.
    pub verdict: u64,
    pub waiting: [Waiting; WAITING],
    /// Requests whose attempt failed, in order, for a proxy that tries again after a while (`PROC_OLDEST`).
    pub delayed: [Waiting; DELAYED],
    pub delayed_head: u32,
    pub delayed_tail: u32,
    /// Client whose streams the thread reads, or begins connections for, and has done nothing else since; 0 if none.
    pub turning: u64,
    /// Number of the last turn.
    pub turn: u32,
    /// How often the thread had gone to sleep when it read the last stream of it.
    pub turned: u32,
    /// Streams that it has read since none was waiting.
    pub together: u32,
    pub _pad: u32,
    pub turns: [Turn; TURNS],
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
