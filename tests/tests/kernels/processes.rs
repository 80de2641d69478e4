//! Listeners and processes: who listens, who dies, who killed whom.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use trace502::model::*;

use crate::rig::*;

#[test]
fn a_listener_is_told_when_it_comes_and_goes() {
    let mut rig = rig();
    let (listener, at) = listen();
    let started = rig.wait("listener", |seen| match &seen.fact {
        Fact::Listening(listening) if listening.endpoint == Endpoint::Tcp(at) => Some(listening.clone()),
        _ => None,
    });
    assert_eq!(started.pid, std::process::id());
    assert!(started.is_proxy && started.limit > 0 && started.netns != 0);
    drop(listener);
    let cookie = started.cookie;
    rig.wait("end of the listener", |seen| match &seen.fact {
        Fact::ListenerClosed(listening) if listening.cookie == cookie => Some(()),
        _ => None,
    });
}

/// A child that listens, and so matters, until it is told to go.
fn listening_child(rig: &mut Rig) -> Child {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "processes::child_waits", "--ignored"]).env("T502_CHILD", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let pid = child.id();
    rig.wait("listener of the child", |seen| match &seen.fact {
        Fact::Listening(listening) if listening.pid == pid => Some(()),
        _ => None,
    });
    child
}

/// Not a test: what a child of these tests runs.
#[test]
#[ignore = "run by other tests as their child"]
fn child_waits() {
    if std::env::var_os("T502_CHILD").is_none() {
        return;
    }
    let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    match line.trim() {
        "abort" => std::process::abort(),
        code => std::process::exit(code.parse().unwrap_or(1)),
    }
}

fn exit_of(rig: &mut Rig, pid: u32) -> ExitStatus {
    rig.wait(&format!("exit of {pid}"), |seen| match &seen.fact {
        Fact::Exit { proc, status } if proc.pid == pid => Some(*status),
        _ => None,
    })
}

#[test]
fn an_exit_is_told_with_its_status() {
    use std::io::Write as _;
    let mut rig = rig();
    let mut child = listening_child(&mut rig);
    child.stdin.take().unwrap().write_all(b"3\n").unwrap();
    child.wait().unwrap();
    assert_eq!(exit_of(&mut rig, child.id()), ExitStatus::Code(3));
}

#[test]
fn a_crash_is_told_with_its_signal() {
    use std::io::Write as _;
    let mut rig = rig();
    let mut child = listening_child(&mut rig);
    child.stdin.take().unwrap().write_all(b"abort\n").unwrap();
    child.wait().unwrap();
    let ExitStatus::Signal { signal, .. } = exit_of(&mut rig, child.id()) else { panic!("not a signal") };
    assert_eq!(signal, libc::SIGABRT);
}

#[test]
fn a_kill_names_the_killer() {
    let mut rig = rig();
    let mut child = listening_child(&mut rig);
    child.kill().unwrap();
    child.wait().unwrap();
    let pid = child.id();
    let sender = rig.wait("signal", |seen| match &seen.fact {
        Fact::Signal { target, signal: libc::SIGKILL, sender, from_kernel: false } if target.pid == pid => {
            Some(sender.clone())
        }
        _ => None,
    });
    assert_eq!(sender.pid, std::process::id());
    assert!(!sender.comm.is_empty());
    assert!(matches!(exit_of(&mut rig, pid), ExitStatus::Signal { signal: libc::SIGKILL, .. }));
}
