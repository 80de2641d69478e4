//! Answers that come before the request is over: what is still sent of its body is no request of its own.

use std::io::Write as _;

use trace502::model::*;

use crate::rig::*;

const POST: &[u8] = b"POST /upload HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 100000\r\n\r\nfirst";
const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
/// Like many a body it does not begin as a request does, however much it shouts.
const BODIES: [&[u8]; 4] = [b"a=1&b=2&c=3&d=4&e=5", b"{}", &[0; 64], b"HELLO WORLD, HOW ARE YOU"];

#[test]
fn a_body_that_an_upstream_did_not_wait_for_is_no_request() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = std::net::TcpStream::connect(at).unwrap();
    proxy.write_all(POST).unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    upstream.write_all(TOO_LARGE).unwrap();
    read_some(&mut proxy);
    for body in BODIES {
        proxy.write_all(body).unwrap();
    }
    drop((proxy, upstream));
    rig.told();
    assert_eq!(rig.count_attempts(at), 0, "it was answered");
}

#[test]
fn the_next_request_after_an_early_answer_is_one() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = std::net::TcpStream::connect(at).unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    for (n, next) in [(2, REQUEST), (3, &b"PROPFIND /dav HTTP/1.1\r\nHost: a\r\n\r\n"[..]), (4, b"G")] {
        proxy.write_all(POST).unwrap();
        read_some(&mut upstream);
        upstream.write_all(TOO_LARGE).unwrap();
        read_some(&mut proxy);
        proxy.write_all(BODIES[0]).unwrap();
        let _ = (n, read_some(&mut upstream));
        if n == 4 {
            proxy.write_all(next).unwrap();
            proxy.write_all(b"ET /last HTTP/1.1\r\n\r\n").unwrap();
            read_some(&mut upstream);
            drop(upstream);
            assert_eq!(read_some(&mut proxy), 0);
            break;
        }
        proxy.write_all(next).unwrap();
        read_some(&mut upstream);
        upstream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        read_some(&mut proxy);
    }
    drop(proxy);
    let conn = rig.attempt(at).conn;
    assert_eq!((conn.phase, conn.request, conn.reused), (Phase::Asked, 6, true));
    assert_eq!(conn.request_head, b"GET /last HTTP/1.1\r\n\r\n");
}

#[test]
fn a_body_that_its_client_sends_after_the_answer_is_no_request() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(POST).unwrap();
    read_some(&mut served);
    served.write_all(TOO_LARGE).unwrap();
    for body in BODIES {
        client.write_all(body).unwrap();
        read_some(&mut served);
    }
    drop(served);
    let closed = |seen: &&Observation| match &seen.fact {
        Fact::Client(error) => error.conn.flow.is_some_and(|flow| flow.local == address),
        _ => false,
    };
    assert_eq!(rig.told().iter().filter(closed).count(), 0, "nothing was left unanswered");
}
