//! What is known of one connection: its own story, its socket, its other end and the listener behind it.

use super::{HEAD, Tuple};

/// What a connection is to us.
pub const ROLE_NONE: u8 = 0;
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
/// Client inside TLS (an upstream's bit says something else): something was sent to it since its request was read.
pub const CONN_ANSWERING: u16 = 16;
/// Client: an answer began although no new request had been read (pipelining).
pub const CONN_AHEAD: u16 = 32;
/// Upstream (a client's bit says something else): begun right behind the streams that were read together with the one
/// that it is bound to, and in their order (`PROC_POOLED`).
pub const CONN_IN_TURN: u16 = 32;
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

/// In `class` of an upstream connection: it is spoken to in HTTP/2, and its frames are followed.
pub const CLASS_FRAMES: u32 = 1 << 31;

/// In `slot` of an upstream connection whose story its owner's TLS library tells: the handshake came to its end.
pub const SHOOK: u32 = 1 << 31;
/// The owner found the certificate to be for another name.
pub const SHOOK_NAME: u32 = 1 << 30;
/// What verification of the certificate came to (`X509_V_ERR_*`), 0 if it was not done or found nothing.
pub const SHOOK_VERIFIED: u32 = 0xff;
/// What the owner was told of it when it asked, eight bits from here.
pub const SHOOK_TOLD: u32 = 8;
/// The library's first error, twelve bits from here: `SSL_R_*`, an alert that was received (they count from 1000 on), or
/// one that was sent (Go). BoringSSL has numbers of its own, which count from where they are told apart.
pub const SHOOK_REASON: u32 = 16;
pub const SHOOK_REASONS: u32 = 0xfff;
pub const ALERT_RECEIVED: u32 = 1000;
pub const ALERT_SENT: u32 = 2000;
pub const BORING: u32 = 3000;

/// Set in the number of a request that is a stream of HTTP/2; of an upstream's connection, where only that stream failed.
pub const STREAM: u32 = 1 << 31;
/// Status of such a request whose answer says in HTTP that all is well, and in gRPC that it is not.
pub const GRPC_UNAVAILABLE: u16 = 14;
/// What `inserted` is where it is not known.
pub const UNCOUNTED: u32 = u32::MAX;

/// State of a tracked connection: lies in a place of its own, and is what a [`ConnRecord`] carries.
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
    /// Upstream: requests that this thread could have meant when the connection was bound. Stream: one more than the streams
    /// of its turn for which no connection was begun, 0 if that is not known (`PROC_POOLED`).
    pub choices: u8,
    pub flags: u16,
    /// Status of the answer, 0 if none was recognised.
    pub status: u16,
    /// The error the owner learnt (negative errno of its last failing call), 0 if none.
    pub errno: i32,
    /// Client: slot of this request in the thread's list of unserved requests. Upstream: what its owner's TLS library
    /// made of the handshake, `SHOOK_*`; where that is none of its
    /// business, where the next record of FastCGI begins.
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
/// Several share the address: which of them it was meant for is not known, nor is anything else here.
pub const LISTENER_SHARED: u8 = 3;

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
