//! Proxies that write an error first and close later: what the record says of their last act.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use trace502::model::*;

use crate::rig::*;

const ERROR: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// A client that has asked, and an upstream connection made for another one before.
struct Scene {
    served: TcpStream,
    proxy: TcpStream,
    front: SocketAddr,
    back: SocketAddr,
    _ends: (TcpStream, TcpStream),
}

fn scene() -> Scene {
    let (listener, back) = listen();
    let proxy = ask(back);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    let (front, at) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    Scene { served, proxy, front: at, back, _ends: (client, upstream) }
}

fn proven(attempt: &Attempt) -> bool {
    attempt.bound.is_some_and(|bound| bound.proven)
}

#[test]
fn what_is_closed_right_behind_the_error_led_to_it() {
    let mut rig = rig();
    rig.closes_late(true);
    let Scene { mut served, proxy, front, back, _ends } = scene();
    served.write_all(ERROR).unwrap();
    drop(proxy);
    let (error, attempt) = (rig.client_error(front), rig.attempt(back));
    rig.closes_late(false);
    assert!(proven(&attempt) && attempt.bound.unwrap().client == error.conn.cookie);
}

/// Its thread had nothing left to do, and then turned to somebody else.
#[test]
fn what_is_closed_after_a_sleep_is_another_story() {
    let mut rig = rig();
    rig.closes_late(true);
    let Scene { mut served, proxy, front, back, _ends } = scene();
    served.write_all(ERROR).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    drop(proxy);
    let (_, attempt) = (rig.client_error(front), rig.attempt(back));
    rig.closes_late(false);
    assert!(!proven(&attempt), "{attempt:?}");
}

#[test]
fn what_was_closed_right_before_the_error_is_named_in_it() {
    let mut rig = rig();
    for sleeps in [false, true] {
        rig.closes_late(true);
        let Scene { mut served, proxy, front, back, _ends } = scene();
        drop(proxy);
        if sleeps {
            std::thread::sleep(Duration::from_millis(2));
        }
        served.write_all(ERROR).unwrap();
        let (error, attempt) = (rig.client_error(front), rig.attempt(back));
        rig.closes_late(false);
        let after = error.conn.after.map(std::num::NonZero::get);
        assert_eq!(after, (!sleeps).then_some(attempt.conn.cookie), "sleeps: {sleeps}");
    }
}

/// The upstream takes no more of an upload, and its connection outlives the error.
#[test]
fn an_upload_that_is_left_open_is_told_with_its_error() {
    let mut rig = rig();
    rig.closes_late(true);
    let (front, at) = listen();
    let (back, to) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    let mut proxy = ask(to);
    let (_upstream, _) = back.accept().unwrap();
    proxy.set_nonblocking(true).unwrap();
    while proxy.write(&[b'x'; 16_384]).is_ok() {}
    served.write_all(ERROR).unwrap();
    let (error, attempt) = (rig.client_error(at), rig.attempt(to));
    rig.closes_late(false);
    assert_eq!((attempt.handover, attempt.conn.phase), (Handover::Asked, Phase::Asked));
    assert_eq!(attempt.bound.unwrap().client, error.conn.cookie);
    let (tcp, peer) = (attempt.tcp.unwrap(), attempt.peer.unwrap());
    assert!(tcp.unacked > 65_536, "of this moment, not of when it was kept: {tcp:?}");
    assert!(peer.live && peer.unread > 0, "{peer:?}");
}
