//! Clients that speak HTTP/2 without TLS: frames on the wire, over pieces and calls however their owner cuts them.

use std::io::{IoSlice, Write as _};
use std::net::{SocketAddr, TcpStream};

use trace502::model::*;

use crate::frames::*;
use crate::rig::*;

/// A connection on which these were asked, and the proxy's end of it, which has read them in calls of `step` bytes.
fn asked(requests: &[Vec<u8>], step: usize) -> (SocketAddr, TcpStream, TcpStream) {
    use std::io::Read as _;
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    let all = [PREFACE, &frame(4, 0, 0, &[]), &requests.concat()].concat();
    client.write_all(&all).unwrap();
    let mut read = 0;
    while read < all.len() {
        // By its first bytes the connection is known for what it is.
        let step = if read == 0 { PREFACE.len() } else { step };
        let mut room = vec![0; step.min(all.len() - read)];
        read += served.read(&mut room).unwrap();
    }
    (address, client, served)
}

fn is(error: &ClientError, status: u16, path: &str) {
    assert_eq!((error.outcome, path_of(error).as_str()), (ClientOutcome::Status(status), path));
    assert!(error.conn.stream && !error.conn.secured);
    let head = String::from_utf8(error.conn.request_head.clone()).unwrap();
    assert!(head.contains("host: shop.example"), "{head:?}");
}

/// Streams of this connection that were told of.
fn streams_told(rig: &mut Rig, address: SocketAddr) -> usize {
    let ours = |error: &ClientError| error.conn.stream && error.conn.flow.is_some_and(|f| f.local == address);
    rig.told().iter().filter(|seen| matches!(&seen.fact, Fact::Client(e) if ours(e))).count()
}

#[test]
fn frames_are_followed_however_they_are_cut() {
    // Whole; in the middle of each head and block; byte by byte.
    for step in [usize::MAX, 7, 1] {
        let mut rig = rig();
        let requests = [get(1, "/one"), get(3, "/three"), get(5, "/five"), get(7, "/seven")];
        let (address, _client, mut served) = asked(&requests, step);
        let answers = [
            // As a new entry of the table behind two changes of its size, a good one, the entry again, and one in the
            // code of its own.
            frame(HEADERS, ALL, 3, b"\x20\x3f\xe1\x1f\x48\x82\x6c\x02\x40\x01a\x01b"),
            frame(HEADERS, WHOLE_BLOCK, 1, b"\x88\x40\x01c\x01d"),
            frame(HEADERS, ALL, 7, b"\xc0"),
            frame(0, 1, 1, b"HTTP/1.1 502 is a body"),
            frame(HEADERS, ALL, 5, b"\x08\x03503"),
        ];
        for piece in answers.concat().chunks(step.min(64)) {
            served.write_all(piece).unwrap();
        }
        for (stream, status, path) in [(3, 502, "/three"), (7, 502, "/seven"), (5, 503, "/five")] {
            is(&stream_error(&mut rig, address, stream), status, path);
        }
        assert_eq!(streams_told(&mut rig, address), 3, "stream 1 was answered well");
    }
}

/// nginx writes the head of a frame and its content from two places in one call.
#[test]
fn the_pieces_of_one_call_are_one() {
    let mut rig = rig();
    let (address, _client, mut served) = asked(&[get(1, "/one"), get(3, "/three")], usize::MAX);
    let answers = [frame(HEADERS, ALL, 1, b"\x48\x82\x6c\x02"), frame(HEADERS, ALL, 3, b"\x08\x03504")];
    let [(one, block), (three, rest)] = [answers[0].split_at(9), answers[1].split_at(12)];
    let pieces = [one, &[], block, three, rest].map(IoSlice::new);
    let all = answers.concat().len();
    assert_eq!(served.write_vectored(&pieces).unwrap(), all);
    is(&stream_error(&mut rig, address, 1), 502, "/one");
    is(&stream_error(&mut rig, address, 3), 504, "/three");
}

#[test]
fn a_block_goes_on_in_the_next_frame_and_has_things_around_it() {
    const PADDED_WITH_PRIORITY: u8 = 0x28;
    let mut rig = rig();
    let whole = get(1, "/one");
    let block = &whole[9..];
    let first = [&[3, 0, 0, 0, 0, 16], &block[..4], &[0; 3]].concat();
    let request =
        [frame(HEADERS, PADDED_WITH_PRIORITY | 1, 1, &first), frame(CONTINUATION, WHOLE_BLOCK, 1, &block[4..])];
    let (address, _client, mut served) = asked(&[request.concat(), get(3, "/three")], 5);
    // The status of the second is what the first put into the table, in the part of its block that came later.
    served.write_all(&frame(HEADERS, 1, 1, b"\x48\x82")).unwrap();
    served
        .write_all(&[frame(CONTINUATION, WHOLE_BLOCK, 1, b"\x6c\x02"), frame(HEADERS, ALL, 3, b"\xbe")].concat())
        .unwrap();
    is(&stream_error(&mut rig, address, 1), 502, "/one");
    is(&stream_error(&mut rig, address, 3), 502, "/three");
}

#[test]
fn streams_are_bound_to_what_is_begun_for_them() {
    let mut rig = rig();
    let (address, _client, mut served) = asked(&[get(1, "/one"), get(3, "/three"), get(5, "/five")], usize::MAX);
    for stream in [1, 3, 5] {
        let nobody = free_port();
        assert!(TcpStream::connect(nobody).is_err());
        let bound = rig.attempt(nobody).bound.unwrap();
        assert_eq!((bound.request, bound.retry), (stream, false));
        served.write_all(&frame(HEADERS, ALL, stream, b"\x08\x03503")).unwrap();
        assert_eq!(stream_error(&mut rig, address, stream).conn.cookie, bound.client);
    }
}

#[test]
fn a_client_that_takes_its_stream_back_is_told_as_that() {
    let mut rig = rig();
    let (address, mut client, mut served) = asked(&[get(1, "/one"), get(3, "/three")], usize::MAX);
    client.write_all(&frame(RESET, 0, 1, &[0, 0, 0, 8])).unwrap();
    read_some(&mut served);
    rig.wait("client that left", |seen| matches!(seen.fact, Fact::ClientLeft { request: 1, .. }).then_some(()));
    served.write_all(&[frame(RESET, 0, 1, &[0, 0, 0, 8]), frame(RESET, 0, 3, &[0, 0, 0, 2])].concat()).unwrap();
    assert_eq!(stream_error(&mut rig, address, 3).outcome, ClientOutcome::Closed);
    assert_eq!(streams_told(&mut rig, address), 1, "the client had left the other");
    drop(client);
    rig.wait("client that left", |seen| matches!(seen.fact, Fact::ClientLeft { request: 0, .. }).then_some(()));
}

/// Proxies say UNAVAILABLE of gRPC in headers that are the whole answer, behind a status that says that all is well.
#[test]
fn a_status_of_grpc_that_is_the_whole_answer_is_told() {
    let mut rig = rig();
    let requests: Vec<_> = (0..7).map(|n| get(2 * n + 1, &format!("/{n}"))).collect();
    let (address, _client, mut served) = asked(&requests, usize::MAX);
    let answers = [
        // New, with name and value as they are; then in the code of RFC 7541, as an entry of the table.
        frame(HEADERS, ALL, 1, b"\x88\x00\x0bgrpc-status\x0214"),
        frame(HEADERS, ALL, 3, b"\x88\x40\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x010"),
        // By the entry's name with a value of its own, which makes another entry; then that, and the first again.
        frame(HEADERS, ALL, 5, b"\x88\x7e\x82\x0b\x5f"),
        frame(HEADERS, ALL, 7, b"\x88\xbe"),
        frame(HEADERS, ALL, 9, b"\x88\xbf"),
        // Behind a body these are the words of whoever wrote it.
        frame(HEADERS, WHOLE_BLOCK, 11, b"\x88"),
        frame(0, 0, 11, b"body"),
        frame(HEADERS, ALL, 11, b"\xbe"),
        frame(HEADERS, ALL, 13, b"\x08\x03503"),
    ];
    served.write_all(&answers.concat()).unwrap();
    is(&stream_error(&mut rig, address, 13), 503, "/6");
    let of_grpc = |seen: &Observation| match &seen.fact {
        Fact::Client(e) if e.conn.flow.is_some_and(|f| f.local == address) => e.conn.grpc.map(|s| (e.conn.request, s)),
        _ => None,
    };
    let told: Vec<_> = rig.told().iter().filter_map(of_grpc).collect();
    assert_eq!(told, [(1, 14), (5, 14), (7, 14)]);
}
