//! What a socket says of itself.

use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;

use super::*;

/// A socket that a hook was given.
#[derive(Clone, Copy)]
pub struct Sock(pub Ptr);

impl Sock {
    /// For those that run where there is none: in a process's own code.
    pub const NONE: Sock = Sock(core::ptr::null());

    #[inline(always)]
    pub fn family(self) -> u16 {
        load!(self.0, sk_family)
    }

    #[inline(always)]
    pub fn protocol(self) -> u16 {
        load!(self.0, sk_protocol)
    }

    #[inline(always)]
    pub fn kind(self) -> u16 {
        load!(self.0, sk_type)
    }

    #[inline(always)]
    pub fn port(self) -> u16 {
        load!(self.0, sk_num)
    }

    /// Host byte order.
    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        u16::from_be(load!(self.0, sk_dport))
    }

    #[inline(always)]
    pub fn shutdown(self) -> u8 {
        Own(self.0).get::<u8>(offset!(sk_shutdown)) & 3
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        load!(self.0, sk_state)
    }

    /// Whether an application holds it: an unaccepted one has no `struct socket`.
    #[inline(always)]
    pub fn is_accepted(self) -> bool {
        Own(self.0).get::<u64>(offset!(sk_socket)) != 0
    }

    /// Its cookie, 0 as long as nobody asked for one.
    #[inline(always)]
    pub fn known_cookie(self) -> u64 {
        load!(self.0, sk_cookie)
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        let net: Ptr = load!(self.0, sk_net);
        load!(net, net_ns_inum)
    }

    /// Addresses of a TCP or UDP socket.
    #[inline(always)]
    pub fn tuple(self, to: &mut Tuple) {
        addresses(Own(self.0), self.0, to);
        to.netns = self.netns();
    }

    /// The same where it is seldom asked for: the namespace is read by helpers. For each way to a pointer of a socket that
    /// is loaded directly, the verifier searches all types of the kernel (see `uses_io_uring`).
    #[inline(always)]
    pub fn seldom_tuple(self, to: &mut Tuple) {
        addresses(Own(self.0), self.0, to);
        to.netns = netns(self.0);
    }

    /// Its namespace, where it is seldom asked for.
    #[inline(always)]
    pub fn seldom_netns(self) -> u32 {
        netns(self.0)
    }

    /// What the kernel knows of a TCP socket.
    #[inline(always)]
    pub fn tcp(self, jiffies: u64, to: &mut Tcp) {
        // SAFETY: the hook's own argument; the helper returns null or the same address with its full type.
        let whole: Ptr = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) }.cast_const().cast();
        if whole.is_null() {
            tcp_from(At(self.0), jiffies, to);
        } else {
            tcp_from(Own(whole), jiffies, to);
        }
    }

    /// Whether its owner ended it, at the moment of a change of state. One that the kernel gives up (no answer to
    /// retransmissions or probes) is marked only after that.
    #[inline(always)]
    pub fn ended_by_owner(self) -> bool {
        self.shutdown() & SHUTDOWN_SEND != 0
    }

    /// Its address as a number, where the verifier wants no pointer: read back as if it were anything, since a pointer
    /// stays one however it is cast. 0 for none.
    #[inline(never)]
    pub fn address(self) -> u64 {
        let pointer = core::hint::black_box(self.0);
        read_or_zero((&raw const pointer).cast(), 0)
    }

    #[inline(always)]
    pub fn error(self) -> i32 {
        load!(self.0, sk_err)
    }

    /// Whether a wildcard of IPv6 takes IPv6 alone.
    #[inline(always)]
    pub fn only_v6(self) -> bool {
        let bit = constant!(SETTINGS.only_v6) as usize;
        bit != MISSING && read_or_zero::<u8>(self.0, bit >> 3) >> (bit & 7) & 1 != 0
    }

    /// An error that does not end the connection by itself: an ICMP message that came while connect() ran.
    /// The owner takes it by asking for it; what the message said stays in the queue of errors.
    #[inline(always)]
    pub fn soft_error(self) -> i32 {
        let soft: i32 = read_or_zero(self.0, offset!(sk_err_soft));
        if soft != 0 {
            return soft;
        }
        let (queue, cb, ee) = (offset!(sk_error_queue), offset!(skb_cb), offset!(exterr_ee));
        let first: u64 = read_or_zero(self.0, queue);
        // An empty queue points at itself.
        if first == 0 || first == (self.0 as u64).wrapping_add(queue as u64) || cb == MISSING || ee == MISSING {
            return 0;
        }
        read_or_zero(first as Ptr, cb + ee)
    }

    /// Whether its owner asked for acknowledgements to be delayed, which is off until a connection is used.
    #[inline(always)]
    pub fn delays_acks(self) -> bool {
        let at = offset!(icsk_pingpong);
        at != MISSING && read_or_zero::<u8>(self.0, at) != 0
    }

    /// Bytes that came and were not read by the owner.
    #[inline(always)]
    pub fn unread(self) -> u32 {
        unread(self.0)
    }

    /// Whether the `n` bytes that its owner just read are the first that it read of it.
    #[inline(always)]
    pub fn began_with(self, n: u64) -> bool {
        let at = offset!(tp_bytes_received);
        let before = || read_or_zero::<u64>(self.0, at).wrapping_sub(n).wrapping_sub(self.unread().into());
        // A FIN is unread, too, and was never received as a byte.
        at != MISSING && before().wrapping_add(1) <= 1
    }
}

/// The same as a value. Nothing is written before: each of its bytes is.
#[inline(always)]
pub fn addresses_of(sk: Sock) -> Tuple {
    let mut tuple = MaybeUninit::<Tuple>::uninit();
    // SAFETY: every field is written, and there is nothing between them.
    unsafe {
        sk.tuple(&mut *tuple.as_mut_ptr());
        tuple.assume_init()
    }
}

/// Addresses of a TCP or UDP socket, wherever the pointer came from.
#[inline(always)]
pub fn tuple(sk: Ptr, to: &mut Tuple) {
    addresses(At(sk), sk, to);
    to.netns = netns(sk);
}

#[inline(always)]
fn addresses(from: impl Source, sk: Ptr, to: &mut Tuple) {
    let family: u16 = from.get(offset!(sk_family));
    if family == AF_INET6 {
        to.local = wide(from, offset!(sk_saddr6));
        to.remote = wide(from, offset!(sk_daddr6));
    } else {
        to.local = mapped(from.get(offset!(sk_saddr)));
        to.remote = mapped(from.get(offset!(sk_daddr)));
    }
    to.local_port = from.get(offset!(sk_num));
    if to.local_port == 0 {
        to.local_port = left_port(sk);
    }
    to.remote_port = u16::from_be(from.get(offset!(sk_dport)));
}

/// Its own port, wherever the pointer came from.
#[inline(always)]
pub fn local_port(sk: Ptr) -> u16 {
    match read_or_zero(sk, offset!(sk_num)) {
        0 => left_port(sk),
        port => port,
    }
}

/// A closed socket has given its port back, but remembers which it was.
#[inline(always)]
fn left_port(sk: Ptr) -> u16 {
    u16::from_be(read_or_zero(sk, offset!(sk_sport)))
}

#[inline(always)]
fn wide(from: impl Source, offset: usize) -> [u8; 16] {
    let [a, b, c, d]: [u32; 4] = core::array::from_fn(|word| from.get(offset + word * 4));
    halves(u64::from(a) | u64::from(b) << 32, u64::from(c) | u64::from(d) << 32)
}

/// An address by its first and its last eight bytes, as they lie in memory.
#[inline(always)]
fn halves(first: u64, last: u64) -> [u8; 16] {
    // SAFETY: sixteen bytes either way.
    unsafe { core::mem::transmute([first, last]) }
}

/// Zero, of which the compiler does not know that it is: sixteen bytes of zeros that it knows become a loop over bytes in
/// a function of its own.
#[inline(always)]
fn zero() -> u64 {
    core::hint::black_box(0)
}

/// `::`, the wildcard of IPv6.
#[inline(always)]
pub fn any() -> [u8; 16] {
    halves(zero(), zero())
}

/// `::ffff:a.b.c.d` of an IPv4 address in network byte order.
#[inline(always)]
pub fn mapped(v4: u32) -> [u8; 16] {
    const MARKER: u64 = u64::from_le_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    halves(zero(), u64::to_le(MARKER | u64::from(u32::from_le(v4)) << 32))
}

/// Whether it is an IPv4 address, as all are kept here.
#[inline(always)]
pub fn is_mapped(addr: &[u8; 16]) -> bool {
    let [a, b, c, d, e, f, g, h, marker @ .., _, _, _, _] = *addr;
    a | b | c | d | e | f | g | h == 0 && marker == [0, 0, 0xff, 0xff]
}

#[inline(always)]
pub fn netns(sk: Ptr) -> u32 {
    inode_of(read_or_zero(sk, offset!(sk_net)))
}

/// Makes addresses the same for whoever looks at the connection. Loopback is each namespace's own. Other addresses are
/// seen from two namespaces, and two pairs of namespaces may use the same.
#[inline(always)]
pub fn flow_key(tuple: &mut Tuple) {
    let a = &tuple.local;
    let v4 = a[10] == 0xff && a[12] == 127;
    let v6 = a[15] == 1 && a[0] == 0 && a[10] == 0;
    if !v4 && !v6 {
        tuple.netns = 0;
    }
}

/// Whether what `to` has received so far is what the socket at `from` has sent: they are the two ends of one
/// connection. Both count from a number that was drawn for this connection, and no address translation changes it.
#[inline(always)]
pub fn receives_from(to: u64, from: u64) -> bool {
    let acknowledged: u32 = read_or_zero(from as Ptr, offset!(tp_snd_una));
    let next: u32 = read_or_zero(to as Ptr, offset!(tp_rcv_nxt));
    let written: u32 = read_or_zero(from as Ptr, offset!(tp_write_seq));
    // Its end counts as one more.
    next.wrapping_sub(acknowledged) <= written.wrapping_sub(acknowledged).wrapping_add(1)
}

/// The same flow seen from its other end.
#[inline(always)]
pub fn mirror(tuple: &Tuple) -> Tuple {
    Tuple {
        local: tuple.remote,
        remote: tuple.local,
        local_port: tuple.remote_port,
        remote_port: tuple.local_port,
        netns: tuple.netns,
    }
}

/// The cookie of a socket at an address that may be stale; 0 when it has none.
#[inline(always)]
pub fn cookie_at(sk: u64) -> u64 {
    read_or_zero(sk as Ptr, offset!(sk_cookie))
}

#[inline(always)]
pub fn error_at(sk: u64) -> i32 {
    read_or_zero(sk as Ptr, offset!(sk_err))
}

#[inline(always)]
pub fn state_at(sk: u64) -> u8 {
    read_or_zero(sk as Ptr, offset!(sk_state))
}

/// Whether an application holds the socket: an unaccepted one has no `struct socket`.
#[inline(always)]
pub fn accepted_at(sk: u64) -> bool {
    read_or_zero::<u64>(sk as Ptr, offset!(sk_socket)) != 0
}

#[inline(always)]
pub fn unread(sk: Ptr) -> u32 {
    unread_bytes(read_or_zero(sk, offset!(tp_rcv_nxt)), read_or_zero(sk, offset!(tp_copied_seq)))
}

#[inline(always)]
fn unread_bytes(next: u32, copied: u32) -> u32 {
    // A received FIN counts as one byte of sequence space; before the handshake both are unset.
    let bytes = next.wrapping_sub(copied);
    if bytes > 1 << 30 { 0 } else { bytes }
}

/// Length of the accept queue and its limit.
#[inline(always)]
pub fn accept_queue(sk: u64) -> (u32, u32) {
    let sk = sk as Ptr;
    (read_or_zero(sk, offset!(sk_ack_backlog)), read_or_zero(sk, offset!(sk_max_ack_backlog)))
}

/// What the kernel knows of a TCP socket at an address that may be stale.
#[inline(always)]
pub fn tcp_at(sk: u64, jiffies: u64, to: &mut Tcp) {
    tcp_from(At(sk as Ptr), jiffies, to);
}

#[inline(always)]
fn tcp_from(from: impl Source, jiffies: u64, to: &mut Tcp) {
    to.state = from.get(offset!(sk_state));
    to.retransmits = from.get(offset!(icsk_retransmits));
    to.error = from.get(offset!(sk_err));
    to.in_flight = from.get(offset!(tp_packets_out));
    to.unread = unread_bytes(from.get(offset!(tp_rcv_nxt)), from.get(offset!(tp_copied_seq)));
    to.window = from.get(offset!(tp_snd_wnd));
    let una: u32 = from.get(offset!(tp_snd_una));
    let written: u32 = from.get(offset!(tp_write_seq));
    to.unacked = written.wrapping_sub(una);
    to.idle_in_ms = idle(jiffies, from.get(offset!(icsk_lrcvtime)));
    to.idle_out_ms = idle(jiffies, from.get(offset!(tp_lsndtime)));
}

/// Milliseconds since a 32-bit jiffies stamp.
#[inline(always)]
fn idle(now: u64, stamp: u32) -> u32 {
    if stamp == 0 {
        return u32::MAX;
    }
    let jiffies = (now as u32).wrapping_sub(stamp);
    (jiffies as u64 * constant!(SETTINGS.jiffy_us) as u64 / 1000) as u32
}

/// Path of the address that a unix socket is bound to; returns its length, 0 for none.
#[inline(always)]
pub fn unix_path(sk: u64, to: &mut [u8; PATH]) -> u32 {
    let addr: u64 = read_or_zero(sk as Ptr, offset!(unix_addr));
    if addr == 0 {
        return 0;
    }
    let len: u32 = read_or_zero(addr as Ptr, offset!(unix_addr_len));
    // The family comes before the path.
    copy(to.as_mut_ptr(), (addr as Ptr).wrapping_add(offset!(unix_addr_name) + 2), PATH);
    let len = len.saturating_sub(2);
    if len > PATH as u32 { PATH as u32 } else { len }
}

#[inline(always)]
pub fn unix_peer(sk: u64) -> u64 {
    read_or_zero(sk as Ptr, offset!(unix_peer))
}

#[inline(always)]
pub fn unix_is_bound(sk: u64) -> bool {
    read_or_zero::<u64>(sk as Ptr, offset!(unix_addr)) != 0
}

/// Messages waiting in a socket's receive queue.
#[inline(always)]
pub fn receive_queue(sk: u64) -> u32 {
    read_or_zero(sk as Ptr, offset!(sk_receive_qlen))
}

pub const IPPROTO_MPTCP: u16 = 262;

/// Address of the socket of TCP that does the listening for one of MPTCP, which Go's listeners are (1.24); 0 for others.
#[inline(always)]
pub fn beneath(sk: Sock) -> u64 {
    let offset = constant!(SETTINGS.mptcp_first) as usize;
    if sk.protocol() != IPPROTO_MPTCP || offset == MISSING {
        return 0;
    }
    read_or_zero(sk.0, offset)
}

/// `struct socket.sk` of a function argument.
#[inline(always)]
pub fn sock_of(socket: Ptr) -> Sock {
    let sk: u64 = load!(socket, socket_sk);
    Sock(sk as Ptr)
}
