//! What a listener of the lab's upstream does with a connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::death::{self, Death};
use super::socket::Stream;
use crate::pace;

#[derive(Clone, Debug, PartialEq)]
pub enum Conduct {
    /// Answers 200, keeps the connection.
    Ok,
    /// Answers 200 after this many milliseconds.
    Slow(u64),
    CloseEarly,
    /// Passes on to this port whatever comes, as a forwarder does: where it is refused, it closes.
    Forward(u16),
    Reset,
    /// Closes with the request unread in its buffer.
    CloseUnread,
    ResetAtAccept,
    /// Half a response header, then the end or a reset.
    Truncate {
        reset: bool,
    },
    /// These bytes instead of an answer.
    Bytes(&'static [u8]),
    /// Reads the request and never answers.
    Silent,
    /// The same, burning CPU.
    Spin,
    /// The same, in an uninterruptible wait of the kernel.
    Blocked,
    /// One header line a second.
    Trickle,
    NoRead,
    NoAccept,
    /// Does not accept, and its queue holds this many.
    Full(i32),
    /// Reads some kilobytes of the request's body, then no more.
    StopReading,
    BigHeader,
    Answer(u16),
    /// Answers the first request of a connection; closes when the second has arrived, without reading it.
    RaceReset,
    /// Answers the first request, then closes the idle connection after this many milliseconds.
    IdleClose(u64),
    /// Answers the first request; resets the idle connection after this many milliseconds.
    IdleReset(u64),
    /// Answers the first request of the process and ends that connection; then does the other thing.
    Second(Box<Conduct>),
    /// Dies as it serves.
    Die(Death),
}

impl std::str::FromStr for Conduct {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(then) = text.strip_prefix("second-") {
            return Ok(Self::Second(Box::new(then.parse()?)));
        }
        let (word, number) = text.split_once(':').unwrap_or((text, "0"));
        let number: u64 = number.parse()?;
        Ok(match word {
            "ok" => Self::Ok,
            "slow" => Self::Slow(number),
            "close-early" => Self::CloseEarly,
            "forward" => Self::Forward(number as u16),
            "reset" => Self::Reset,
            "close-unread" => Self::CloseUnread,
            "reset-at-accept" => Self::ResetAtAccept,
            "truncate-fin" => Self::Truncate { reset: false },
            "truncate-rst" => Self::Truncate { reset: true },
            "ssh" => Self::Bytes(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
            "smtp" => {
                Self::Bytes(b"220 mail.example ESMTP Postfix\r\n221 2.7.0 Error: I can break rules, too. Goodbye.\r\n")
            }
            "redis" => Self::Bytes(b"-ERR wrong number of arguments for 'get' command\r\n"),
            // As a server answers that speaks TLS only: fatal, decode error.
            "tls-alert" => Self::Bytes(b"\x15\x03\x03\x00\x02\x02\x32"),
            "bad-length" => Self::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok"),
            "bad-chunk" => Self::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n"),
            "nul" => Self::Bytes(b"HTTP/1.1 200 OK\r\nBad\0Header: x\r\nContent-Length: 2\r\n\r\nok"),
            "silent" => Self::Silent,
            "spin" => Self::Spin,
            "blocked" => Self::Blocked,
            "trickle" => Self::Trickle,
            "no-read" => Self::NoRead,
            "no-accept" => Self::NoAccept,
            "full" => Self::Full(number as i32),
            "stop-reading" => Self::StopReading,
            "big-header" => Self::BigHeader,
            "answer" => Self::Answer(number as u16),
            "race-reset" => Self::RaceReset,
            "idle-close" => Self::IdleClose(number),
            "idle-reset" => Self::IdleReset(number),
            "segv" => Self::Die(Death::Signal(libc::SIGSEGV)),
            "abort" => Self::Die(Death::Signal(libc::SIGABRT)),
            "bus" => Self::Die(Death::Signal(libc::SIGBUS)),
            "exit" => Self::Die(Death::Exit(number as i32)),
            "eat-memory" => Self::Die(Death::Memory),
            _ => anyhow::bail!("no conduct is named {word:?}"),
        })
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\nok\n";
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Le";

impl Conduct {
    /// Negative: never accept.
    pub fn backlog(&self) -> i32 {
        match self {
            Self::NoAccept => -128,
            Self::Full(n) => -n.abs().max(1),
            _ => 1024,
        }
    }

    /// Its connections take little before they are read: a window is shut soon.
    pub fn narrow(&self) -> bool {
        matches!(self, Self::StopReading)
    }

    /// Serves on the process's only thread, so that the state of the process is the state of the request.
    pub fn serial(&self) -> bool {
        matches!(self, Self::Silent | Self::Spin | Self::Blocked | Self::NoRead | Self::NoAccept | Self::Full(_))
    }

    pub fn serve(&self, mut stream: Stream) {
        match self {
            Self::Ok => answer_all(stream, Duration::ZERO),
            Self::Slow(millis) => answer_all(stream, Duration::from_millis(*millis)),
            Self::CloseEarly => {
                stream.request();
                stream.close();
            }
            Self::Forward(port) => {
                stream.request();
                // Who is there would be answered for; nobody is.
                let _ = std::net::TcpStream::connect(("127.0.0.1", *port));
                stream.close();
            }
            Self::Reset => {
                stream.request();
                stream.reset();
            }
            Self::CloseUnread => {
                stream.wait_readable(None);
                stream.close();
            }
            Self::ResetAtAccept => stream.reset(),
            Self::Truncate { reset } => {
                stream.request();
                stream.send(HALF);
                if *reset {
                    // The half must be read before the reset throws it away.
                    std::thread::sleep(Duration::from_millis(50));
                    stream.reset();
                }
            }
            Self::Bytes(bytes) => {
                if stream.request().is_some() {
                    stream.send(bytes);
                }
                stream.close();
            }
            Self::Silent => {
                stream.request();
                hold(stream);
            }
            Self::Spin => {
                stream.request();
                let start = std::time::Instant::now();
                while start.elapsed() < pace::duration(Duration::from_millis(2500)) {
                    std::hint::spin_loop();
                }
                stream.close();
            }
            Self::Blocked => {
                stream.request();
                death::wait_uninterruptibly(pace::duration(Duration::from_millis(2500)));
                stream.close();
            }
            Self::Trickle => {
                stream.request();
                stream.send(b"HTTP/1.1 200 OK\r\n");
                for n in 0..30 {
                    std::thread::sleep(pace::duration(Duration::from_millis(300)));
                    if !stream.send(format!("X-Line-{n}: x\r\n").as_bytes()) {
                        return;
                    }
                }
            }
            Self::NoRead => std::thread::sleep(pace::duration(Duration::from_secs(3))),
            Self::NoAccept | Self::Full(_) => {}
            Self::StopReading => {
                stream.read_exactly(8192);
                hold(stream);
            }
            Self::BigHeader => {
                stream.request();
                // In one line: some proxies limit the whole, some a line.
                let filler = "x".repeat(200_000);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Filler: {filler}\r\n\r\n");
                stream.send(head.as_bytes());
                // The proxy is to give up because of what it got, not because of an end.
                hold(stream);
            }
            Self::Answer(status) => {
                let text = format!("HTTP/1.1 {status} Upstream Says\r\nContent-Length: 0\r\n\r\n");
                while let Some(request) = stream.request() {
                    if !stream.send(text.as_bytes()) || request.close {
                        return;
                    }
                }
            }
            Self::RaceReset => {
                if stream.request().is_some() && stream.send(OK) {
                    stream.wait_readable(None);
                }
                stream.close();
            }
            Self::IdleClose(millis) => {
                if stream.request().is_some() && stream.send(OK) {
                    stream.wait_readable(Some(Duration::from_millis(*millis)));
                }
                stream.close();
            }
            Self::IdleReset(millis) => {
                if stream.request().is_some() && stream.send(OK) {
                    stream.wait_readable(Some(Duration::from_millis(*millis)));
                }
                stream.reset();
            }
            Self::Second(then) => {
                static SERVED: AtomicBool = AtomicBool::new(false);
                if SERVED.swap(true, Ordering::Relaxed) {
                    return then.serve(stream);
                }
                stream.request();
                stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
            }
            Self::Die(death) => {
                // Only at a path that asks for it, so that the service can be seen well before.
                while let Some(request) = stream.request() {
                    if request.path.contains("/die") {
                        death.happen();
                    }
                    if !stream.send(OK) || request.close {
                        return;
                    }
                }
            }
        }
    }
}

fn answer_all(mut stream: Stream, delay: Duration) {
    while let Some(request) = stream.request() {
        std::thread::sleep(delay);
        if !stream.send(OK) || request.close {
            return;
        }
    }
}

/// Keeps the connection until the other side ends it, reading nothing more.
fn hold(stream: Stream) {
    let start = std::time::Instant::now();
    while start.elapsed() < pace::duration(Duration::from_secs(4)) {
        std::thread::sleep(Duration::from_millis(50));
    }
    stream.close();
}
