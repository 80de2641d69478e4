//! Upstreams that are connected and then fail: closed, reset, silent, garbled.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};

use trace502::host::monotonic;
use trace502::model::*;

use crate::rig::*;

/// `TCP_ESTABLISHED` of the kernel.
const ESTABLISHED: u8 = 1;

/// The state of a connection, as the kernel sees it now.
fn state(stream: &TcpStream) -> u8 {
    let (mut state, mut len) = (0_u8, 1);
    // SAFETY: the first member of `tcp_info` is its state; a buffer that is smaller gets what fits.
    let asked = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &raw mut len)
    };
    assert_eq!((asked, len), (0, 1));
    state
}

#[test]
fn an_orderly_close_before_the_answer_names_who_closed() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    drop(upstream);
    while state(&proxy) == ESTABLISHED {}
    let closed = monotonic();
    assert_eq!(read_some(&mut proxy), 0);
    drop(proxy);
    let attempt = rig.attempt(at);
    let conn = &attempt.conn;
    assert_eq!((attempt.handover, conn.phase), (Handover::Failed, Phase::Asked));
    // When it came, not when the proxy learnt of it.
    assert!(
        conn.fin.unwrap() > conn.asked.unwrap() && conn.fin.unwrap() <= closed && conn.fin_early && !conn.closed_first
    );
    assert_eq!(conn.request_head, REQUEST);
    assert_eq!((conn.request_bytes, conn.reply_bytes, conn.reset), (REQUEST.len() as u64, 0, None));
    let peer = attempt.peer.unwrap();
    assert!(peer.accepted && peer.closed_first && !peer.sent_reset);
    assert_eq!((peer.closed_by, peer.unread), (Some(std::process::id()), 0));
}

/// An interim answer is none: the close after it comes before the first byte of the answer.
#[test]
fn a_close_after_an_interim_answer_is_one_without_an_answer() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    upstream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    read_some(&mut proxy);
    drop(upstream);
    assert_eq!(read_some(&mut proxy), 0);
    drop(proxy);
    let conn = rig.attempt(at).conn;
    assert_eq!((conn.phase, conn.reply_bytes, conn.reply_head.len()), (Phase::Asked, 0, 0));
    assert!(conn.fin_early);
}

/// A banner, or the first frame of HTTP/2, may be there before anything was asked.
#[test]
fn what_the_upstream_says_before_it_is_asked_belongs_to_its_answer() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = std::net::TcpStream::connect(at).unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
    read_some(&mut proxy);
    proxy.write_all(REQUEST).unwrap();
    read_some(&mut upstream);
    drop(upstream);
    read_some(&mut proxy);
    drop(proxy);
    let conn = rig.attempt(at).conn;
    assert_eq!((conn.request, conn.reused, conn.request_head.as_slice()), (1, false, REQUEST));
    assert_eq!(conn.reply_head, b"SSH-2.0-OpenSSH_9.2\r\n");
}

#[test]
fn an_error_in_one_piece_with_an_interim_answer_is_the_upstreams() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    upstream.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\n\r\n").unwrap();
    read_some(&mut proxy);
    let attempt = rig.attempt(at);
    assert_eq!((attempt.handover, attempt.conn.status), (Handover::Answered, Some(503)));
    assert_eq!(attempt.conn.reply_head, b"HTTP/1.1 503 Busy\r\n\r\n");
}

/// Whoever gets the error of it, and whether anybody is bound to it.
#[test]
fn an_answer_that_breaks_off_in_its_header_is_told_when_it_ends() {
    let broken: [&[u8]; 2] = [b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nA: b\r\n"];
    let whole: [&[u8]; 2] = [b"HTTP/1.1 204 Well\r\nA: b\r\n\r\n", b"HTTP/1.1 200 OK\nA: b\n\nok"];
    let mut rig = rig();
    let (listener, at) = listen();
    for answer in whole.into_iter().chain(broken) {
        let mut proxy = ask(at);
        let (mut upstream, _) = listener.accept().unwrap();
        read_some(&mut upstream);
        upstream.write_all(answer).unwrap();
        drop(upstream);
        while read_some(&mut proxy) > 0 {}
    }
    let told = rig.attempt(at);
    assert_eq!((told.handover, told.conn.reply_head.as_slice()), (Handover::Failed, broken[0]));
    rig.wait("the second one that breaks off", |seen| match &seen.fact {
        Fact::Attempt(told) if told.conn.reply_head == broken[1] => Some(()),
        _ => None,
    });
    assert_eq!(rig.count_attempts(at), 2, "those that are whole are not told");
}

#[test]
fn a_close_with_unread_bytes_is_a_reset_with_its_reason() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = ask(at);
    let (upstream, _) = listener.accept().unwrap();
    drop(upstream);
    assert!(proxy.read(&mut [0; 16]).is_err());
    drop(proxy);
    let attempt = rig.attempt(at);
    assert!(attempt.conn.reset.is_some());
    assert_eq!((attempt.conn.errno, attempt.conn.last_state), (Some(libc::ECONNRESET), ESTABLISHED));
    let peer = attempt.peer.unwrap();
    assert!(peer.closed_first && peer.sent_reset);
    assert_eq!(peer.unread as usize, REQUEST.len());
    assert_eq!(peer.reset_reason.as_deref(), rig.names_resets().then_some("TCP_ABORT_ON_CLOSE"));
}

#[test]
fn silence_tells_whether_the_request_was_accepted_and_read() {
    let mut rig = rig();
    let (listener, at) = listen();
    drop(ask(at));
    let peer = rig.attempt(at).peer.unwrap();
    assert!(peer.live && !peer.accepted, "nobody called accept(): {peer:?}");
    assert_eq!(peer.unread as usize, REQUEST.len());
    drop(listener);

    let (listener, at) = listen();
    let proxy = ask(at);
    let (upstream, _) = listener.accept().unwrap();
    drop(proxy);
    let peer = rig.attempt(at).peer.unwrap();
    assert!(peer.accepted && peer.live && !peer.closed_first);
    assert_eq!(peer.unread as usize, REQUEST.len(), "accepted, not read");
    drop(upstream);

    let (listener, at) = listen();
    let proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    drop(proxy);
    let attempt = rig.attempt(at);
    assert!(attempt.conn.closed_first && attempt.conn.fin.is_none());
    let peer = attempt.peer.unwrap();
    assert_eq!((peer.accepted, peer.unread), (true, 0), "accepted, read, not answered");
}

#[test]
fn a_reused_connection_knows_its_request_and_its_idle_time() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    upstream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    read_some(&mut proxy);
    proxy.write_all(REQUEST).unwrap();
    read_some(&mut upstream);
    abort(upstream);
    assert!(proxy.read(&mut [0; 16]).is_err());
    drop(proxy);
    let conn = rig.attempt(at).conn;
    assert!(conn.reused && conn.asked.unwrap() > conn.asked_before.unwrap());
    assert_eq!((conn.request, conn.phase), (2, Phase::Asked));
    assert!(conn.reset.is_some() && conn.reply_head.is_empty());
}

#[test]
fn bytes_that_are_no_http_are_told_at_once() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
    read_some(&mut proxy);
    let attempt = rig.attempt(at);
    assert_eq!((attempt.handover, attempt.conn.status), (Handover::Answered, None));
    assert_eq!(attempt.conn.reply_head, b"SSH-2.0-OpenSSH_9.2\r\n");
}

#[test]
fn an_answer_of_502_is_told_while_the_connection_goes_on() {
    let mut rig = rig();
    let (listener, at) = listen();
    let mut proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    read_some(&mut proxy);
    upstream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").unwrap();
    read_some(&mut proxy);
    let attempt = rig.attempt(at);
    assert_eq!((attempt.handover, attempt.conn.status), (Handover::Answered, Some(502)));
}

/// A proxy that asks over a unix socket whose other end reads this much of the request and goes.
fn gone_after(rig: &mut Rig, name: &str, reads: usize) -> Attempt {
    let path = std::env::temp_dir().join(format!("t502-{}-{name}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let mut proxy = UnixStream::connect(&path).unwrap();
    proxy.write_all(REQUEST).unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    if reads > 0 {
        upstream.read_exact(&mut vec![0; reads]).unwrap();
    }
    drop(upstream);
    // Unread bytes make it a reset, which unix sockets have too.
    assert!(proxy.read(&mut [0; 16]).is_err());
    let attempt = rig.wait("attempt on a unix socket", |seen| match &seen.fact {
        Fact::Attempt(attempt) if attempt.endpoint == Endpoint::Unix(path.display().to_string()) => {
            Some((**attempt).clone())
        }
        _ => None,
    });
    std::fs::remove_file(path).unwrap();
    attempt
}

#[test]
fn a_unix_upstream_that_goes_is_told_when_the_proxy_learns_it() {
    let attempt = gone_after(&mut rig(), "gone", 0);
    assert_eq!((attempt.handover, attempt.conn.phase), (Handover::Failed, Phase::Asked));
    assert_eq!(attempt.conn.errno, Some(libc::ECONNRESET));
    assert_eq!(attempt.conn.request_head, REQUEST);
    let peer = attempt.peer.unwrap();
    assert_eq!((peer.read_by, peer.live), (None, false));
}

#[test]
fn who_reads_the_other_end_of_a_unix_connection_is_told() {
    let attempt = gone_after(&mut rig(), "read", 10);
    let peer = attempt.peer.unwrap();
    assert_eq!((peer.read_by, peer.accepted), (Some(std::process::id()), true));
}

#[test]
fn a_healthy_exchange_is_not_told() {
    let mut rig = rig();
    let (front, address) = listen();
    let (back, at) = listen();
    for _ in 0..3 {
        let (mut client, mut served) = client_of(&front);
        client.write_all(REQUEST).unwrap();
        read_some(&mut served);
        let mut proxy = ask(at);
        let (mut upstream, _) = back.accept().unwrap();
        read_some(&mut upstream);
        upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        drop(upstream);
        read_some(&mut proxy);
        drop(proxy);
        served.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        read_some(&mut client);
    }
    let noise: Vec<_> = rig
        .told()
        .iter()
        .filter(|seen| match &seen.fact {
            Fact::Attempt(attempt) => {
                attempt.endpoint == Endpoint::Tcp(at) || attempt.endpoint == Endpoint::Tcp(address)
            }
            Fact::Client(_) | Fact::ClientLeft { .. } | Fact::Dropped(_) => true,
            _ => false,
        })
        .collect();
    assert!(noise.is_empty(), "{noise:#?}");
}

/// A record of FastCGI for request 1.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u16).to_be_bytes();
    [&[1, kind, 0, 1, len[0], len[1], 0, 0], content].concat()
}

#[test]
fn a_status_behind_what_an_application_complained_of_is_seen_however_it_is_cut() {
    const STDERR: u8 = 7;
    const STDOUT: u8 = 6;
    let mut rig = rig();
    let complaint = [record(STDERR, &[b'x'; 600]), record(STDERR, &[b'y'; 600])].concat();
    let answer = record(STDOUT, b"Status: 502 Bad Gateway\r\n\r\n");
    // Within the first head, within a text, at a record's end, within the second text.
    for cuts in [&[3][..], &[300], &[608], &[100, 700, 1216], &[1300]] {
        let (listener, at) = listen();
        let mut proxy = TcpStream::connect(at).unwrap();
        proxy.write_all(&record(1, &[0, 1, 1, 0, 0, 0, 0, 0])).unwrap();
        let (mut upstream, _) = listener.accept().unwrap();
        read_some(&mut upstream);
        let complaint = [&complaint[..], &record(STDERR, &[b'z'; 600])].concat();
        let mut rest = &[&complaint[..], &answer].concat()[..];
        let mut from = 0;
        for cut in cuts {
            let (piece, more) = rest.split_at(cut - from);
            upstream.write_all(piece).unwrap();
            assert_eq!(read_some(&mut proxy), piece.len());
            (rest, from) = (more, *cut);
        }
        upstream.write_all(rest).unwrap();
        assert_eq!(read_some(&mut proxy), rest.len());
        drop(upstream);
        drop(proxy);
        assert_eq!(rig.attempt(at).conn.status, Some(502), "cut at {cuts:?}");
    }
}
