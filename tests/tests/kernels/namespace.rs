//! Network namespaces of our own: where there may be a firewall, and where every address is free.

use std::io::Write as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};

/// Runs this on a thread of its own, in a namespace that goes with it. It has no device that is up.
pub fn empty<T: Send + 'static>(inside: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        // SAFETY: moves only this thread into an empty network namespace.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
        inside()
    });
    thread.join().unwrap()
}

/// The same with a loopback.
pub fn with_loopback<T: Send + 'static>(inside: impl FnOnce() -> T + Send + 'static) -> T {
    empty(|| {
        loopback_up();
        inside()
    })
}

fn loopback_up() {
    // SAFETY: plain ioctls on a socket of our own; ifreq is all zeroes but for name and flags.
    unsafe {
        let socket = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        assert_eq!(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request), 0);
    }
}

/// A rule for what comes in, in the namespace of the calling thread, in nft's words.
pub fn filter_input(rule: &str) {
    filter("input", rule);
}

/// The same for what goes out.
pub fn filter_output(rule: &str) {
    filter("output", rule);
}

fn filter(hook: &str, rule: &str) {
    let table =
        format!("table inet t502 {{\n chain {hook} {{\n type filter hook {hook} priority 0;\n {rule}\n }}\n}}\n");
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
    nft.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refused:\n{table}");
}
