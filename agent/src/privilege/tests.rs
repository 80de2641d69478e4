//! Each claim is tried in a child of its own, since nothing of it can be undone.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// Runs an ignored test of this binary as a process of its own; what it fails, this test fails.
fn child(name: &str) {
    let out = Command::new("/proc/self/exe")
        .args(["--exact", &format!("privilege::tests::{name}"), "--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
}

fn status(task: &str) -> HashMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/self/{task}status")).unwrap();
    text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect()
}

fn errno(result: i64) -> i32 {
    if result >= 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap() }
}

#[test]
fn the_table_names_each_capability_once() {
    let mut bits: Vec<u32> = KEPT.iter().map(|k| k.bit).collect();
    bits.sort_unstable();
    bits.dedup();
    assert_eq!(bits.len(), KEPT.len());
    let names = |kernel| caps::wanted(kernel).iter().map(|k| k.name).collect::<Vec<_>>();
    assert!(names((5, 15)).contains(&"CAP_BPF"));
    assert!(!names((6, 1)).contains(&"CAP_BPF"));
}

#[test]
fn what_is_not_kept_is_gone() {
    child("child_gives_up");
}

#[test]
#[ignore = "child of what_is_not_kept_is_gone"]
fn child_gives_up() {
    // It holds capabilities that the child is about to lose: looking into it takes CAP_SYS_PTRACE.
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let looked_at = other.id();
    let mut status = 0;
    // The harness has a thread of its own; after a fork there is one, as the agent has at that moment.
    // SAFETY: the child only runs the body below, and the parent waits for it.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            let passed = std::panic::catch_unwind(|| gives_up(looked_at)).is_ok();
            libc::_exit(i32::from(!passed));
        }
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
    }
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(status, 0);
}

fn gives_up(other: u32) {
    let remaining = give_up().unwrap();
    let kept = remaining.capabilities.iter().fold(0u64, |bits, k| bits | 1 << k.bit);
    let now = status("");
    let bits = |key: &str| u64::from_str_radix(&now[key], 16).unwrap();
    assert_eq!((bits("CapEff"), bits("CapPrm"), bits("CapBnd")), (kept, kept, kept));
    assert_eq!((bits("CapInh"), bits("CapAmb")), (0, 0));
    assert_eq!(kept & !caps::wanted(kernel_version()).iter().fold(0, |bits, k| bits | 1u64 << k.bit), 0);
    assert_eq!(now["NoNewPrivs"], "1");
    assert_eq!(now["Seccomp"], "2", "{remaining}");
    let said = remaining.to_string();
    assert!(said.contains("CAP_SYS_PTRACE (to see") && said.ends_with("confined (seccomp)"), "{said}");
    refusals();
    // What the agent does all day goes on.
    std::thread::spawn(|| assert_eq!(status("")["Seccomp"], "2")).join().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    std::fs::read_link(format!("/proc/{other}/exe")).expect("other processes can be looked at");
    let door = std::fs::File::open("/proc/self/ns/net").unwrap();
    // SAFETY: plain numbers.
    assert_eq!(errno(unsafe { libc::setns(door.as_raw_fd(), libc::CLONE_NEWNET) }.into()), 0);
}

fn refusals() {
    let door = std::fs::File::open("/proc/self/ns/mnt").unwrap();
    let null = std::ptr::null::<libc::c_void>();
    // SAFETY: every one of these is refused before it looks at its arguments, which is what is shown here.
    unsafe {
        let call = |number: i64, a: i64, b: i64| errno(libc::syscall(number, a, b, null, null, null));
        assert_eq!(Command::new("/bin/true").spawn().unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(call(libc::SYS_clone, libc::SIGCHLD.into(), 0), libc::EPERM);
        assert_eq!(call(libc::SYS_clone3, 0, 0), libc::ENOSYS);
        assert_eq!(call(libc::SYS_ptrace, 16, 1), libc::EPERM);
        assert_eq!(call(libc::SYS_kill, i64::from(std::process::id()), 0), libc::EPERM);
        assert_eq!(call(libc::SYS_tgkill, 1, 1), libc::EPERM);
        assert_eq!(call(libc::SYS_setuid, 0, 0), libc::EPERM);
        assert_eq!(call(libc::SYS_unshare, 0, 0), libc::EPERM);
        assert_eq!(call(libc::SYS_setns, door.as_raw_fd().into(), libc::CLONE_NEWNS.into()), libc::EPERM);
        assert_eq!(call(libc::SYS_setns, door.as_raw_fd().into(), 0), libc::EPERM);
        assert_eq!(call(libc::SYS_bpf, 5, 0), libc::EPERM);
        assert_ne!(call(libc::SYS_bpf, 1, 0), libc::EPERM, "maps are still read");
        assert_eq!(call(libc::SYS_socket, libc::AF_PACKET.into(), libc::SOCK_RAW.into()), libc::EPERM);
        let both = libc::PROT_WRITE | libc::PROT_EXEC;
        let map = libc::mmap(std::ptr::null_mut(), 4096, both, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        assert_eq!(map, libc::MAP_FAILED);
    }
}

#[test]
fn threads_that_run_already_are_an_error() {
    let (_keep, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    assert!(matches!(give_up(), Err(PrivilegeError::Threads(2..))));
    drop(_keep);
    assert!(thread.join().unwrap().is_err());
}

#[test]
fn a_hermit_touches_nothing_but_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own");
    let other = dir.path().join("other");
    std::fs::create_dir(&own).unwrap();
    std::fs::create_dir(&other).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let walls = std::thread::spawn(move || {
        let shelter = Shelter { reads: &[Path::new("/proc/self")], writes: &[&own] };
        let walls = hermit(shelter).unwrap();
        let now = status("task/../../thread-self/");
        assert_eq!((now["CapEff"].as_str(), now["CapPrm"].as_str()), ("0000000000000000", "0000000000000000"));
        assert_eq!(now["NoNewPrivs"], "1");
        std::fs::write(own.join("a"), "mine").unwrap();
        assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() > 2);
        if walls != Walls::None {
            assert!(std::fs::write(other.join("a"), "not mine").is_err());
            assert!(std::fs::read("/etc/hostname").is_err() && std::fs::read("/etc/passwd").is_err());
        }
        if walls == Walls::Full {
            assert!(TcpStream::connect(addr).is_err(), "it answers, it does not call");
            assert!(TcpListener::bind("127.0.0.1:0").is_err());
        }
        walls
    });
    assert_ne!(walls.join().unwrap(), Walls::None, "this kernel has Landlock");
    assert!(TcpStream::connect(addr).is_ok(), "other threads are as before");
}
