//! What was there before the agent: found without a restart of anything.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::FromRawFd as _;
use std::os::unix::net::UnixListener;

use trace502::kernel::{Kernel, Options, Ring};
use trace502::model::*;
use trace502_ebpf::PROC_PROXY;

use crate::rig::*;

/// A listener of MPTCP, as Go makes all of its own.
fn listen_on_many_paths() -> Option<TcpListener> {
    // SAFETY: plain numbers.
    let file = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) };
    if file < 0 {
        return None;
    }
    // SAFETY: a file that nobody else has.
    let listener = unsafe { TcpListener::from_raw_fd(file) };
    // SAFETY: all zeroes is a valid address: any port of any of this host's.
    let mut any: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    any.sin_family = libc::AF_INET as u16;
    // SAFETY: an address of that size.
    assert_eq!(unsafe { libc::bind(file, (&raw const any).cast(), size_of_val(&any) as u32) }, 0);
    // SAFETY: a socket that is bound.
    assert_eq!(unsafe { libc::listen(file, 8) }, 0);
    Some(listener)
}

#[test]
fn connections_and_listeners_that_exist_are_picked_up() {
    let (listener, at) = listen();
    let mut proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    upstream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    read_some(&mut proxy);

    let path = std::env::temp_dir().join(format!("t502-{}-existing.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let unix = UnixListener::bind(&path).unwrap();

    // A second agent starts only now. (The first sees all this too; its facts are not looked at.)
    let mut late = Kernel::load(&Options::default()).unwrap();
    late.track(std::process::id(), PROC_PROXY).unwrap();
    late.find_existing();
    let mut ring = Ring::new(late.take_ring().unwrap());
    let mut seen = Vec::new();
    ring.drain(usize::MAX, |record| seen.push(trace502::decode::decode(record, &late.names).unwrap().fact));
    assert!(
        seen.iter().any(|fact| matches!(fact, Fact::Listening(found) if found.endpoint == Endpoint::Tcp(at))),
        "the listener is not among {seen:#?}"
    );
    let endpoint = Endpoint::Unix(path.display().to_string());
    let found = seen.iter().find_map(|fact| match fact {
        Fact::Listening(found) if found.endpoint == endpoint => Some((found.pid, found.cgroup != 0)),
        _ => None,
    });
    assert_eq!(found, Some((std::process::id(), true)));
    drop(unix);
    std::fs::remove_file(path).unwrap();

    proxy.write_all(REQUEST).unwrap();
    read_some(&mut upstream);
    abort(upstream);
    assert!(proxy.read(&mut [0; 16]).is_err());
    drop(proxy);
    seen.clear();
    ring.drain(usize::MAX, |record| seen.push(trace502::decode::decode(record, &late.names).unwrap().fact));
    let attempt = seen
        .iter()
        .find_map(|fact| match fact {
            Fact::Attempt(attempt) if attempt.endpoint == Endpoint::Tcp(at) => Some(attempt),
            _ => None,
        })
        .expect("the attempt on a connection that existed before");
    assert!(attempt.conn.old && attempt.conn.reused && attempt.conn.reset.is_some());
    assert!(attempt.peer.as_ref().is_some_and(|peer| peer.sent_reset), "{attempt:?}");
}

#[test]
fn clients_of_a_listener_of_mptcp_are_seen() {
    // A kernel without MPTCP has no such listeners.
    let Some(listener) = listen_on_many_paths() else { return };
    let port = listener.local_addr().unwrap().port();
    let mut late = Kernel::load(&Options::default()).unwrap();
    late.track(std::process::id(), PROC_PROXY).unwrap();
    late.find_existing();
    let mut client = ask((Ipv4Addr::LOCALHOST, port).into());
    let (mut accepted, _) = listener.accept().unwrap();
    read_some(&mut accepted);
    accepted.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").unwrap();
    read_some(&mut client);
    let mut ring = Ring::new(late.take_ring().unwrap());
    let mut seen = Vec::new();
    ring.drain(usize::MAX, |record| seen.push(trace502::decode::decode(record, &late.names).unwrap().fact));
    let ours = |error: &ClientError| error.conn.flow.is_some_and(|flow| flow.local.port() == port);
    assert!(seen.iter().any(|fact| matches!(fact, Fact::Client(error) if ours(error))), "{seen:#?}");
}

#[test]
fn a_listener_of_mptcp_that_starts_later_counts_once() {
    let mut rig = rig();
    let Some(listener) = listen_on_many_paths() else { return };
    let at = (Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()).into();
    let proxy = ask(at);
    let (mut upstream, _) = listener.accept().unwrap();
    read_some(&mut upstream);
    abort(upstream);
    assert!((&proxy).read(&mut [0; 16]).is_err());
    drop(proxy);
    let found = rig.attempt(at).listener;
    assert!(matches!(found, ListenerSeen::Present { .. }), "{found:?}");
}

#[test]
fn as_much_is_kept_of_a_head_as_was_asked_for() {
    for head in [0, 16] {
        let mut sparing = Kernel::load(&Options { head, ..Options::default() }).unwrap();
        sparing.track(std::process::id(), PROC_PROXY).unwrap();
        let mut ring = Ring::new(sparing.take_ring().unwrap());
        let (listener, at) = listen();
        let mut proxy = ask(at);
        let (mut upstream, _) = listener.accept().unwrap();
        read_some(&mut upstream);
        upstream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        abort(upstream);
        read_some(&mut proxy);
        drop(proxy);
        let mut kept = Vec::new();
        ring.drain(usize::MAX, |record| {
            if let Fact::Attempt(attempt) = trace502::decode::decode(record, &sparing.names).unwrap().fact
                && attempt.endpoint == Endpoint::Tcp(at)
            {
                kept.push((attempt.conn.request_head, attempt.conn.request_bytes as usize));
            }
        });
        for (kept, whole) in &kept {
            assert_eq!((kept.as_slice(), *whole), (&REQUEST[..head as usize], REQUEST.len()));
        }
        // What is not kept is looked at all the same.
        assert_eq!(kept.len(), 1);
    }
}
