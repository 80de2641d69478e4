//! Listeners and processes: who listens, who dies, who killed whom.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
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
pub fn listening_child(rig: &mut Rig) -> Child {
    let mut command = child_command("/proc/self/exe".as_ref());
    let child = command.spawn().unwrap();
    let pid = child.id();
    rig.wait("listener of the child", |seen| match &seen.fact {
        Fact::Listening(listening) if listening.pid == pid => Some(()),
        _ => None,
    });
    child
}

/// This test program under some name, to run [`child_waits`].
fn child_command(name: &Path) -> Command {
    let mut command = Command::new(name);
    command.args(["--exact", "processes::child_waits", "--ignored"]).env("T502_CHILD", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Not a test: what a child of these tests runs.
#[test]
#[ignore = "run by other tests as their child"]
fn child_waits() {
    if std::env::var_os("T502_CHILD").is_none() {
        return;
    }
    let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for line in std::io::stdin().lines() {
        match line.unwrap().trim() {
            "abort" => std::process::abort(),
            "segv" => fault(),
            "eat" => eat(),
            line => match line.strip_prefix("dial ") {
                Some(port) => dial_without_waiting(port.parse().unwrap()),
                None => std::process::exit(line.parse().unwrap_or(1)),
            },
        }
    }
    std::process::exit(1);
}

/// Writes where nothing is, where a core may be written.
fn fault() -> ! {
    std::env::set_current_dir(std::env::temp_dir()).unwrap();
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is a plain structure. The write is what this process dies of.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const all);
        std::ptr::without_provenance_mut::<u8>(16).write_volatile(1);
    }
    unreachable!("address 16 can be written")
}

/// Connects as event loops do: the refusal comes within the call, the call does not say so.
fn dial_without_waiting(port: u16) {
    let bytes = [127, 0, 0, 1];
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(bytes) },
        sin_zero: [0; 8],
    };
    // SAFETY: an address with its size; the descriptor is ours alone.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        libc::connect(socket, (&raw const to).cast(), size_of_val(&to) as u32);
        libc::close(socket);
    }
}

/// Takes memory until the kernel ends it.
fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1_u8; 1 << 20]);
    }
}

pub fn exit_of(rig: &mut Rig, pid: u32) -> ExitStatus {
    rig.wait(&format!("exit of {pid}"), |seen| match &seen.fact {
        Fact::Exit { proc, status, .. } if proc.pid == pid => Some(*status),
        _ => None,
    })
}

#[test]
fn a_process_that_serves_is_told_where_it_was_refused() {
    let mut rig = rig();
    let (listener, nobody) = listen();
    let mut child = listening_child(&mut rig);
    let answered = TcpListener::bind("127.0.0.1:0").unwrap();
    // Last, so that none of these is given its port.
    drop(listener);
    // This process is a proxy: what it is refused is an attempt.
    assert!(std::net::TcpStream::connect(nobody).is_err());
    for port in [answered.local_addr().unwrap().port(), nobody.port()] {
        writeln!(child.stdin.as_ref().unwrap(), "dial {port}").unwrap();
    }
    let dialled = rig.wait("refusal of the child", |seen| match &seen.fact {
        // Others of this host may be refused at the same time.
        Fact::DialFailed(dial) if dial.to == nobody => Some((seen.task.map(|task| task.pid), *dial)),
        _ => None,
    });
    assert_eq!(dialled, (Some(child.id()), Dial { to: nobody, errno: libc::ECONNREFUSED }));
    child.stdin.take().unwrap().write_all(b"0\n").unwrap();
    child.wait().unwrap();
}

#[test]
fn an_exit_is_told_with_its_status() {
    let mut rig = rig();
    let mut child = listening_child(&mut rig);
    child.stdin.take().unwrap().write_all(b"3\n").unwrap();
    child.wait().unwrap();
    assert_eq!(exit_of(&mut rig, child.id()), ExitStatus::Code(3));
}

#[test]
fn a_crash_is_told_with_its_signal() {
    let mut rig = rig();
    let mut child = listening_child(&mut rig);
    child.stdin.take().unwrap().write_all(b"abort\n").unwrap();
    child.wait().unwrap();
    let ExitStatus::Signal { signal, .. } = exit_of(&mut rig, child.id()) else { panic!("not a signal") };
    assert_eq!(signal, libc::SIGABRT);
}

#[test]
fn a_segmentation_fault_is_the_kernels_signal_and_tells_whether_a_core_was_written() {
    use std::os::unix::process::ExitStatusExt as _;
    let mut rig = rig();
    let mut child = listening_child(&mut rig);
    child.stdin.take().unwrap().write_all(b"segv\n").unwrap();
    let status = child.wait().unwrap();
    let pid = child.id();
    let _ = std::fs::remove_file(std::env::temp_dir().join("core"));
    let _ = std::fs::remove_file(std::env::temp_dir().join(format!("core.{pid}")));
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    rig.wait("signal of the kernel", |seen| match &seen.fact {
        Fact::Signal { target, signal: libc::SIGSEGV, from_kernel: true, .. } if target.pid == pid => Some(()),
        _ => None,
    });
    let told = exit_of(&mut rig, pid);
    assert_eq!(told, ExitStatus::Signal { signal: libc::SIGSEGV, core: status.core_dumped() });
}

#[test]
fn workers_of_a_proxy_and_what_becomes_of_them_is_told() {
    let mut rig = rig();
    let me = std::process::id();
    // A child of a proxy is one as long as it runs the same program.
    let mut child = std::process::Command::new("sh").args(["-c", "read _"]).stdin(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let worker = rig.wait("fork", |seen| match &seen.fact {
        Fact::Fork { parent, child } if child.pid == pid => Some((*parent, child.clone())),
        _ => None,
    });
    assert_eq!((worker.0, worker.1.is_proxy), (me, true));
    let became = rig.wait("end of the worker", |seen| match &seen.fact {
        Fact::Exec(proc) if proc.pid == pid => Some(proc.clone()),
        _ => None,
    });
    assert_eq!((became.comm.as_str(), became.is_proxy), ("sh", false));
    drop(child.stdin.take());
    child.wait().unwrap();
    let told = rig.told().iter().any(|seen| matches!(&seen.fact, Fact::Exit { proc, .. } if proc.pid == pid));
    assert!(!told, "it became something else");
}

#[test]
fn a_proxy_is_known_by_the_name_it_is_executed_under() {
    let mut rig = rig();
    rig.kernel.set_names(&[("t502-proxy", trace502_ebpf::PROC_PROXY)]).unwrap();
    let name = std::env::temp_dir().join(format!("t502-{}", std::process::id())).join("t502-proxy");
    std::fs::create_dir_all(name.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &name).unwrap();
    let mut child = child_command(&name).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"5\n").unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(name.parent().unwrap()).unwrap();
    let pid = child.id();
    let executed = rig.wait("exec", |seen| match &seen.fact {
        Fact::Exec(proc) if proc.pid == pid => Some(proc.clone()),
        _ => None,
    });
    assert!(executed.is_proxy && executed.comm == "t502-proxy" && executed.cgroup != 0);
    assert_eq!(exit_of(&mut rig, pid), ExitStatus::Code(5));
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
