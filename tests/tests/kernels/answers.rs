//! Upstreams that are spoken to in HTTP/2 and answer a stream with an error of their own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use trace502::model::*;

use crate::frames::*;
use crate::rig::*;

/// A proxy's connection to an upstream, asked on these streams for one client each, and the upstream's end of it.
struct Asked {
    at: SocketAddr,
    clients: Vec<Client>,
    proxy: TcpStream,
    upstream: TcpStream,
}

struct Client {
    _client: TcpStream,
    _proxy: TcpStream,
}

/// A client of this proxy asks something.
fn client(front: &TcpListener, path: &str) -> Client {
    let (mut client, mut proxy) = client_of(front);
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n").as_bytes()).unwrap();
    read_some(&mut proxy);
    Client { _client: client, _proxy: proxy }
}

const SETTINGS: u8 = 4;

fn asked(streams: &[u32]) -> Asked {
    let (front, _) = listen();
    let (listener, at) = listen();
    let mut clients = vec![client(&front, "/1")];
    let mut proxy = TcpStream::connect(at).unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    proxy.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    upstream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    read_some(&mut proxy);
    for (nth, stream) in streams.iter().enumerate() {
        if nth > 0 {
            clients.push(client(&front, &format!("/{stream}")));
        }
        proxy.write_all(&get(*stream, &format!("/{stream}"))).unwrap();
    }
    read_some(&mut upstream);
    Asked { at, clients, proxy, upstream }
}

impl Asked {
    /// The upstream says this, which the proxy reads in calls of `step` bytes.
    fn says(&mut self, frames: &[Vec<u8>], step: usize) {
        let all = frames.concat();
        self.upstream.write_all(&all).unwrap();
        let mut read = 0;
        while read < all.len() {
            let mut room = vec![0; step.min(all.len() - read)];
            read += self.proxy.read(&mut room).unwrap();
        }
    }

    /// Streams of which something was told: their number among the connection's requests, and the status.
    fn told(&self, rig: &mut Rig) -> Vec<(u32, Option<u16>)> {
        let ours = |attempt: &Attempt| attempt.endpoint == Endpoint::Tcp(self.at) && attempt.conn.stream;
        rig.told()
            .iter()
            .filter_map(|seen| match &seen.fact {
                Fact::Attempt(attempt) if ours(attempt) => Some((attempt.conn.request, attempt.conn.status)),
                _ => None,
            })
            .collect()
    }
}

fn of_request(rig: &mut Rig, at: SocketAddr, request: u32) -> Attempt {
    rig.wait(&format!("attempt that was request {request}"), |seen| match &seen.fact {
        Fact::Attempt(a) if a.endpoint == Endpoint::Tcp(at) && a.conn.request == request => Some((**a).clone()),
        _ => None,
    })
}

#[test]
fn each_stream_that_an_upstream_answers_with_an_error_is_told() {
    for step in [usize::MAX, 7, 1] {
        let mut rig = rig();
        let mut asked = asked(&[1, 3, 5, 7, 9]);
        asked.says(
            &[
                // In the code of its own and a new entry of the table, good, the entry again, what it says as it is.
                frame(HEADERS, ALL, 3, b"\x20\x3f\xe1\x1f\x48\x82\x6c\x02\x40\x01a\x01b"),
                frame(HEADERS, WHOLE_BLOCK, 1, b"\x88\x40\x01c\x01d"),
                frame(0, 1, 1, b"\0\0\x04\x01\x05\0\0\0\x09\x08\x03503 is a body"),
                frame(HEADERS, ALL, 7, b"\xc0"),
                frame(HEADERS, ALL, 5, b"\x08\x03504"),
                // Another status that is an entry of the table.
                frame(HEADERS, ALL, 9, b"\x48\x03403"),
            ],
            step,
        );
        assert_eq!(asked.told(&mut rig), [(2, Some(502)), (4, Some(502)), (3, Some(504))], "in pieces of {step}");
        let told = of_request(&mut rig, asked.at, 2);
        assert_eq!((told.handover, told.conn.phase), (Handover::Answered, Phase::Answered));
        assert!(told.conn.reused && told.conn.asked > told.conn.opened);
        assert_eq!(asked.clients.len(), 5);
        let told = of_request(&mut rig, asked.at, 3);
        assert!(told.stream_head.starts_with(b"GET /5 HTTP/2\r\n"), "each is kept, however many were asked since");
    }
}

#[test]
fn each_is_bound_to_the_client_that_was_read_before_it() {
    let mut rig = rig();
    let mut asked = asked(&[1, 3]);
    asked.says(&[frame(HEADERS, ALL, 1, b"\x08\x03503"), frame(HEADERS, ALL, 3, b"\x08\x03503")], usize::MAX);
    let bound = [1, 2].map(|request| of_request(&mut rig, asked.at, request).bound.unwrap().client);
    assert_ne!(bound[0], bound[1]);
}

/// Servers greet as soon as they are connected to, and a proxy may read that before it asks.
#[test]
fn a_greeting_may_come_before_anything_was_asked() {
    // The last frame as a whole, and its end missing.
    for cut in [0, 4] {
        let mut rig = rig();
        let (listener, at) = listen();
        let mut proxy = TcpStream::connect(at).unwrap();
        let (mut upstream, _) = listener.accept().unwrap();
        let greeting = [frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), frame(8, 0, 0, &[0, 1, 0, 0])].concat();
        let (first, rest) = greeting.split_at(greeting.len() - cut);
        upstream.write_all(first).unwrap();
        proxy.read_exact(&mut vec![0; first.len()]).unwrap();
        proxy.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &get(1, "/1")].concat()).unwrap();
        upstream.write_all(&[rest, &frame(HEADERS, ALL, 1, b"\x08\x03503")].concat()).unwrap();
        read_some(&mut proxy);
        let told = of_request(&mut rig, at, 1);
        assert_eq!((told.conn.status, told.conn.reused, told.conn.stream), (Some(503), false, true));
        assert!(told.stream_head.starts_with(b"GET /1 HTTP/2\r\nhost: shop.example"));
    }
}

/// An entry that was not seen to become one may be any status: nothing is claimed.
#[test]
fn a_status_that_cannot_be_known_is_not_told() {
    let mut rig = rig();
    let mut asked = asked(&[1, 3, 5]);
    asked.says(
        &[
            frame(HEADERS, ALL, 1, b"\x48\x03302"),
            frame(HEADERS, ALL, 3, b"\xbe"),
            // What has been answered has trailers, whatever they look like.
            frame(HEADERS, ALL, 3, b"\x08\x03503"),
            frame(HEADERS, WHOLE_BLOCK, 5, b"\x08\x03103"),
            frame(HEADERS, ALL, 5, b"\x08\x03503"),
        ],
        usize::MAX,
    );
    assert_eq!(asked.told(&mut rig), [(3, Some(503))], "behind an interim answer");
}

/// A proxy that closes late closes what led to the error: its answer is still known then.
#[test]
fn what_ends_right_behind_the_error_is_told_with_its_status() {
    let mut rig = rig();
    rig.closes_late(true);
    let (front, _) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    let mut asked = asked(&[1]);
    asked.says(&[frame(HEADERS, ALL, 1, b"\x08\x03503")], usize::MAX);
    served.write_all(b"HTTP/1.1 503 Busy\r\n\r\n").unwrap();
    let at = asked.at;
    drop(asked.proxy);
    rig.closes_late(false);
    let proven = rig.wait("what its owner ended", |seen| match &seen.fact {
        Fact::Attempt(a) if a.endpoint == Endpoint::Tcp(at) && a.bound.is_some_and(|b| b.proven) => Some((**a).clone()),
        _ => None,
    });
    assert_eq!((proven.handover, proven.conn.status), (Handover::Answered, Some(503)));
}

/// What was told by its stream is not told once more when its connection ends.
#[test]
fn the_end_of_the_connection_adds_nothing() {
    let mut rig = rig();
    let mut asked = asked(&[1]);
    asked.says(&[frame(HEADERS, ALL, 1, b"\x08\x03503")], usize::MAX);
    let at = asked.at;
    drop(asked);
    of_request(&mut rig, at, 1);
    rig.told();
    assert_eq!(rig.count_attempts(at), 1);
}
