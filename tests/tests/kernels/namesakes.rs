//! Two pairs of namespaces that use the same addresses and ports at the same time, as containers' networks do.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::Command;

use trace502::model::*;

use crate::rig::*;

const NEAR: &str = "10.198.0.1/24";
const FAR: &str = "10.198.0.2/24";

/// A network namespace of its own.
struct Net(File);

impl Net {
    fn new() -> Net {
        let thread = std::thread::spawn(|| {
            // SAFETY: moves only this thread into an empty network namespace.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Net(thread.join().unwrap())
    }

    /// Runs this there. Sockets that it makes stay there.
    fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                // SAFETY: a namespace's descriptor; moves only this thread.
                assert_eq!(unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                inside()
            });
            entered.join().unwrap()
        })
    }
}

fn ip(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().expect("ip is installed").success(), "ip {line}");
}

/// Two namespaces with a wire between them.
fn wired() -> (Net, Net) {
    let (near, far) = (Net::new(), Net::new());
    let other = format!("/proc/{}/fd/{}", std::process::id(), far.0.as_raw_fd());
    near.run(|| {
        ip(&format!("link add v0 type veth peer name v1 netns {other}"));
        ip(&format!("addr add {NEAR} dev v0"));
        ip("link set v0 up");
    });
    far.run(|| {
        ip(&format!("addr add {FAR} dev v1"));
        ip("link set v1 up");
    });
    (near, far)
}

fn at(host: u8, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(Ipv4Addr::new(10, 198, 0, host).octets()) },
        sin_zero: [0; 8],
    }
}

/// A connection from a port that is always the same.
fn dial() -> TcpStream {
    let size = size_of::<libc::sockaddr_in>() as u32;
    let (from, to) = (at(1, 40_502), at(2, 8502));
    // SAFETY: the descriptor is ours alone; addresses with their sizes.
    unsafe {
        let socket = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        assert_eq!(libc::bind(socket.as_raw_fd(), (&raw const from).cast(), size), 0);
        assert_eq!(libc::connect(socket.as_raw_fd(), (&raw const to).cast(), size), 0);
        socket.into()
    }
}

struct Pair {
    proxy: TcpStream,
    upstream: TcpStream,
    _nets: (Net, Net),
}

fn pair(tracked: bool, rig: &mut Rig) -> Pair {
    let nets = wired();
    let listener = nets.1.run(|| TcpListener::bind(SocketAddr::from(([10, 198, 0, 2], 8502))).unwrap());
    let mut dialled = None;
    let mut dial = || dialled = Some(nets.0.run(dial));
    if tracked {
        dial();
    } else {
        rig.plays_no_proxy(dial);
    }
    let mut proxy = dialled.unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    proxy.write_all(REQUEST).unwrap();
    read_some(&mut upstream);
    Pair { proxy, upstream, _nets: nets }
}

fn attempts(rig: &mut Rig) -> Vec<Attempt> {
    let to = Endpoint::Tcp(SocketAddr::from(([10, 198, 0, 2], 8502)));
    let told = rig.told().iter().filter_map(|seen| match &seen.fact {
        Fact::Attempt(attempt) if attempt.endpoint == to => Some((**attempt).clone()),
        _ => None,
    });
    told.collect()
}

#[test]
fn each_connection_has_its_own_other_end_whoever_has_the_same_addresses() {
    let mut rig = rig();
    let mut first = pair(true, &mut rig);
    let mut second = pair(true, &mut rig);
    // The first is closed in order, the second is reset.
    drop(first.upstream);
    abort(second.upstream);
    assert_eq!(first.proxy.read(&mut [0; 16]).unwrap(), 0);
    assert!(second.proxy.read(&mut [0; 16]).is_err());
    drop((first.proxy, second.proxy));
    let told = attempts(&mut rig);
    let [closed, reset] = &told[..] else { panic!("{told:#?}") };
    let peer = |attempt: &Attempt| attempt.peer.clone().unwrap();
    assert!(closed.conn.fin_early && closed.conn.reset.is_none() && reset.conn.reset.is_some());
    assert!(peer(closed).closed_first && !peer(closed).sent_reset, "{closed:#?}");
    assert!(peer(reset).sent_reset, "{reset:#?}");
    let netns = [closed, reset].map(|attempt| (attempt.conn.flow.unwrap().netns, peer(attempt).netns));
    assert!(netns[0].0 != netns[1].0 && netns[0].1 != netns[1].1, "{netns:?}");
}

#[test]
fn a_stranger_with_the_same_addresses_is_no_other_end() {
    let mut rig = rig();
    let first = pair(true, &mut rig);
    let stranger = pair(false, &mut rig);
    // What the stranger's other end does is not said of the first one's.
    abort(stranger.upstream);
    drop(stranger.proxy);
    drop(first.proxy);
    let told = attempts(&mut rig);
    let [attempt] = &told[..] else { panic!("{told:#?}") };
    let peer = attempt.peer.clone().unwrap();
    assert!(peer.accepted && !peer.closed_first && !peer.sent_reset && !peer.got_reset, "{attempt:#?}");
    drop(first.upstream);
}
