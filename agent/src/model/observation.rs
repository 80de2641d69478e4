//! One fact from the kernel, decoded. Facts, never verdicts.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZero;

use serde::{Deserialize, Serialize};

use crate::text::{self, Address};

/// CLOCK_MONOTONIC in nanoseconds. Wall clock is asked of the host, only for display.
pub type Nanos = u64;

/// The kernel's identity of a socket; never reused while the host is up.
pub type Cookie = u64;

#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    pub at: Nanos,
    /// Process and thread in whose context it happened; `None` from an interrupt.
    pub task: Option<Task>,
    pub fact: Fact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    pub pid: u32,
    pub tid: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A client connection of a proxy got an error.
    Client(ClientError),
    /// One request of a proxy on an upstream connection that failed, or was asked for.
    Attempt(Box<Attempt>),
    /// connect() failed in the call itself; there is no connection.
    ConnectFailed(ConnectFailed),
    /// A client went away while its request was unanswered.
    ClientLeft {
        client: Cookie,
        request: u32,
    },
    /// An upstream answered a client whose bytes cannot be read, after an attempt for it had failed.
    Rescued {
        client: Cookie,
    },
    ResetSent(Packet),
    Dropped(Packet),
    Listening(Listening),
    /// The listening socket with this cookie closed.
    ListenerClosed(Listening),
    Exec(Proc),
    /// A running process is a proxy from now on, or is none any more: by its cgroup, or by what it does.
    Became(Proc),
    /// `parent` forked `child`.
    Fork {
        parent: u32,
        child: Proc,
    },
    /// Wait status as wait() shows it.
    Exit {
        proc: Proc,
        /// Whose child it was, where that is known.
        parent: Option<u32>,
        status: ExitStatus,
    },
    Signal {
        target: Proc,
        signal: i32,
        sender: Proc,
        from_kernel: bool,
    },
    OomKill {
        victim: Proc,
        rss_bytes: Option<u64>,
    },
    Dns(Dns),
    /// The process in whose context this is was refused where it connected to; it serves a proxy.
    DialFailed(Dial),
}

/// A connection that did not come about, of somebody who is no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    pub to: SocketAddr,
    pub errno: i32,
}

/// Addresses of both ends, IPv4-mapped ones already unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Inode of the network namespace, 0 if unknown.
    pub netns: u32,
}

/// Where an upstream is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Endpoint {
    Tcp(SocketAddr),
    /// Path of a unix socket; an abstract one starts with `@`.
    Unix(String),
}

impl Endpoint {
    /// For a sentence or a record: a path is foreign text.
    pub fn place(&self) -> String {
        match self {
            Endpoint::Tcp(_) => self.to_string(),
            Endpoint::Unix(_) => text::clipped(&self.to_string(), 140),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(addr) => Address(addr).fmt(f),
            Endpoint::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// `::ffff:a.b.c.d` as the IPv4 address that it is.
pub fn unmap(bytes: [u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(bytes);
    match v6.to_ipv4_mapped() {
        Some(v4) => IpAddr::V4(v4),
        None => IpAddr::V6(v6),
    }
}

/// How an error on a client connection was seen by the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientOutcome {
    /// An answer with this status: 500, 502, 503, 504.
    Status(u16),
    /// Bytes that are no HTTP response.
    Garbled,
    /// The proxy closed it with the request unanswered.
    Closed,
    /// An answer that could not be read was written after every attempt had failed.
    Unseen,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClientError {
    pub outcome: ClientOutcome,
    pub conn: Connection,
}

/// Why an attempt was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// It ended without a usable answer.
    Failed,
    /// Its answer was 502, 503, 504 or no HTTP; the connection goes on.
    Answered,
    /// It looked well, but its client got an error.
    Asked,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub handover: Handover,
    pub endpoint: Endpoint,
    pub conn: Connection,
    /// The client request it served, where the kernel side could bind it.
    pub bound: Option<Bound>,
    /// What TCP knew at that moment; `None` for unix sockets.
    pub tcp: Option<Tcp>,
    /// The upstream's own end, where it lives on this host.
    pub peer: Option<Peer>,
    /// The listener it was meant for, where the kernel side could tell.
    pub listener: ListenerSeen,
    /// What the owner's TLS library made of the handshake, where it was asked.
    pub handshake: Option<Handshake>,
    /// What was asked in HTTP/2, as HTTP/1 would have it; empty where that is not known.
    pub stream_head: Vec<u8>,
}

/// The client request that an attempt serves, as bound at its birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bound {
    pub client: Cookie,
    pub request: u32,
    /// How many requests of that thread it could have been (1: no choice).
    pub choices: u8,
    /// It was bound as the retry of the attempt that failed just before on that thread.
    pub retry: bool,
    /// Not a matter of its birth: its owner closed it right behind the error of this very request.
    pub proven: bool,
}

/// A connection of a proxy, to a client or to an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    pub cookie: Cookie,
    /// `None` for unix sockets.
    pub flow: Option<Flow>,
    pub owner: Task,
    pub comm: String,
    pub cgroup: u64,
    pub phase: Phase,
    /// Ordinal of the current request on it, from 1.
    pub request: u32,
    /// Not the first request on it.
    pub reused: bool,
    /// It existed before the agent did.
    pub old: bool,
    /// The proxy closed it before the other side did.
    pub closed_first: bool,
    /// The answer began although no new request had been read: pipelining.
    pub ahead: bool,
    /// To an upstream: begun right behind the streams that were read together with the one that it is bound to, in their
    /// order.
    pub in_turn: bool,
    /// A stream: one more than the streams that were read together with it and for which no connection was begun, where
    /// that is known. Its own is the one that is bound to it, or to one of so many before it.
    pub begun_for: Option<NonZero<u8>>,
    /// TLS: application data was sent, so the handshake had come to its end.
    pub application: bool,
    /// What is known of it was seen inside the owner's TLS library.
    pub secured: bool,
    /// A client's stream of HTTP/2; its request head is given as HTTP/1 would have it, as far as it is known. Of an
    /// upstream's connection: only this stream of it failed, by what the upstream said of it.
    pub stream: bool,
    /// Some of its bytes passed through a call whose buffer cannot be read.
    pub blind: bool,
    /// The proxy opened it for itself, to see whether the upstream is well.
    pub check: bool,
    /// Its owner is known as a proxy only by what it does.
    pub found: bool,
    /// A connection to a client: right before its error, a connect() of the thread had failed in the call.
    pub after_call: bool,
    /// A connection to a client: the upstream connection that the thread had closed right before its error.
    pub after: Option<NonZero<Cookie>>,
    /// TCP state before it closed, as in the kernel (1 ESTABLISHED, 8 CLOSE_WAIT ...).
    pub last_state: u8,
    /// Status of the answer, if one was recognised.
    pub status: Option<u16>,
    /// A stream: the status of gRPC that its answer ends with, which has nothing but headers.
    pub grpc: Option<u8>,
    /// Positive errno that the owner learnt or that waited for it.
    pub errno: Option<i32>,
    /// connect() began; it was established; the current request began; the one before it did.
    pub opened: Option<Nanos>,
    pub established: Option<Nanos>,
    pub asked: Option<Nanos>,
    pub asked_before: Option<Nanos>,
    /// The other side's FIN and reset.
    pub fin: Option<Nanos>,
    /// The FIN came before the first byte of the answer.
    pub fin_early: bool,
    pub reset: Option<Nanos>,
    pub request_bytes: u64,
    pub reply_bytes: u64,
    /// First bytes of the request and of the answer.
    pub request_head: Vec<u8>,
    pub reply_head: Vec<u8>,
}

/// What a TLS library made of a handshake. The numbers are those of OpenSSL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// It came to its end.
    pub done: bool,
    /// What verification of the certificate came to, whether or not anybody minded.
    pub verified: u8,
    /// What the owner was told of it when it asked.
    pub told: u8,
    /// The owner found the certificate to be for another name.
    pub other_name: bool,
    /// The library's first error.
    pub trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An error of the library's own (`SSL_R_*`).
    Library(u16),
    /// One of BoringSSL that OpenSSL has no number for.
    Boring(u16),
    AlertReceived(u8),
    AlertSent(u8),
}

impl Connection {
    /// Whether this many unread bytes at the other end are all of the request. Inside TLS it takes more room on the wire,
    /// piece by piece: that none of a short one was read is certain, of a long one the beginning may have been.
    pub fn none_read(&self, unread: u64) -> bool {
        const SHORT: u64 = 4096;
        unread >= self.request_bytes.max(1) && (!self.secured || self.request_bytes <= SHORT)
    }

    /// Whether the answer to this client has these words; `None` where that cannot be told.
    pub fn says(&self, words: &str) -> Option<bool> {
        let said = self.reply_head.windows(words.len()).any(|bytes| bytes == words.as_bytes());
        let whole = !self.reply_head.is_empty() && self.reply_head.len() as u64 >= self.reply_bytes;
        let bare = self.request_head.starts_with(b"HEAD ");
        (said || whole && !bare).then_some(said)
    }

    /// One of which nothing was seen but whose it is: what is known otherwise is filled in by whoever knows it.
    pub fn unseen(owner: Task, comm: &str, phase: Phase) -> Connection {
        Connection {
            cookie: 0,
            flow: None,
            owner,
            comm: comm.to_owned(),
            cgroup: 0,
            phase,
            request: 1,
            reused: false,
            old: false,
            closed_first: false,
            ahead: false,
            in_turn: false,
            begun_for: None,
            application: false,
            secured: false,
            stream: false,
            blind: false,
            check: false,
            found: false,
            after_call: false,
            after: None,
            last_state: 0,
            status: None,
            grpc: None,
            errno: None,
            opened: None,
            established: None,
            asked: None,
            asked_before: None,
            fin: None,
            fin_early: false,
            reset: None,
            request_bytes: 0,
            reply_bytes: 0,
            request_head: Vec::new(),
            reply_head: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Connecting,
    /// Connected, nothing asked.
    Open,
    /// Asked, no byte of an answer went through the owner's calls.
    Asked,
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub state: u8,
    /// Retransmissions of the oldest segment in flight: the SYN while connecting.
    pub retransmits: u8,
    pub in_flight: u32,
    pub unread: u32,
    pub unacked: u32,
    /// Window that the other side advertises.
    pub window: u32,
    /// Milliseconds since data last came in and went out.
    pub idle_in_ms: Option<u32>,
    pub idle_out_ms: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub cookie: Cookie,
    pub netns: u32,
    pub accepted: bool,
    /// Its socket still existed: `unread` and `state` are of that moment.
    pub live: bool,
    pub state: u8,
    /// Its owner closed it before the proxy did.
    pub closed_first: bool,
    pub closed: Option<Nanos>,
    /// The process that read from it, and the one that closed it.
    pub read_by: Option<u32>,
    pub closed_by: Option<u32>,
    /// Bytes it received and its owner did not read.
    pub unread: u32,
    pub got_reset: bool,
    pub sent_reset: bool,
    /// Name of the kernel's reason for the reset it sent (`NOT_SPECIFIED` and unknown ones are `None`).
    pub reset_reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerSeen {
    /// Not on this host, or in another namespace.
    Unknown,
    /// Several share the address (SO_REUSEPORT): the kernel chooses one of them by the connection.
    Shared,
    /// Local address, and nothing listens there.
    Absent,
    Present {
        cookie: Cookie,
        pid: u32,
        queue: u32,
        limit: u32,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConnectFailed {
    pub endpoint: Endpoint,
    pub netns: u32,
    pub comm: String,
    pub cgroup: u64,
    pub cookie: Option<Cookie>,
    pub bound: Option<Bound>,
    /// As in [`Connection`].
    pub in_turn: bool,
    pub errno: i32,
    pub listener: ListenerSeen,
}

/// A packet, as its sender saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    pub flow: Flow,
    /// Name of the kernel's reason, without its enum's prefix.
    pub reason: Option<String>,
    /// Kernel function that dropped it.
    pub location: Option<u64>,
    pub tcp_flags: u8,
    /// A socket of this host took part (a reset without one answers for a port that nobody has).
    pub has_socket: bool,
    pub state: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listening {
    pub cookie: Cookie,
    pub endpoint: Endpoint,
    pub netns: u32,
    pub pid: u32,
    pub comm: String,
    pub cgroup: u64,
    pub queue: u32,
    pub limit: u32,
    pub is_proxy: bool,
}

impl Listening {
    /// It was never bound: its port was not known when it began to listen, and is told once it has been looked for.
    pub fn unnamed(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp(at) if at.port() == 0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proc {
    pub pid: u32,
    pub comm: String,
    pub cgroup: u64,
    pub is_proxy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(i32),
    Signal { signal: i32, core: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    pub server: SocketAddr,
    pub local: SocketAddr,
    pub received: bool,
    /// The message as far as it was kept.
    pub message: Vec<u8>,
}
