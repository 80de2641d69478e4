//! Clients whose bytes cannot be read: an answer right after a failed attempt, and what takes it back.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use trace502::model::*;
use trace502_ebpf::{PROC_LATE, PROC_PROXY};

use crate::rig::*;

/// Begins like a ClientHello.
const HELLO: &[u8] = b"\x16\x03\x01\x00\x20\x01 and so on, long enough to be one";
/// A record of application data: larger than an alert.
const SECRET: &[u8] = b"\x17\x03\x03\x00\x40 nobody can read what stands here, and it is long enough";
const ALERT: &[u8] = b"\x15\x03\x03\x00\x02\x01\x00";

/// A client that has shaken hands with this process and then asked for something.
fn sealed() -> (TcpStream, TcpStream, SocketAddr) {
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(HELLO).unwrap();
    read_some(&mut served);
    served.write_all(SECRET).unwrap();
    client.write_all(SECRET).unwrap();
    read_some(&mut served);
    (client, served, address)
}

/// An upstream that closes without an answer.
fn broken() {
    let (upstream, at) = listen();
    let mut asked = ask(at);
    let (mut other, _) = upstream.accept().unwrap();
    read_some(&mut other);
    drop(other);
    assert_eq!(read_some(&mut asked), 0);
}

fn answered() -> TcpStream {
    let (upstream, at) = listen();
    let mut asked = ask(at);
    let (mut other, _) = upstream.accept().unwrap();
    read_some(&mut other);
    other.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    read_some(&mut asked);
    asked
}

fn is_unseen(error: &ClientError) {
    assert_eq!(error.outcome, ClientOutcome::Unseen);
    assert_eq!(error.conn.request_head[..2], HELLO[..2]);
}

fn unseen_at(told: &[Observation], at: SocketAddr) -> usize {
    let about =
        |seen: &&Observation| matches!(&seen.fact, Fact::Client(e) if e.conn.flow.is_some_and(|f| f.local == at));
    told.iter().filter(about).count()
}

#[test]
fn an_answer_right_after_a_failed_attempt_is_told() {
    rig().without_tls(|rig| {
        let (_client, mut served, at) = sealed();
        let nobody = free_port();
        assert!(TcpStream::connect(nobody).is_err());
        served.write_all(SECRET).unwrap();
        let error = rig.client_error(at);
        is_unseen(&error);
        let bound = rig.attempt(nobody).bound.unwrap();
        assert_eq!((bound.client, bound.request), (error.conn.cookie, error.conn.request));
    });
}

#[test]
fn each_request_of_a_connection_is_told_by_itself() {
    rig().without_tls(|rig| {
        let (mut client, mut served, at) = sealed();
        drop(answered());
        served.write_all(SECRET).unwrap();
        client.write_all(SECRET).unwrap();
        read_some(&mut served);
        broken();
        served.write_all(SECRET).unwrap();
        is_unseen(&rig.client_error(at));
        client.write_all(SECRET).unwrap();
        read_some(&mut served);
        drop(answered());
        served.write_all(SECRET).unwrap();
        assert_eq!(unseen_at(rig.told(), at), 1);
        assert!(!rig.told().iter().any(|seen| matches!(seen.fact, Fact::Rescued { .. })), "another request's answer");
    });
}

#[test]
fn an_answer_after_a_try_that_went_well_is_none() {
    rig().without_tls(|rig| {
        let (_client, mut served, at) = sealed();
        broken();
        let asked = answered();
        served.write_all(SECRET).unwrap();
        drop(asked);
        assert_eq!(unseen_at(rig.told(), at), 0);
    });
}

/// A thread that serves several clients takes what it read last for whom it tries again.
#[test]
fn an_attempt_that_was_begun_meanwhile_may_be_the_next_try() {
    rig().without_tls(|rig| {
        let (_client, mut served, at) = sealed();
        broken();
        let (_other, _others, _) = sealed();
        drop(answered());
        served.write_all(SECRET).unwrap();
        assert_eq!(unseen_at(rig.told(), at), 0);
    });
}

#[test]
fn an_alert_and_what_comes_much_later_are_none() {
    rig().without_tls(|rig| {
        let (_client, mut served, at) = sealed();
        broken();
        served.write_all(ALERT).unwrap();
        std::thread::sleep(Duration::from_millis(40));
        served.write_all(SECRET).unwrap();
        assert_eq!(unseen_at(rig.told(), at), 0);
    });
}

#[test]
fn a_request_that_its_client_took_back_is_none() {
    rig().without_tls(|rig| {
        let (mut client, mut served, at) = sealed();
        let (_upstream, to) = listen();
        let asked = ask(to);
        client.write_all(SECRET).unwrap();
        read_some(&mut served);
        drop(asked);
        served.write_all(SECRET).unwrap();
        assert_eq!(unseen_at(rig.told(), at), 0);
        // Not heard of meanwhile, it is one: the proxy gave up.
        client.write_all(SECRET).unwrap();
        read_some(&mut served);
        drop(ask(to));
        served.write_all(SECRET).unwrap();
        is_unseen(&rig.client_error(at));
    });
}

#[test]
fn what_a_later_try_brings_takes_the_error_back() {
    rig().without_tls(|rig| {
        let (_client, mut served, at) = sealed();
        broken();
        served.write_all(SECRET).unwrap();
        let error = rig.client_error(at);
        drop(answered());
        let client = rig.wait("rescue", |seen| match seen.fact {
            Fact::Rescued { client } => Some(client),
            _ => None,
        });
        assert_eq!(client, error.conn.cookie);
    });
}

#[test]
fn a_proxy_that_closes_late_is_left_out() {
    let mut rig = rig();
    rig.kernel.track(std::process::id(), PROC_PROXY | PROC_LATE).unwrap();
    let (_client, mut served, at) = sealed();
    broken();
    served.write_all(SECRET).unwrap();
    let told = unseen_at(rig.told(), at);
    rig.closes_late(false);
    assert_eq!(told, 0);
}
