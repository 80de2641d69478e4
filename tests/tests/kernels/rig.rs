//! The probes, this process as the proxy, and the facts as they come.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use trace502::decode;
use trace502::kernel::{Kernel, Options, Ring};
use trace502::model::*;
use trace502_ebpf::{PROC_LATE, PROC_POOLED, PROC_PROXY};

/// Longer than any healthy machine needs; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rig {
    pub kernel: Kernel,
    ring: Ring,
    seen: Vec<Observation>,
    /// Facts before this one belong to earlier tests.
    from: usize,
    never: (UnixStream, UnixStream),
}

/// The rig, one test at a time.
pub fn rig() -> MutexGuard<'static, Rig> {
    static RIG: OnceLock<Mutex<Rig>> = OnceLock::new();
    let mut rig = RIG.get_or_init(|| Mutex::new(Rig::new())).lock().unwrap_or_else(PoisonError::into_inner);
    rig.pump(Duration::ZERO);
    rig.from = rig.seen.len();
    rig
}

impl Rig {
    fn new() -> Rig {
        Rig::with(&Options::default())
    }

    /// Probes of one's own. They see what the shared ones see.
    pub fn with(options: &Options) -> Rig {
        let mut rig = Rig::of_nobody(options);
        rig.kernel.track(std::process::id(), PROC_PROXY).unwrap();
        rig.kernel.watch_connect(std::process::id());
        rig.kernel.watch_tls(std::process::id());
        rig.kernel.find_existing();
        rig
    }

    /// The same while this process is no proxy to them, and was none before.
    pub fn of_nobody(options: &Options) -> Rig {
        let mut kernel = Kernel::load(options).expect("the probes load as root");
        kernel.complete().expect("every required probe attaches");
        let ring = Ring::new(kernel.take_ring().unwrap());
        Rig { kernel, ring, seen: Vec::new(), from: 0, never: UnixStream::pair().unwrap() }
    }

    /// Plays a proxy that closes its upstream after it has answered the client, or before.
    pub fn closes_late(&mut self, late: bool) {
        let class = if late { PROC_PROXY | PROC_LATE } else { PROC_PROXY };
        self.kernel.track(std::process::id(), class).unwrap();
        self.kernel.watch_tls(std::process::id());
    }

    /// Runs this while it plays a proxy that begins all that it needs before it minds what failed.
    pub fn serves_in_turns(&mut self, act: impl FnOnce(&mut Rig)) {
        self.kernel.track(std::process::id(), PROC_PROXY | PROC_POOLED).unwrap();
        act(self);
        self.closes_late(false);
    }

    /// Runs this while the TLS library of this process is none that is hooked.
    pub fn without_tls(&mut self, act: impl FnOnce(&mut Rig)) {
        self.kernel.track(std::process::id(), PROC_PROXY).unwrap();
        act(self);
        self.closes_late(false);
    }

    /// Runs this while this process is nobody of interest.
    pub fn plays_no_proxy(&mut self, act: impl FnOnce()) {
        self.kernel.track(std::process::id(), 0).unwrap();
        act();
        self.closes_late(false);
    }

    pub fn pump(&mut self, wait: Duration) -> usize {
        self.ring.wait(self.never.0.as_fd(), None, wait);
        let (ring, seen, names) = (&mut self.ring, &mut self.seen, &self.kernel.names);
        ring.drain(usize::MAX, |record| seen.push(decode::decode(record, names).expect("a record of our own decodes")))
    }

    /// Waits for the first fact of this test that `pick` takes.
    pub fn wait<T>(&mut self, what: &str, pick: impl Fn(&Observation) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut at = self.from;
        loop {
            while at < self.seen.len() {
                if let Some(found) = pick(&self.seen[at]) {
                    return found;
                }
                at += 1;
            }
            assert!(Instant::now() < deadline, "no {what} among {:#?}", &self.seen[self.from..]);
            self.pump(Duration::from_millis(200));
        }
    }

    pub fn attempt(&mut self, to: SocketAddr) -> Attempt {
        self.wait(&format!("attempt on {to}"), |seen| match &seen.fact {
            Fact::Attempt(attempt) if attempt.endpoint == Endpoint::Tcp(to) => Some((**attempt).clone()),
            _ => None,
        })
    }

    pub fn client_error(&mut self, at: SocketAddr) -> ClientError {
        self.wait(&format!("client error at {at}"), |seen| match &seen.fact {
            Fact::Client(error) if error.conn.flow.is_some_and(|flow| flow.local == at) => Some(error.clone()),
            _ => None,
        })
    }

    /// What this test has been told so far, after a fact that comes last has been seen.
    pub fn told(&mut self) -> &[Observation] {
        // A refused connect is told at once: all that was before it has been told when it is there.
        let nobody = free_port();
        assert!(TcpStream::connect(nobody).is_err());
        self.attempt(nobody);
        &self.seen[self.from..]
    }

    /// Attempts on this address that this test was told.
    pub fn count_attempts(&self, to: SocketAddr) -> u64 {
        let told = self.seen[self.from..].iter();
        told.filter(|seen| matches!(&seen.fact, Fact::Attempt(attempt) if attempt.endpoint == Endpoint::Tcp(to)))
            .count() as u64
    }

    /// Whether this kernel names the reasons for which it resets.
    pub fn names_resets(&self) -> bool {
        !self.kernel.names.reset.is_empty()
    }
}

/// A loopback address where nothing listens.
pub fn free_port() -> SocketAddr {
    listen().1
}

pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// The request that upstreams are sent in these tests.
pub const REQUEST: &[u8] = b"GET /cart?id=1 HTTP/1.1\r\nHost: shop.example\r\n\r\n";

pub fn ask(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(REQUEST).unwrap();
    stream
}

/// Reads what a request is, once.
pub fn read_some(stream: &mut TcpStream) -> usize {
    let mut room = [0; 4096];
    stream.read(&mut room).unwrap()
}

/// Closes with a reset.
pub fn abort(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: a valid descriptor and a linger of that size.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
    assert_eq!(done, 0);
}

/// A TCP exchange in which a proxy's client and the proxy's own end of it are both in our hands.
pub fn client_of(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (proxy, _) = listener.accept().unwrap();
    (client, proxy)
}
