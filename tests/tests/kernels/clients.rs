//! The client's side: error statuses in every kind of write, closes without an answer, pipelines.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use trace502::model::*;

use crate::rig::*;

const ERROR: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";

fn answered_with(write: impl FnOnce(&mut TcpStream)) -> ClientError {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    write(&mut served);
    rig.client_error(address)
}

fn is_502(error: &ClientError) {
    assert_eq!(error.outcome, ClientOutcome::Status(502));
    assert_eq!(error.conn.request_head, REQUEST);
    assert_eq!(error.conn.request, 1);
    assert!(error.conn.asked.is_some());
}

#[test]
fn an_error_is_seen_in_write_send_and_sendmsg() {
    is_502(&answered_with(|to| to.write_all(ERROR).unwrap()));
    is_502(&answered_with(|to| {
        // SAFETY: a valid descriptor and buffer.
        let sent = unsafe { libc::send(to.as_raw_fd(), ERROR.as_ptr().cast(), ERROR.len(), libc::MSG_NOSIGNAL) };
        assert_eq!(sent as usize, ERROR.len());
    }));
    is_502(&answered_with(|to| {
        let mut piece = libc::iovec { iov_base: ERROR.as_ptr().cast_mut().cast(), iov_len: ERROR.len() };
        // SAFETY: all zeroes is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        // SAFETY: a valid descriptor, message and buffer.
        let sent = unsafe { libc::sendmsg(to.as_raw_fd(), &raw const message, 0) };
        assert_eq!(sent as usize, ERROR.len());
    }));
}

#[test]
fn a_request_is_seen_in_read_readv_recv_and_recvmsg() {
    type Read = fn(i32, &mut [u8]) -> isize;
    // SAFETY: all of them get a valid descriptor and a buffer of its length.
    let read: Read = |from, room| unsafe { libc::read(from, room.as_mut_ptr().cast(), room.len()) };
    // SAFETY: as above.
    let recv: Read = |from, room| unsafe { libc::recv(from, room.as_mut_ptr().cast(), room.len(), 0) };
    // SAFETY: as above.
    let readv: Read = |from, room| unsafe { libc::readv(from, halves(room).as_ptr(), 2) };
    // SAFETY: as above; all zeroes is a valid msghdr.
    let recvmsg: Read = |from, room| unsafe {
        let mut halves = halves(room);
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = halves.as_mut_ptr();
        message.msg_iovlen = halves.len();
        libc::recvmsg(from, &raw mut message, 0)
    };
    for read in [read, recv, readv, recvmsg] {
        let mut rig = rig();
        let (front, address) = listen();
        let (mut client, mut served) = client_of(&front);
        client.write_all(REQUEST).unwrap();
        assert_eq!(read(served.as_raw_fd(), &mut [0; 256]) as usize, REQUEST.len());
        served.write_all(ERROR).unwrap();
        is_502(&rig.client_error(address));
    }
}

/// A first buffer that is too small for the request, and the rest.
fn halves(room: &mut [u8]) -> [libc::iovec; 2] {
    let (first, rest) = room.split_at_mut(8);
    [first, rest].map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() })
}

#[test]
fn a_status_split_over_several_buffers_is_seen() {
    let error = answered_with(|to| {
        let pieces = [&b"HTTP/1.1"[..], b" ", b"503", b" Backend fetch failed\r\n\r\n"].map(IoSlice::new);
        let whole: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert_eq!(to.write_vectored(&pieces).unwrap(), whole);
    });
    assert_eq!(error.outcome, ClientOutcome::Status(503));
}

#[test]
fn a_request_read_in_two_pieces_is_one_request() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(&REQUEST[..1]).unwrap();
    read_some(&mut served);
    client.write_all(&REQUEST[1..]).unwrap();
    read_some(&mut served);
    served.write_all(ERROR).unwrap();
    is_502(&rig.client_error(address));
}

#[test]
fn a_short_last_piece_of_a_body_is_no_request() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(b"POST /cart HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 7\r\n\r\n").unwrap();
    read_some(&mut served);
    served.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    client.write_all(b"Total=9").unwrap();
    read_some(&mut served);
    // A method that comes by itself is the beginning of one.
    for piece in [&b"GET "[..], b"/cart HTTP/1.1\r\nHost: shop.example\r\n\r\n"] {
        client.write_all(piece).unwrap();
        read_some(&mut served);
    }
    served.write_all(ERROR).unwrap();
    let error = rig.client_error(address);
    assert_eq!((error.conn.request, error.outcome), (2, ClientOutcome::Status(502)));
    assert!(error.conn.request_head.starts_with(b"GET /cart"), "{error:?}");
}

#[test]
fn an_error_in_one_write_with_an_interim_answer_is_seen() {
    let both = [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], ERROR].concat();
    let error = answered_with(|to| to.write_all(&both).unwrap());
    is_502(&error);
    assert_eq!((&error.conn.reply_head[..], error.conn.reply_bytes), (ERROR, ERROR.len() as u64));
    is_502(&answered_with(|to| {
        to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        to.write_all(ERROR).unwrap();
    }));
}

#[test]
fn garbage_for_an_answer_is_seen() {
    let error = answered_with(|to| to.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap());
    assert_eq!(error.outcome, ClientOutcome::Garbled);
}

#[test]
fn a_close_without_an_answer_is_seen() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    served.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    drop(served);
    let error = rig.client_error(address);
    assert_eq!((error.outcome, error.conn.request), (ClientOutcome::Closed, 2));
}

#[test]
fn a_client_that_leaves_first_is_told_as_that() {
    let mut rig = rig();
    let (front, _) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    drop(client);
    rig.wait("client that left", |seen| matches!(seen.fact, Fact::ClientLeft { request: 1, .. }).then_some(()));
    drop(served);
    let closed = rig.told().iter().any(|seen| matches!(seen.fact, Fact::Client(_)));
    assert!(!closed, "the client left: nobody failed it");
}

#[test]
fn pipelined_answers_keep_their_order() {
    let mut rig = rig();
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_some(&mut served);
    served.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    served.write_all(ERROR).unwrap();
    let error = rig.client_error(address);
    assert_eq!((error.outcome, error.conn.request), (ClientOutcome::Status(502), 2));
    assert!(error.conn.ahead, "nothing was read between the two answers");
}

#[test]
fn an_attempt_is_bound_to_the_request_it_serves() {
    let mut rig = rig();
    let (front, address) = listen();
    let (back, at) = listen();
    let (mut first, mut served_first) = client_of(&front);
    let (mut second, mut served_second) = client_of(&front);
    first.write_all(b"GET /first HTTP/1.1\r\n\r\n").unwrap();
    read_some(&mut served_first);
    second.write_all(b"GET /second HTTP/1.1\r\n\r\n").unwrap();
    read_some(&mut served_second);
    // The last one read is served; its upstream closes, and the proxy tells before it closes.
    let mut proxy = ask(at);
    let (mut upstream, _) = back.accept().unwrap();
    read_some(&mut upstream);
    drop(upstream);
    read_some(&mut proxy);
    drop(proxy);
    served_second.write_all(ERROR).unwrap();
    let attempt = rig.attempt(at);
    let error = rig.client_error(address);
    assert!(error.conn.request_head.starts_with(b"GET /second"));
    assert_eq!(attempt.bound.unwrap().client, error.conn.cookie);
    assert_eq!(attempt.bound.unwrap().request, 1);
}

#[test]
fn an_attempt_that_looked_well_is_told_as_it_was_when_it_ended() {
    let mut rig = rig();
    let (front, address) = listen();
    let (back, at) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    let mut proxy = ask(at);
    let (mut upstream, _) = back.accept().unwrap();
    read_some(&mut upstream);
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").unwrap();
    read_some(&mut proxy);
    upstream.write_all(b"unread").unwrap();
    assert_eq!(proxy.peek(&mut [0; 6]).unwrap(), 6);
    drop(proxy);
    // Its other end goes as well.
    assert!(upstream.read(&mut [0; 1]).is_err(), "the proxy left something unread");
    drop(upstream);
    served.write_all(ERROR).unwrap();
    let error = rig.client_error(address);
    let attempt = rig.attempt(at);
    assert_eq!((attempt.handover, attempt.conn.status), (Handover::Asked, Some(200)));
    assert!(attempt.conn.closed_first && attempt.conn.reply_head.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(attempt.bound.unwrap().client, error.conn.cookie);
    assert_eq!(attempt.tcp.unwrap().unread, 6);
    assert!(matches!(attempt.listener, ListenerSeen::Present { .. }), "{:?}", attempt.listener);
    let peer = attempt.peer.unwrap();
    assert_eq!((peer.closed_first, peer.read_by), (false, Some(std::process::id())));
    // It is told once.
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    served.write_all(ERROR).unwrap();
    rig.told();
    assert_eq!(rig.count_attempts(at), 1);
}

#[test]
fn an_attempt_that_looked_well_is_handed_over_after_the_error() {
    for late in [false, true] {
        let mut rig = rig();
        rig.closes_late(late);
        let (front, address) = listen();
        let (back, at) = listen();
        let (mut client, mut served) = client_of(&front);
        client.write_all(REQUEST).unwrap();
        read_some(&mut served);
        let mut proxy = ask(at);
        let (mut upstream, _) = back.accept().unwrap();
        read_some(&mut upstream);
        upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").unwrap();
        drop(upstream);
        read_some(&mut proxy);
        if late {
            served.write_all(ERROR).unwrap();
            drop(proxy);
        } else {
            drop(proxy);
            served.write_all(ERROR).unwrap();
        }
        let error = rig.client_error(address);
        let attempt = rig.attempt(at);
        rig.closes_late(false);
        assert_eq!((attempt.handover, attempt.conn.status), (Handover::Asked, Some(200)), "late: {late}");
        assert!(attempt.conn.fin.is_some() && !attempt.conn.fin_early, "the answer had begun before its end came");
        assert_eq!(attempt.bound.unwrap().client, error.conn.cookie);
    }
}
