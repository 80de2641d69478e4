//! Sockets of the lab's upstream, TCP and unix alike, with the rude ways to end them.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// A listener whose backlog is exactly as asked.
pub struct Listener {
    pub fd: OwnedFd,
    pub backlog_only: bool,
}

impl Listener {
    /// A negative backlog: listen with its absolute value, and never accept.
    pub fn bind(address: &str, backlog: i32) -> io::Result<Self> {
        let tcp: Option<SocketAddr> = address.parse().ok();
        let domain = match tcp {
            Some(SocketAddr::V4(_)) => libc::AF_INET,
            Some(SocketAddr::V6(_)) => libc::AF_INET6,
            None => libc::AF_UNIX,
        };
        // SAFETY: socket has no memory to break; the descriptor is checked and then owned.
        let fd = unsafe {
            let fd = libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            check(fd)?;
            OwnedFd::from_raw_fd(fd)
        };
        option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32)?;
        match tcp {
            Some(SocketAddr::V4(v4)) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                bind(&fd, &raw)?;
            }
            Some(SocketAddr::V6(v6)) => {
                option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32)?;
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as u16,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: 0,
                };
                bind(&fd, &raw)?;
            }
            None => {
                let _ = std::fs::remove_file(address);
                bind_unix(&fd, address)?;
                let path = CString::new(std::ffi::OsStr::new(address).as_bytes())?;
                // SAFETY: a C string that outlives the call.
                check(unsafe { libc::chmod(path.as_ptr(), 0o777) })?;
            }
        }
        LISTENER.store(fd.as_raw_fd(), Ordering::Relaxed);
        // SAFETY: a descriptor we own.
        check(unsafe { libc::listen(fd.as_raw_fd(), backlog.abs()) })?;
        Ok(Self { fd, backlog_only: backlog < 0 })
    }

    /// Of the connections that it accepts: before they advertise their first window, which they could not take back.
    pub fn shrink_receive_buffers(&self) -> io::Result<()> {
        option(&self.fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &4096i32)
    }
}

/// The last listener that was made.
static LISTENER: AtomicI32 = AtomicI32::new(-1);

/// On SIGTERM: the listener ends, connections have a moment to finish, then the process leaves.
pub fn close_on_term() {
    // SAFETY: the set is initialised before use, and blocked before any other thread is started.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        set
    };
    std::thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: both pointers outlive the calls; shutting a descriptor down that is none only fails.
        unsafe {
            libc::sigwait(&set, &mut signal);
            libc::shutdown(LISTENER.load(Ordering::Relaxed), libc::SHUT_RDWR);
        }
        std::thread::sleep(Duration::from_millis(200));
        std::process::exit(0);
    });
}

fn bind_unix(fd: &OwnedFd, path: &str) -> io::Result<()> {
    // SAFETY: all-zero is a valid sockaddr_un.
    let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    raw.sun_family = libc::AF_UNIX as u16;
    if path.len() >= raw.sun_path.len() {
        return Err(io::Error::other("the socket's path is too long"));
    }
    for (to, from) in raw.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    bind(fd, &raw)
}

fn bind<T>(fd: &OwnedFd, address: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the address is a whole sockaddr of that size.
    check(unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(address).cast(), size) })
}

fn option<T>(fd: &impl AsRawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is as large as said.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size) })
}

fn check(ret: i32) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An accepted connection.
pub struct Stream {
    fd: std::net::TcpStream,
}

/// What the proxy asked.
pub struct Request {
    pub path: String,
    pub close: bool,
}

impl Stream {
    pub fn from_accept(fd: i32) -> io::Result<Self> {
        check(fd)?;
        // SAFETY: just accepted, owned by nobody else. Read, write and shutdown are the same calls for a unix socket.
        Ok(Self { fd: unsafe { std::net::TcpStream::from_raw_fd(fd) } })
    }

    /// Waits for bytes (or the end) without reading them.
    pub fn wait_readable(&self, limit: Option<Duration>) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = limit.map_or(-1, |limit| limit.as_millis() as i32);
        // SAFETY: one pollfd, as said.
        unsafe { libc::poll(&mut poll, 1, millis) > 0 }
    }

    /// Reads one request with its body; `None` at the end of the connection.
    pub fn request(&mut self) -> Option<Request> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 16384];
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match self.fd.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let header = |name: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
            })
        };
        let length: usize = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        while bytes.len() < head + length {
            match self.fd.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            }
        }
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        let old = text.lines().next().is_some_and(|line| line.ends_with("HTTP/1.0"));
        let close = header("connection").map_or(old, |value| value.contains("close"));
        Some(Request { path, close })
    }

    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.fd.write_all(bytes).is_ok()
    }

    /// Reads this many bytes and no more.
    pub fn read_exactly(&mut self, n: usize) {
        let mut rest = vec![0; n];
        let _ = self.fd.read_exact(&mut rest);
    }

    /// The orderly end.
    pub fn close(self) {}

    /// Ends with a reset whatever was read.
    pub fn reset(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = option(&self.fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    }
}
