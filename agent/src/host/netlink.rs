//! The little netlink that the host's questions need: one request, one dump of answers.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The kernel fills a dump's datagrams up to this size.
const DATAGRAM: usize = 32 * 1024;
/// A dump that does not end is given up.
const DATAGRAMS: usize = 4096;
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;

pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// A socket in the network namespace of the calling thread; it stays there.
    pub fn open(protocol: libc::c_int) -> io::Result<Self> {
        // SAFETY: socket takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above returned this descriptor and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let patience = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
        // SAFETY: `patience` is a timeval, and its size is given.
        let set = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const patience).cast(),
                size_of::<libc::timeval>() as libc::socklen_t,
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd, sequence: 0 })
    }

    /// Asks for a dump and hands over each message of the answer.
    pub fn dump(&mut self, kind: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        let mut request = Vec::with_capacity(HEADER + body.len());
        request.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&flags.to_ne_bytes());
        request.extend_from_slice(&self.sequence.to_ne_bytes());
        request.extend_from_slice(&0u32.to_ne_bytes());
        request.extend_from_slice(body);
        // SAFETY: the pointer and the length are those of `request`.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut buffer = vec![0; DATAGRAM];
        for _ in 0..DATAGRAMS {
            // SAFETY: the pointer and the length are those of `buffer`.
            let got = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
            for (kind, sequence, body) in messages(&buffer[..got]) {
                // What is left of a dump that was given up.
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    DONE => return Ok(()),
                    ERROR => return error(body),
                    _ => each(body),
                }
            }
        }
        Err(io::Error::other("the dump does not end"))
    }
}

fn error(body: &[u8]) -> io::Result<()> {
    match bytes_at(body, 0).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// Type, sequence number and body of each message in a datagram.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes_at(bytes, 0)?) as usize;
        let kind = u16::from_ne_bytes(bytes_at(bytes, 4)?);
        let sequence = u32::from_ne_bytes(bytes_at(bytes, 8)?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, sequence, body))
    })
}

/// Type and value of each attribute.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes_at(bytes, 0)?) as usize;
        let kind = u16::from_ne_bytes(bytes_at(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_end_where_the_bytes_do() {
        let bytes = [5, 0, 9, 0, 7, 0, 0, 0, 4, 0, 2, 0];
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(9, &[7][..]), (2, &[][..])]);
        for cut in 0..bytes.len() {
            assert!(attributes(&bytes[..cut]).count() <= 1 + usize::from(cut == 12));
        }
        // Lengths below the header and past the end.
        for length in [0u8, 1, 3, 255] {
            assert_eq!(attributes(&[length, 0, 1, 0]).count(), 0);
        }
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }

    #[test]
    fn a_refused_request_says_so() {
        let mut socket = Netlink::open(libc::NETLINK_SOCK_DIAG).unwrap();
        let refused = socket.dump(20, &[255; 4], |_| {});
        assert!(refused.is_err());
        // And the next one is answered.
        let mut request = [0; 24];
        request[0] = libc::AF_UNIX as u8;
        request[4..8].fill(255);
        let mut seen = 0;
        socket.dump(20, &request, |_| seen += 1).unwrap();
    }
}
