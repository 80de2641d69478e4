//! From the bytes of a record to an [`Observation`]. Pure; a record that does not fit its kind is an error, not a guess.

use std::net::SocketAddr;
use std::num::NonZero;

use trace502_ebpf as abi;
use trace502_ebpf::{
    ConnRecord, ConnectRecord, DnsRecord, FlowRecord, Header, IN_TASK, Kind, ListenRecord, TaskRecord,
};

use crate::kernel::offsets::Names;
use crate::model::{self, *};
use crate::wire::{h2, hpack, openssl};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a record of {0} bytes is shorter than a header")]
    Short(usize),
    #[error("kind {0} is not known to this version")]
    Kind(u16),
    #[error("a {kind} record of {got} bytes, expected {want}", kind = .kind.name())]
    Size { kind: Kind, got: usize, want: usize },
}

/// The kind of a record, as its header says.
pub fn kind(record: &[u8]) -> Result<Kind, DecodeError> {
    let header: Header = view(record).ok_or(DecodeError::Short(record.len()))?;
    Kind::ALL.into_iter().find(|kind| *kind as u16 == header.kind).ok_or(DecodeError::Kind(header.kind))
}

pub fn decode(record: &[u8], names: &Names) -> Result<Observation, DecodeError> {
    let kind = kind(record)?;
    let sized = |want| DecodeError::Size { kind, got: record.len(), want };
    macro_rules! whole {
        ($type:ty) => {
            view::<$type>(record)
                .filter(|_| record.len() == size_of::<$type>())
                .ok_or_else(|| sized(size_of::<$type>()))?
        };
    }
    let (header, fact) = match kind {
        Kind::Client => {
            let record = whole!(ConnRecord);
            (record.header, client(&record))
        }
        Kind::Attempt => {
            let record = whole!(ConnRecord);
            (record.header, Fact::Attempt(Box::new(attempt(&record, names))))
        }
        Kind::Connect => {
            let record = whole!(ConnectRecord);
            (record.header, Fact::ConnectFailed(connect_failed(&record)))
        }
        Kind::ClientLeft => {
            let record = whole!(FlowRecord);
            (record.header, Fact::ClientLeft { client: record.cookie, request: record.request & !abi::STREAM })
        }
        Kind::DialFailed => {
            let record = whole!(FlowRecord);
            (record.header, Fact::DialFailed(Dial { to: flow(&record.tuple).remote, errno: record.reason as i32 }))
        }
        Kind::Rescued => {
            let record = whole!(FlowRecord);
            (record.header, Fact::Rescued { client: record.cookie })
        }
        Kind::ResetSent => {
            let record = whole!(FlowRecord);
            let reason = names.reset(record.reason);
            (record.header, Fact::ResetSent(packet(&record, reason)))
        }
        Kind::Drop => {
            let record = whole!(FlowRecord);
            let reason = names.drop(record.reason);
            (record.header, Fact::Dropped(packet(&record, reason)))
        }
        Kind::Listen | Kind::Unlisten => {
            let record = whole!(ListenRecord);
            let listening = listening(&record);
            let fact = match kind {
                Kind::Listen => Fact::Listening(listening),
                _ => Fact::ListenerClosed(listening),
            };
            (record.header, fact)
        }
        Kind::Exec | Kind::Fork | Kind::Exit | Kind::Signal | Kind::Oom | Kind::Became => {
            let record = whole!(TaskRecord);
            (record.header, task(kind, &record))
        }
        Kind::Dns => {
            let record = whole!(DnsRecord);
            (record.header, Fact::Dns(dns(&record)))
        }
    };
    let in_task = header.why & IN_TASK != 0;
    let task = in_task.then_some(Task { pid: header.tgid, tid: header.tid });
    Ok(Observation { at: header.at, task, fact })
}

/// A copy of the record's first bytes as a structure of plain integers.
fn view<T: Copy>(bytes: &[u8]) -> Option<T> {
    // SAFETY: long enough; T is repr(C) of integers, for which every bit pattern is valid.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

fn client(record: &ConnRecord) -> Fact {
    let outcome = match record.header.why & !IN_TASK {
        abi::WHY_GARBLED => ClientOutcome::Garbled,
        abi::WHY_CLOSED => ClientOutcome::Closed,
        abi::WHY_UNSEEN => ClientOutcome::Unseen,
        // What stands for these in HTTP.
        _ if grpc(&record.conn).is_some() => ClientOutcome::Status(503),
        _ => ClientOutcome::Status(record.conn.status),
    };
    Fact::Client(ClientError { outcome, conn: connection(record) })
}

/// The status of gRPC that a stream was answered with.
fn grpc(conn: &abi::Conn) -> Option<u8> {
    let of_stream = conn.role == abi::ROLE_CLIENT && conn.flags & abi::CONN_STREAM != 0;
    (of_stream && conn.status == abi::GRPC_UNAVAILABLE).then_some(abi::GRPC_UNAVAILABLE as u8)
}

fn attempt(record: &ConnRecord, names: &Names) -> Attempt {
    let conn = &record.conn;
    let handover = match record.header.why & !IN_TASK {
        abi::WHY_ANSWERED => Handover::Answered,
        abi::WHY_ASKED => Handover::Asked,
        _ => Handover::Failed,
    };
    let is_unix = conn.flags & abi::CONN_UNIX != 0;
    let seen = connection(record);
    Attempt {
        stream_head: stream_head(&seen),
        handover,
        endpoint: endpoint(is_unix, &record.path, record.path_len, &record.tuple),
        conn: seen,
        bound: bound(conn.bound, conn.bound_request, conn.choices, conn.flags),
        tcp: (!is_unix).then(|| tcp(&record.tcp)),
        peer: (record.peer.seen == abi::PEER_SEEN).then(|| peer(&record.peer, names)),
        listener: listener(&record.listener),
        handshake: (conn.flags & abi::CONN_SECURED != 0).then(|| handshake(conn.slot)),
    }
}

/// The request of an upstream's connection among the frames that it was sent.
fn stream_head(conn: &Connection) -> Vec<u8> {
    match h2::request_block(&conn.request_head, conn.request) {
        // What refers to earlier blocks stays unknown.
        Some((bytes, opens)) => hpack::request_head(hpack::Block { bytes, inserted: opens.then_some(0) }, &[]),
        None => Vec::new(),
    }
}

fn bound(client: Cookie, request: u32, choices: u8, flags: u16) -> Option<Bound> {
    let has = |flag| flags & flag != 0;
    let (retry, proven) = (has(abi::CONN_RETRY), has(abi::CONN_ENDED));
    (client != 0).then_some(Bound { client, request: request & !abi::STREAM, choices: choices.max(1), retry, proven })
}

fn endpoint(is_unix: bool, path: &[u8], len: u32, tuple: &abi::Tuple) -> Endpoint {
    if is_unix {
        Endpoint::Unix(unix_path(path, len))
    } else {
        Endpoint::Tcp(SocketAddr::new(unmap(tuple.remote), tuple.remote_port))
    }
}

/// An abstract name begins with a zero byte and is shown with `@`; others end at the first one.
fn unix_path(path: &[u8], len: u32) -> String {
    let path = &path[..path.len().min(len as usize)];
    match path {
        [] => String::new(),
        [0, name @ ..] => {
            let end = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            format!("@{}", String::from_utf8_lossy(&name[..end]))
        }
        name => text(name),
    }
}

/// Bytes up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn flow(tuple: &abi::Tuple) -> Flow {
    Flow {
        local: SocketAddr::new(unmap(tuple.local), tuple.local_port),
        remote: SocketAddr::new(unmap(tuple.remote), tuple.remote_port),
        netns: tuple.netns,
    }
}

fn instant(at: u64) -> Option<Nanos> {
    (at != 0).then_some(at)
}

fn connection(record: &ConnRecord) -> Connection {
    let conn = &record.conn;
    let has = |flag| conn.flags & flag != 0;
    let is_unix = has(abi::CONN_UNIX);
    let head = |bytes: &[u8], len: u16| bytes[..bytes.len().min(len.into())].to_vec();
    let of_client = record.header.kind == Kind::Client as u16;
    let (mut request_head, mut reply_head) =
        (head(&conn.request_head, conn.request_len), head(&conn.reply_head, conn.reply_len));
    let stream = of_client && has(abi::CONN_STREAM);
    if !of_client && conn.request & abi::STREAM != 0 {
        request_head = h2::request_frame(&request_head, conn.request & !abi::STREAM);
    }
    if stream {
        let inserted = (conn.bound_request != abi::UNCOUNTED).then_some(conn.bound_request);
        request_head = hpack::request_head(hpack::Block { bytes: &request_head, inserted }, &reply_head);
        reply_head.clear();
    }
    let waiting = if record.tcp.error != 0 { Some(record.tcp.error) } else { None };
    Connection {
        cookie: conn.cookie,
        flow: (!is_unix).then(|| flow(&record.tuple)),
        owner: Task { pid: conn.tgid, tid: conn.tid },
        comm: text(&record.comm),
        cgroup: record.cgroup,
        phase: match conn.phase {
            abi::PHASE_CONNECTING => Phase::Connecting,
            abi::PHASE_ASKED => Phase::Asked,
            abi::PHASE_ANSWERED => Phase::Answered,
            _ => Phase::Open,
        },
        request: conn.request & !abi::STREAM,
        reused: has(abi::CONN_REUSED),
        old: has(abi::CONN_OLD),
        closed_first: has(abi::CONN_CLOSED_FIRST),
        ahead: of_client && has(abi::CONN_AHEAD),
        in_turn: !of_client && has(abi::CONN_IN_TURN),
        begun_for: if stream { NonZero::new(conn.choices) } else { None },
        application: has(abi::CONN_APPLICATION),
        secured: has(abi::CONN_SECURED),
        stream: stream || !of_client && conn.request & abi::STREAM != 0,
        blind: has(abi::CONN_BLIND),
        found: conn.class & abi::PROC_FOUND != 0,
        check: !of_client && has(abi::CONN_CHECK),
        after_call: of_client && has(abi::CONN_AFTER_CALL),
        after: if of_client { NonZero::new(conn.bound) } else { None },
        last_state: conn.last_state,
        // 1 marks bytes that are no HTTP: no status.
        status: (conn.status >= 100 && conn.status < 1000).then_some(conn.status),
        grpc: if of_client { grpc(conn) } else { None },
        errno: if conn.errno != 0 { Some(conn.errno.wrapping_neg()) } else { waiting },
        opened: instant(conn.opened),
        established: instant(conn.established),
        asked: instant(conn.asked),
        asked_before: instant(conn.asked_before),
        fin: instant(conn.fin),
        fin_early: !of_client && has(abi::CONN_FIN_EARLY),
        reset: instant(conn.reset),
        request_bytes: conn.request_bytes,
        reply_bytes: conn.reply_bytes,
        request_head,
        reply_head,
    }
}

fn handshake(made: u32) -> Handshake {
    let reason = made >> abi::SHOOK_REASON & abi::SHOOK_REASONS;
    let trouble = match reason {
        0 => None,
        abi::BORING.. => Some(openssl::of_boring((reason - abi::BORING) as u16)),
        abi::ALERT_SENT.. => Some(Trouble::AlertSent((reason - abi::ALERT_SENT) as u8)),
        abi::ALERT_RECEIVED.. => Some(Trouble::AlertReceived((reason - abi::ALERT_RECEIVED) as u8)),
        own => Some(Trouble::Library(own as u16)),
    };
    Handshake {
        done: made & abi::SHOOK != 0,
        verified: (made & abi::SHOOK_VERIFIED) as u8,
        told: (made >> abi::SHOOK_TOLD & abi::SHOOK_VERIFIED) as u8,
        other_name: made & abi::SHOOK_NAME != 0,
        trouble,
    }
}

fn tcp(tcp: &abi::Tcp) -> model::Tcp {
    let millis = |jiffies: u32| (jiffies != u32::MAX).then_some(jiffies);
    model::Tcp {
        state: tcp.state,
        retransmits: tcp.retransmits,
        in_flight: tcp.in_flight,
        unread: tcp.unread,
        unacked: tcp.unacked,
        window: tcp.window,
        idle_in_ms: millis(tcp.idle_in_ms),
        idle_out_ms: millis(tcp.idle_out_ms),
    }
}

fn peer(peer: &abi::Peer, names: &Names) -> model::Peer {
    let has = |flag| peer.flags & flag != 0;
    let sent_reset = has(abi::PEER_SENT_RESET);
    model::Peer {
        cookie: peer.cookie,
        netns: peer.netns,
        accepted: has(abi::PEER_ACCEPTED),
        live: has(abi::PEER_LIVE),
        state: peer.state,
        closed_first: has(abi::PEER_CLOSED_FIRST),
        closed: instant(peer.closed),
        read_by: (peer.tgid != 0).then_some(peer.tgid),
        closed_by: (peer.closed_tgid != 0).then_some(peer.closed_tgid),
        unread: peer.unread,
        got_reset: has(abi::PEER_GOT_RESET),
        sent_reset,
        reset_reason: if sent_reset { reason(names.reset(peer.reset_reason)) } else { None },
    }
}

/// The kernel's words for "no reason" are none.
fn reason(name: Option<&str>) -> Option<String> {
    name.filter(|name| !name.starts_with("NOT_SPECIFIED") && *name != "NOT_DROPPED_YET").map(str::to_owned)
}

fn listener(listener: &abi::Listener) -> ListenerSeen {
    match listener.seen {
        abi::LISTENER_ABSENT => ListenerSeen::Absent,
        abi::LISTENER_SHARED => ListenerSeen::Shared,
        abi::LISTENER_PRESENT => ListenerSeen::Present {
            cookie: listener.cookie,
            pid: listener.tgid,
            queue: listener.queue,
            limit: listener.limit,
        },
        _ => ListenerSeen::Unknown,
    }
}

const AF_UNIX: u16 = libc::AF_UNIX as u16;

fn connect_failed(record: &ConnectRecord) -> ConnectFailed {
    ConnectFailed {
        endpoint: endpoint(record.family == AF_UNIX, &record.path, record.path_len, &record.tuple),
        netns: record.tuple.netns,
        comm: text(&record.comm),
        cgroup: record.cgroup,
        cookie: instant(record.cookie),
        bound: bound(record.bound, record.bound_request, (record.choices & 255) as u8, 0),
        in_turn: record.choices & abi::CONNECT_IN_TURN != 0,
        errno: record.errno,
        listener: listener(&record.listener),
    }
}

fn packet(record: &FlowRecord, name: Option<&str>) -> Packet {
    Packet {
        flow: flow(&record.tuple),
        reason: reason(name),
        location: instant(record.location),
        tcp_flags: record.tcp_flags,
        has_socket: record.has_socket != 0,
        state: record.state,
    }
}

fn listening(record: &ListenRecord) -> Listening {
    let is_unix = record.family == AF_UNIX;
    Listening {
        cookie: record.cookie,
        endpoint: if is_unix {
            Endpoint::Unix(unix_path(&record.path, record.path_len))
        } else {
            Endpoint::Tcp(SocketAddr::new(unmap(record.tuple.local), record.tuple.local_port))
        },
        netns: record.tuple.netns,
        pid: record.header.tgid,
        comm: text(&record.comm),
        cgroup: record.cgroup,
        queue: record.queue,
        limit: record.limit,
        is_proxy: record.proxy != 0,
    }
}

fn task(kind: Kind, record: &TaskRecord) -> Fact {
    let proc = Proc {
        pid: record.tgid,
        comm: text(&record.comm),
        cgroup: record.cgroup,
        is_proxy: record.class & abi::PROC_PROXY != 0,
    };
    // The record says only where the process is that it is about.
    let other = Proc { pid: record.other, comm: text(&record.other_comm), cgroup: 0, is_proxy: false };
    match kind {
        Kind::Exec => Fact::Exec(proc),
        Kind::Became => Fact::Became(proc),
        Kind::Fork => Fact::Fork { parent: record.other, child: proc },
        Kind::Exit => {
            let parent = (record.other != 0).then_some(record.other);
            Fact::Exit { proc, parent, status: exit_status(record.code) }
        }
        Kind::Signal => Fact::Signal {
            target: proc,
            signal: record.code as i32,
            sender: other,
            // si_code: positive ones other than SI_USER (0) and its negative kin come from the kernel.
            from_kernel: record.si_code > 0,
        },
        _ => Fact::OomKill {
            victim: proc,
            rss_bytes: (record.rss_pages > 0).then(|| record.rss_pages.saturating_mul(page_size())),
        },
    }
}

/// Both machines that we run on use 4 KiB, and a recording must not depend on where it is read.
const fn page_size() -> u64 {
    4096
}

fn exit_status(code: u32) -> ExitStatus {
    match code & 0x7f {
        0 => ExitStatus::Code((code >> 8 & 0xff) as i32),
        signal => ExitStatus::Signal { signal: signal as i32, core: code & 0x80 != 0 },
    }
}

fn dns(record: &DnsRecord) -> Dns {
    let flow = flow(&record.tuple);
    Dns {
        server: flow.remote,
        local: flow.local,
        received: record.received != 0,
        message: record.message[..abi::DNS.min(record.kept as usize)].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_library_made_of_a_handshake_is_taken_apart() {
        assert_eq!(handshake(0), Handshake::default());
        let told = abi::SHOOK | abi::SHOOK_NAME | 18 | 10 << abi::SHOOK_TOLD | 134 << abi::SHOOK_REASON;
        let trouble = Some(Trouble::Library(134));
        assert_eq!(handshake(told), Handshake { done: true, verified: 18, told: 10, other_name: true, trouble });
        let alert = |code: u32| handshake(code << abi::SHOOK_REASON).trouble;
        assert_eq!(alert(abi::ALERT_RECEIVED + 116), Some(Trouble::AlertReceived(116)));
        assert_eq!(alert(abi::ALERT_SENT + 42), Some(Trouble::AlertSent(42)));
        assert_eq!(alert(abi::BORING + 125), Some(Trouble::Library(134)));
        assert_eq!(alert(abi::BORING + 200), Some(Trouble::Boring(200)));
    }
}
