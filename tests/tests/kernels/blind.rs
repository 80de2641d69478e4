//! Payload that passes no buffer of the process: counted, and nothing made up of it.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use trace502::model::*;

use crate::rig::*;
use crate::uring;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Payload that could not be read so far.
fn unreadable(rig: &Rig) -> u64 {
    rig.kernel.lost()[0]
}

/// A client asks, and is answered with this whole answer in a way that hides its bytes.
fn hidden(answer: impl FnOnce(&TcpStream)) {
    let mut rig = rig();
    let before = unreadable(&rig);
    let (front, address) = listen();
    let (mut client, mut served) = client_of(&front);
    client.write_all(REQUEST).unwrap();
    read_some(&mut served);
    answer(&served);
    assert_eq!(read_some(&mut client), ANSWER.len());
    assert!(unreadable(&rig) > before, "it is counted");
    drop(served);
    let told: Vec<_> = rig
        .told()
        .iter()
        .filter(|seen| match &seen.fact {
            Fact::Client(error) => error.conn.flow.is_some_and(|flow| flow.local == address),
            _ => false,
        })
        .collect();
    assert!(told.is_empty(), "an answer that was not seen is no error: {told:#?}");
}

/// A file that holds the answer.
fn file() -> File {
    let path = std::env::temp_dir().join(format!("t502-{}-answer", std::process::id()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(ANSWER).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn an_answer_by_sendfile_is_counted_not_guessed() {
    hidden(|to| {
        let file = file();
        // SAFETY: valid descriptors, and no offset to write to.
        let sent = unsafe { libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), std::ptr::null_mut(), ANSWER.len()) };
        assert_eq!(sent as usize, ANSWER.len());
    });
}

#[test]
fn an_answer_by_splice_is_counted_not_guessed() {
    hidden(|to| {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors, which are then ours.
        let (out, into) = unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
        };
        File::from(into).write_all(ANSWER).unwrap();
        let none = std::ptr::null_mut();
        // SAFETY: valid descriptors, and no offsets.
        let sent = unsafe { libc::splice(out.as_raw_fd(), none, to.as_raw_fd(), none, ANSWER.len(), 0) };
        assert_eq!(sent as usize, ANSWER.len());
    });
}

#[test]
fn an_answer_by_io_uring_is_counted_not_guessed() {
    let Some(mut ring) = uring::Uring::new() else {
        println!("skipped: io_uring is switched off here");
        return;
    };
    hidden(|to| assert_eq!(ring.send(to.as_raw_fd(), ANSWER) as usize, ANSWER.len()));
}

#[test]
fn an_upstream_that_is_read_by_io_uring_does_not_look_garbled() {
    let Some(mut ring) = uring::Uring::new() else {
        println!("skipped: io_uring is switched off here");
        return;
    };
    let mut rig = rig();
    let (listener, at) = listen();
    let proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.write_all(ANSWER).unwrap();
    let mut room = [0; 256];
    assert_eq!(ring.receive(proxy.as_raw_fd(), &mut room) as usize, ANSWER.len());
    drop((proxy, upstream));
    let told =
        |seen: &&Observation| matches!(&seen.fact, Fact::Attempt(attempt) if attempt.endpoint == Endpoint::Tcp(at));
    let told: Vec<_> = rig.told().iter().filter(told).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn what_io_uring_receives_during_another_call_is_not_read_from_that_call() {
    let Some(mut ring) = uring::Uring::new() else {
        println!("skipped: io_uring is switched off here");
        return;
    };
    let mut rig = rig();
    let before = unreadable(&rig);
    let (listener, at) = listen();
    let proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    let mut room = [0; 256];
    ring.begin_receive(proxy.as_raw_fd(), &mut room);
    // The answer comes while this thread waits in a call of its own, whose buffer holds something else.
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are then ours.
    let (out, mut into) = unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        (File::from(OwnedFd::from_raw_fd(ends[0])), File::from(OwnedFd::from_raw_fd(ends[1])))
    };
    let mut other = *b"HTTP/1.1 503 Service Unavailable\r\n\r\n";
    let answering = std::thread::spawn(move || {
        upstream.write_all(ANSWER).unwrap();
        // The completion is on its way when this is written: the thread that waits is woken for it first.
        std::thread::sleep(std::time::Duration::from_millis(50));
        into.write_all(b"x").unwrap();
        upstream
    });
    // SAFETY: a valid descriptor, and a buffer that is longer than what will be read.
    let n = unsafe { libc::read(out.as_raw_fd(), other.as_mut_ptr().cast(), 1) };
    let upstream = answering.join().unwrap();
    assert_eq!((n, ring.result()), (1, Some(ANSWER.len() as i32)));
    assert!(unreadable(&rig) > before, "it is counted");
    drop((proxy, upstream));
    rig.told();
    assert_eq!(rig.count_attempts(at), 0, "the other call's bytes are no answer");
}
