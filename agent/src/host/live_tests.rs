use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use super::*;
use crate::host::proc::sleeper;
use crate::model::{Endpoint, ExitStatus, Listening, Proc};

fn live() -> LiveHost {
    LiveHost::open(Box::new(|address| (address == 7).then(|| "nft_do_chain".to_owned()))).unwrap()
}

fn of_kernel(at: Nanos, fact: Fact) -> Observation {
    Observation { at, task: None, fact }
}

fn proc_of(pid: u32) -> Proc {
    Proc { pid, comm: "sleep".into(), cgroup: 0, is_proxy: false }
}

#[test]
fn a_listener_of_ours_is_told_with_its_owner() {
    let mut host = live();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    host.survey();
    let _waiting = TcpStream::connect(addr).unwrap();
    let own = host.process(std::process::id()).unwrap();
    for netns in [0, own.netns] {
        let all = host.listeners(netns);
        let seen = all.iter().find(|listener| listener.endpoint == Endpoint::Tcp(addr)).unwrap();
        assert_eq!((seen.pid, seen.queue), (Some(own.pid), 1));
        assert_eq!(seen.name.as_deref(), Some(own.name.as_str()));
        assert!(super::super::takes(seen, addr));
    }
}

#[test]
fn a_process_that_was_observed_is_known_when_it_is_dead() {
    let mut host = live();
    let mut child = sleeper("sleep".as_ref(), "64");
    let pid = child.id();
    host.observe(&of_kernel(1, Fact::Exec(proc_of(pid))));
    let listening = Listening {
        cookie: 9,
        endpoint: Endpoint::Unix("@x".into()),
        netns: 0,
        pid,
        comm: "sleep".into(),
        cgroup: 0,
        queue: 0,
        limit: 1,
        is_proxy: false,
    };
    host.observe(&of_kernel(2, Fact::Listening(listening)));
    let memory = host.memory(pid);
    child.kill().unwrap();
    child.wait().unwrap();
    let status = ExitStatus::Signal { signal: 9, core: false };
    host.observe(&of_kernel(3, Fact::Exit { proc: proc_of(pid), parent: None, status }));
    let facts = host.process(pid).unwrap();
    assert_eq!((facts.alive, facts.cmdline.as_slice()), (false, ["sleep".to_owned(), "64".to_owned()].as_slice()));
    assert_eq!(host.memory(pid).is_some(), memory.is_some(), "its memory group is remembered too");
    assert_eq!(host.process(u32::MAX), None);
}

fn listening(at: std::net::SocketAddr) -> Listening {
    Listening {
        cookie: 9,
        endpoint: Endpoint::Tcp(at),
        netns: 0,
        pid: std::process::id(),
        comm: "test".into(),
        cgroup: 0,
        queue: 0,
        limit: 1,
        is_proxy: false,
    }
}

#[test]
fn a_flood_of_questions_is_answered_by_one_look_until_something_changes() {
    let mut host = live();
    let known = |host: &mut LiveHost, addr| host.listeners(0).iter().any(|l| l.endpoint == Endpoint::Tcp(addr));
    let first = host.listeners(0);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    // Kept for a moment: if that has not passed yet, it is the same answer.
    let again = host.listeners(0);
    assert!(Arc::ptr_eq(&first, &again) || again.iter().any(|l| l.endpoint == Endpoint::Tcp(addr)));
    host.observe(&of_kernel(1, Fact::Listening(listening(addr))));
    assert!(known(&mut host, addr));
    drop(socket);
    host.observe(&of_kernel(2, Fact::ListenerClosed(listening(addr))));
    assert!(!known(&mut host, addr));
}

#[test]
fn the_sender_of_a_signal_is_kept_too() {
    let mut host = live();
    let mut sender = sleeper("sleep".as_ref(), "65");
    let pid = sender.id();
    let fact = Fact::Signal { target: proc_of(1), signal: 9, sender: proc_of(pid), from_kernel: false };
    host.observe(&of_kernel(1, fact));
    sender.kill().unwrap();
    sender.wait().unwrap();
    assert_eq!(host.process(pid).unwrap().cmdline, ["sleep", "65"]);
}

#[test]
fn paths_are_seen_as_the_process_sees_them() {
    let mut host = live();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let _socket = UnixListener::bind(&path).unwrap();
    assert!(host.path(std::process::id(), path.to_str().unwrap()).is_socket);
    assert!(!host.path(std::process::id(), "/run/no/such.sock").exists);
    // Of a process that nobody knows nothing is known.
    assert!(!host.path(u32::MAX, path.to_str().unwrap()).exists);
}

#[test]
fn descriptors_are_counted_against_their_limit() {
    let mut host = live();
    let count = |host: &mut LiveHost| host.descriptors(std::process::id()).unwrap();
    let before = count(&mut host);
    // Other tests open and close files meanwhile: more than they do.
    let files: Vec<_> = (0..300).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let after = count(&mut host);
    assert!(after.open >= 300 && after.open > before.open, "{before:?} {after:?}");
    assert!(after.limit >= after.open);
    drop(files);
    assert_eq!(host.descriptors(u32::MAX), None);
}

#[test]
fn symbols_are_asked_of_the_table_that_was_given() {
    let mut host = live();
    assert_eq!(host.symbol(7).as_deref(), Some("nft_do_chain"));
    assert_eq!(host.symbol(8), None);
}

#[test]
fn a_process_that_computes_is_busy_and_one_that_sleeps_is_not() {
    let mut host = live();
    let mut spinner = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    // On a crowded machine it gets its turn now and then.
    let until = Instant::now() + Duration::from_secs(120);
    let mut busy = false;
    while !busy && Instant::now() < until {
        busy = host.activity(spinner.id()).is_some_and(|activity| activity.busy);
    }
    spinner.kill().unwrap();
    spinner.wait().unwrap();
    assert!(busy);
    let mut asleep = sleeper("sleep".as_ref(), "973");
    // It computes while it starts.
    let settled = |host: &mut LiveHost| host.activity(asleep.id()).unwrap().states == "S";
    while !settled(&mut host) {
        assert!(Instant::now() < until + Duration::from_secs(120));
    }
    std::thread::sleep(2 * MOMENT);
    assert!(!host.activity(asleep.id()).unwrap().busy);
    asleep.kill().unwrap();
    asleep.wait().unwrap();
}
