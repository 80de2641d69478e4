//! What is kept of connections that speak HTTP/2, and of their streams.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use trace502_ebpf::{Conn, HEAD};

/// The head of a frame of HTTP/2.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Frame {
    pub stream: u32,
    pub kind: u8,
    pub flags: u8,
    pub _pad: u16,
}

/// One direction of an HTTP/2 connection.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Direction {
    /// The frame that passes, and the bytes left of it.
    pub frame: Frame,
    pub skip: u32,
    /// Bytes left of the frame's header block, and of what comes before it.
    pub block: u32,
    pub ahead: u32,
    /// A header block has begun and not come to its end.
    pub open: u32,
    /// It is that of the trailers of a request.
    pub trailers: u32,
    /// Entries that the table of headers has been given.
    pub inserted: u32,
    /// What there is of the next frame's head, and of the block's beginning.
    pub have: u32,
    pub first_len: u32,
    pub head: [u8; 32],
    pub first: [u8; 32],
    /// What is left of the call's bytes, or of the piece of them that is looked at.
    pub at: u64,
    pub left: u64,
    /// Where the other pieces are told of, which of them is next and how many there are, and their bytes.
    pub vectors: u64,
    pub piece: u32,
    pub pieces: u32,
    pub rest: u64,
    pub parts: Parts,
}

/// A walk over the representations of a header block.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Parts {
    /// The piece of it that is at hand.
    pub at: u64,
    pub left: u32,
    pub inserted: u32,
    /// Strings that follow before the next representation, and bytes left of the one that passes.
    pub strings: u32,
    pub skip: u32,
    /// A number, by how many bits its next byte is to be shifted (and one more; 0 where it is whole), and what it tells.
    pub number: u32,
    pub shift: u32,
    pub tells: u32,
    /// The last step brought a number to its end.
    pub told: u32,
    /// The string is in the code of RFC 7541; the field becomes an entry of the table; its name is that of gRPC's status.
    pub coded: u32,
    pub inserts: u32,
    pub named: u32,
    /// The status of gRPC that was found, 0 for none.
    pub grpc: u32,
    /// It makes no sense, or could not be read.
    pub broken: u32,
    pub _pad: u32,
}

/// A status that the owner has put into the table of headers, and as which entry.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct KnownStatus {
    pub entry: u32,
    pub status: u32,
}

/// Statuses of one connection that are remembered: those that are errors, and those of gRPC. A power of two.
pub const STATUSES: usize = 8;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct H2 {
    pub read: Direction,
    pub wrote: Direction,
    pub statuses: [KnownStatus; STATUSES],
    pub next: u32,
    /// Of an upstream: entries of the table are counted since one of them is an error.
    pub counting: u32,
}

/// Connections that speak HTTP/2, by cookie.
#[btf_map]
pub static H2S: HashMap<u64, H2, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Never written: what a new connection starts from.
#[btf_map]
pub static NO_H2: PerCpuArray<H2, 1> = PerCpuArray::new();

#[derive(Clone, Copy)]
#[repr(C)]
pub struct StreamKey {
    pub cookie: u64,
    pub id: u32,
    pub _pad: u32,
}

/// A stream that asked and is not answered yet.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stream {
    pub asked: u64,
    pub tgid: u32,
    pub tid: u32,
    pub slot: u32,
    pub inserted: u32,
    pub len: u32,
    pub bytes: u32,
    /// The turn in which it was read (`PROC_POOLED`).
    pub turn: u32,
    /// Its rank in that, 0 if it has none. Once it is answered with an error: what `choices` says of a stream.
    pub rank: u32,
    pub head: [u8; HEAD],
}

/// Streams go when they are answered; those of a connection that broke off are pushed out by newer ones.
#[btf_map]
pub static STREAMS: LruHashMap<StreamKey, Stream, 8192> = LruHashMap::new();

/// The same of streams that ask an upstream whose frames are followed.
#[btf_map]
pub static ASKED_HEADS: LruHashMap<StreamKey, Stream, 8192> = LruHashMap::new();

/// Never written: what a new stream starts from.
#[btf_map]
pub static NO_STREAM: PerCpuArray<Stream, 1> = PerCpuArray::new();

/// A request that an upstream was asked on a stream, and has not answered.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Asked {
    /// The stream; 0 for none.
    pub id: u32,
    /// Which request of the connection it is, from 1.
    pub request: u32,
    pub at: u64,
    /// Whom it serves.
    pub bound: u64,
    pub bound_request: u32,
    pub tid: u32,
    pub choices: u32,
    pub flags: u32,
}

/// What an upstream said of a stream that is to be told.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Said {
    pub id: u32,
    pub status: u32,
}

/// Streams of an upstream's connection that are remembered, each at the place that its number gives. A power of two.
pub const ASKED: usize = 64;
/// Failures of streams that one call can bring. A power of two.
pub const SAID: usize = 16;

/// A connection to an upstream that is spoken to in HTTP/2.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Asking {
    pub streams: [Asked; ASKED],
    pub said: [Said; SAID],
    pub told: u32,
    /// The newest stream, how many there were, and how many of them began in the call that is looked at.
    pub last: u32,
    pub requests: u32,
    pub begun: u32,
    /// `PROC_*` of its owner, and whether it asks for itself alone.
    pub class: u32,
    pub check: u32,
    /// Whom the connection was made for: its first request.
    pub own: Asked,
    /// One that is being told.
    pub one: Conn,
}

/// Connections to upstreams that speak HTTP/2, by cookie. How far their frames were followed is in `H2S`.
#[btf_map]
pub static ASKING: HashMap<u64, Asking, 16384, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Never written: what a new connection starts from.
#[btf_map]
pub static NO_ASKING: PerCpuArray<Asking, 1> = PerCpuArray::new();
