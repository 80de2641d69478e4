//! Listening sockets of one network namespace, from the kernel's socket diagnosis.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::netlink::{Netlink, attributes, bytes_at};
use crate::model::{Cookie, Endpoint};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP_LISTEN: u8 = 10;
const ONLY_LISTENING: u32 = 1 << TCP_LISTEN;
const INET_DIAG_SKV6ONLY: u16 = 11;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_RQLEN: u32 = 16;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_RQLEN: u16 = 4;
/// A host with more listeners than this is answered in part.
const MOST: usize = 16_384;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub endpoint: Endpoint,
    pub cookie: Cookie,
    pub inode: u32,
    pub queue: u32,
    pub limit: u32,
    pub dual: bool,
}

/// TCP over both families, then unix. A kernel without one of them leaves that one out.
pub fn listeners(diagnosis: &mut Netlink) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    let mut failed = None;
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut request = [0; 56];
        request[0] = family;
        request[1] = libc::IPPROTO_TCP as u8;
        request[4..8].copy_from_slice(&ONLY_LISTENING.to_ne_bytes());
        let each = |body: &[u8]| keep(&mut found, inet(body));
        failed = diagnosis.dump(SOCK_DIAG_BY_FAMILY, &request, each).err().or(failed);
    }
    let mut request = [0; 24];
    request[0] = libc::AF_UNIX as u8;
    request[4..8].copy_from_slice(&ONLY_LISTENING.to_ne_bytes());
    request[12..16].copy_from_slice(&(UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN).to_ne_bytes());
    let each = |body: &[u8]| keep(&mut found, unix(body));
    failed = diagnosis.dump(SOCK_DIAG_BY_FAMILY, &request, each).err().or(failed);
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

fn keep(found: &mut Vec<Listener>, listener: Option<Listener>) {
    if found.len() < MOST {
        found.extend(listener);
    }
}

/// struct inet_diag_msg and its attributes.
fn inet(body: &[u8]) -> Option<Listener> {
    let family = i32::from(*body.first()?);
    if *body.get(1)? != TCP_LISTEN {
        return None;
    }
    let ip = match family {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(bytes_at::<4>(body, 8)?)),
        libc::AF_INET6 => crate::model::unmap(bytes_at::<16>(body, 8)?),
        _ => return None,
    };
    let port = u16::from_be_bytes(bytes_at(body, 4)?);
    let only_v6 = attributes(body.get(72..)?)
        .find(|(kind, _)| *kind == INET_DIAG_SKV6ONLY)
        .is_some_and(|(_, value)| value.first().is_some_and(|flag| *flag != 0));
    Some(Listener {
        endpoint: Endpoint::Tcp(SocketAddr::new(ip, port)),
        cookie: cookie(body, 44)?,
        inode: u32::from_ne_bytes(bytes_at(body, 68)?),
        queue: u32::from_ne_bytes(bytes_at(body, 56)?),
        limit: u32::from_ne_bytes(bytes_at(body, 60)?),
        dual: ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !only_v6,
    })
}

/// struct unix_diag_msg and its attributes. A socket without a name cannot be connected to.
fn unix(body: &[u8]) -> Option<Listener> {
    let mut name = None;
    let mut queue = (0, 0);
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            UNIX_DIAG_NAME => name = unix_name(value),
            UNIX_DIAG_RQLEN => {
                queue = (u32::from_ne_bytes(bytes_at(value, 0)?), u32::from_ne_bytes(bytes_at(value, 4)?));
            }
            _ => {}
        }
    }
    Some(Listener {
        endpoint: Endpoint::Unix(name?),
        cookie: cookie(body, 8)?,
        inode: u32::from_ne_bytes(bytes_at(body, 4)?),
        queue: queue.0,
        limit: queue.1,
        dual: false,
    })
}

fn cookie(body: &[u8], at: usize) -> Option<Cookie> {
    let (low, high) = (u32::from_ne_bytes(bytes_at(body, at)?), u32::from_ne_bytes(bytes_at(body, at + 4)?));
    Some(u64::from(high) << 32 | u64::from(low))
}

/// An abstract name begins with a zero byte, written `@`; a path may end with one.
fn unix_name(bytes: &[u8]) -> Option<String> {
    let (prefix, name) = match bytes.first()? {
        0 => ("@", &bytes[1..]),
        _ => ("", bytes.split(|byte| *byte == 0).next()?),
    };
    Some(format!("{prefix}{}", String::from_utf8_lossy(name).replace('\0', "@")))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};

    use super::*;

    fn all() -> Vec<Listener> {
        listeners(&mut Netlink::open(libc::NETLINK_SOCK_DIAG).unwrap()).unwrap()
    }

    fn at(endpoint: &Endpoint) -> Option<Listener> {
        all().into_iter().find(|listener| listener.endpoint == *endpoint)
    }

    #[test]
    fn a_listener_is_seen_with_its_queue_and_is_gone_when_it_closes() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let waiting: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let seen = at(&Endpoint::Tcp(addr)).unwrap();
        assert_eq!((seen.queue, seen.dual), (3, false));
        assert!(seen.limit > 3 && seen.cookie != 0 && seen.inode != 0);
        drop((waiting, socket));
        assert_eq!(at(&Endpoint::Tcp(addr)), None);
    }

    #[test]
    fn a_wildcard_of_the_sixth_version_takes_both_unless_told_otherwise() {
        let both = TcpListener::bind("[::]:0").unwrap();
        assert!(at(&Endpoint::Tcp(both.local_addr().unwrap())).unwrap().dual);
        let one = TcpListener::bind("[::1]:0").unwrap();
        assert!(!at(&Endpoint::Tcp(one.local_addr().unwrap())).unwrap().dual);
    }

    #[test]
    fn unix_sockets_are_listed_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.sock");
        let socket = UnixListener::bind(&path).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        let seen = at(&Endpoint::Unix(path.display().to_string())).unwrap();
        assert_eq!(seen.queue, 1);
        assert!(seen.limit >= 128);
        drop(socket);
        let name = format!("trace502-{}", std::process::id());
        let hidden = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
        assert!(at(&Endpoint::Unix(format!("@{name}"))).is_some());
        drop(hidden);
    }

    #[test]
    fn a_cut_message_is_no_listener() {
        let mut body = [0; 88];
        (body[0], body[1]) = (libc::AF_INET as u8, TCP_LISTEN);
        assert!(inet(&body).is_some());
        for cut in 0..72 {
            assert_eq!(inet(&body[..cut]), None);
            assert_eq!(unix(&body[..cut]), None);
        }
        assert_eq!(unix_name(b"\0a\0b").as_deref(), Some("@a@b"));
        assert_eq!(unix_name(b""), None);
    }
}
