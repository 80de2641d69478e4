//! Every read of a kernel structure: the only file that adds an offset to a kernel pointer.
//!
//! Two ways of reading. [`direct`] is a plain load through a pointer that the verifier knows (a tracepoint's own
//! argument, the current task): as cheap as it gets. [`read`] asks a helper, works on any address, and may fail.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user, bpf_task_pt_regs,
};
use trace502_ebpf::{PATH, Tcp, Tuple};

use crate::maps::constant;

/// A pointer into the kernel.
pub type Ptr = *const u8;

pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

pub const TCP_ESTABLISHED: u8 = 1;
pub const TCP_SYN_SENT: u8 = 2;
pub const TCP_SYN_RECV: u8 = 3;
pub const TCP_FIN_WAIT1: u8 = 4;
pub const TCP_CLOSE: u8 = 7;
pub const TCP_CLOSE_WAIT: u8 = 8;
pub const TCP_LAST_ACK: u8 = 9;
pub const TCP_LISTEN: u8 = 10;

/// `sk_shutdown`: nothing more comes, nothing more goes.
pub const SHUTDOWN_RECEIVE: u8 = 1;
pub const SHUTDOWN_SEND: u8 = 2;
pub const SHUTDOWN_BOTH: u8 = 3;

/// `offset_of` a struct member in the running kernel.
macro_rules! offset {
    ($field:ident) => {
        constant!(OFFSETS.$field) as usize
    };
}

/// What an offset is where this kernel lacks the member.
const MISSING: usize = u32::MAX as usize;

/// A load through a pointer whose type the verifier knows.
///
/// # Safety
/// `base` must be such a pointer, and `offset` that of a member of type `T`.
#[inline(always)]
unsafe fn direct<T: Copy>(base: Ptr, offset: usize) -> T {
    // SAFETY: the caller's promise; the verifier refuses the program otherwise.
    unsafe { core::ptr::read_volatile(base.add(offset).cast::<T>()) }
}

/// [`direct`] of a member. Only for what a hook was given.
macro_rules! load {
    ($base:expr, $field:ident) => {{
        let (base, offset) = ($base, offset!($field));
        // SAFETY: `Sock` and its like are made only from a hook's own arguments.
        unsafe { direct(base, offset) }
    }};
}

/// A read from any kernel address.
#[inline(always)]
pub fn read<T: Copy>(base: Ptr, offset: usize) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes size_of::<T>() bytes or fails; T is plain data.
    unsafe {
        let from = base.wrapping_add(offset).cast::<c_void>();
        match bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from) {
            0 => Some(value.assume_init()),
            _ => None,
        }
    }
}

/// The same where zero will do for what cannot be read. No branch, which every program and the verifier are spared
/// many times over.
#[inline(always)]
fn read_or_zero<T: Copy>(base: Ptr, offset: usize) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes size_of::<T>() bytes, zeros if it fails; every T here is made of integers.
    unsafe {
        let from = base.wrapping_add(offset).cast::<c_void>();
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        value.assume_init()
    }
}

/// Copies between kernel memory (map values, records) without a loop.
#[inline(always)]
pub fn copy(to: *mut u8, from: Ptr, len: usize) {
    // SAFETY: `to` is checked by the verifier to have `len` bytes; `from` may be anything.
    unsafe { bpf_probe_read_kernel(to.cast(), len as u32, from.cast()) };
}

/// The same, and whether it worked.
#[inline(always)]
pub fn copy_checked(to: *mut u8, len: u32, from: u64) -> i64 {
    // SAFETY: as in `copy`.
    unsafe { bpf_probe_read_kernel(to.cast(), len, from as *const c_void) as i64 }
}

/// Reads user memory into `to`; 0 on success.
#[inline(always)]
pub fn copy_user(to: *mut u8, len: u32, from: u64) -> i64 {
    // SAFETY: `to` is checked by the verifier to have `len` bytes; the helper checks `from`.
    unsafe { bpf_probe_read_user(to.cast(), len, from as *const c_void) as i64 }
}

#[inline(always)]
pub fn read_user<T: Copy>(from: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    match copy_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, from) {
        // SAFETY: the helper wrote all of it; T is plain data.
        0 => Some(unsafe { value.assume_init() }),
        _ => None,
    }
}

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

    /// Host byte order.
    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        u16::from_be(load!(self.0, sk_dport))
    }

    #[inline(always)]
    pub fn shutdown(self) -> u8 {
        read_or_zero::<u8>(self.0, offset!(sk_shutdown)) & 3
    }

    /// Whether its owner ended it, at the moment of a change of state. One that the kernel gives up (no answer to
    /// retransmissions or probes) is marked only after that.
    #[inline(always)]
    pub fn ended_by_owner(self) -> bool {
        self.shutdown() & SHUTDOWN_SEND != 0
    }

    #[inline(always)]
    pub fn error(self) -> i32 {
        read_or_zero(self.0, offset!(sk_err))
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
}

/// Addresses of a TCP or UDP socket, wherever the pointer came from.
#[inline(always)]
pub fn tuple(sk: Ptr, to: &mut Tuple) {
    let family: u16 = read_or_zero(sk, offset!(sk_family));
    if family == AF_INET6 {
        to.local = read_or_zero(sk, offset!(sk_saddr6));
        to.remote = read_or_zero(sk, offset!(sk_daddr6));
    } else {
        to.local = mapped(read_or_zero(sk, offset!(sk_saddr)));
        to.remote = mapped(read_or_zero(sk, offset!(sk_daddr)));
    }
    to.local_port = read_or_zero(sk, offset!(sk_num));
    if to.local_port == 0 {
        // A closed socket has given its port back, but remembers which it was.
        to.local_port = u16::from_be(read_or_zero(sk, offset!(sk_sport)));
    }
    to.remote_port = u16::from_be(read_or_zero(sk, offset!(sk_dport)));
    to.netns = netns(sk);
}

/// `::ffff:a.b.c.d` of an IPv4 address in network byte order.
#[inline(always)]
pub fn mapped(v4: u32) -> [u8; 16] {
    let b = v4.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, b[0], b[1], b[2], b[3]]
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

#[inline(always)]
fn inode_of(net: u64) -> u32 {
    if net == 0 { 0 } else { read_or_zero(net as Ptr, offset!(net_ns_inum)) }
}

/// A key of `FLOWS`: two namespaces may have the same loopback addresses, all others are unique on a host.
#[inline(always)]
pub fn flow_key(tuple: &mut Tuple) {
    let a = &tuple.local;
    let v4 = a[10] == 0xff && a[12] == 127;
    let v6 = a[15] == 1 && a[0] == 0 && a[10] == 0;
    if !v4 && !v6 {
        tuple.netns = 0;
    }
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

/// Network namespace of the current task.
#[inline(always)]
pub fn current_netns() -> u32 {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as Ptr;
    let proxy: u64 = read_or_zero(task, offset!(task_nsproxy));
    if proxy == 0 { 0 } else { inode_of(read_or_zero(proxy as Ptr, offset!(nsproxy_net))) }
}

/// The cookie of a socket at an address that may be stale; 0 when it has none.
#[inline(always)]
pub fn cookie_at(sk: u64) -> u64 {
    read_or_zero(sk as Ptr, offset!(sk_cookie))
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
    let next: u32 = read_or_zero(sk, offset!(tp_rcv_nxt));
    let copied: u32 = read_or_zero(sk, offset!(tp_copied_seq));
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

#[inline(always)]
pub fn tcp(sk: Sock, jiffies: u64, to: &mut Tcp) {
    let sk = sk.0;
    to.state = state_at(sk as u64);
    to.retransmits = read_or_zero(sk, offset!(icsk_retransmits));
    to.error = read_or_zero(sk, offset!(sk_err));
    to.in_flight = read_or_zero(sk, offset!(tp_packets_out));
    to.unread = unread(sk);
    to.window = read_or_zero(sk, offset!(tp_snd_wnd));
    let una: u32 = read_or_zero(sk, offset!(tp_snd_una));
    let written: u32 = read_or_zero(sk, offset!(tp_write_seq));
    to.unacked = written.wrapping_sub(una);
    to.idle_in_ms = idle(jiffies, read_or_zero(sk, offset!(icsk_lrcvtime)));
    to.idle_out_ms = idle(jiffies, read_or_zero(sk, offset!(tp_lsndtime)));
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

/// A task that a hook was given.
#[derive(Clone, Copy)]
pub struct TaskPtr(pub Ptr);

impl TaskPtr {
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        read_or_zero(self.0, offset!(task_tgid))
    }

    #[inline(always)]
    pub fn tid(self) -> u32 {
        read_or_zero(self.0, offset!(task_pid))
    }

    #[inline(always)]
    pub fn comm(self) -> [u8; trace502_ebpf::COMM] {
        read_or_zero(self.0, offset!(task_comm))
    }

    #[inline(always)]
    pub fn parent(self) -> u32 {
        let parent: u64 = read_or_zero(self.0, offset!(task_parent));
        if parent == 0 { 0 } else { TaskPtr(parent as Ptr).tgid() }
    }

    /// Its cgroup v2 id, as the current task's helper would say it; 0 where this kernel does not let it be read.
    #[inline(always)]
    pub fn cgroup(self) -> u64 {
        let (sets, group, node, id) =
            (offset!(task_cgroups), offset!(css_set_group), offset!(group_node), offset!(node_id));
        if sets == MISSING || group == MISSING || node == MISSING || id == MISSING {
            return 0;
        }
        let set: u64 = read_or_zero(self.0, sets);
        let group: u64 = if set == 0 { 0 } else { read_or_zero(set as Ptr, group) };
        let node: u64 = if group == 0 { 0 } else { read_or_zero(group as Ptr, node) };
        if node == 0 { 0 } else { read_or_zero(node as Ptr, id) }
    }

    /// The wait status of the whole process once it goes.
    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        let signal: u64 = read_or_zero(self.0, offset!(task_signal));
        let group: u32 = if signal == 0 { 0 } else { read_or_zero(signal as Ptr, offset!(signal_group_exit_code)) };
        if group != 0 { group } else { read_or_zero(self.0, offset!(task_exit_code)) }
    }

    /// Threads of the process that are still alive.
    #[inline(always)]
    pub fn live_threads(self) -> i32 {
        let signal: u64 = read_or_zero(self.0, offset!(task_signal));
        if signal == 0 { 0 } else { read_or_zero(signal as Ptr, offset!(signal_live)) }
    }

    /// Resident pages: file, anonymous and shared memory.
    #[inline(always)]
    pub fn resident_pages(self) -> u64 {
        let stride = constant!(SETTINGS.rss_stride) as usize;
        let mm: u64 = read_or_zero(self.0, offset!(task_mm));
        if stride == 0 || mm == 0 {
            return 0;
        }
        let base = (mm as Ptr).wrapping_add(offset!(mm_rss));
        let file: i64 = read_or_zero(base, 0);
        let anon: i64 = read_or_zero(base, stride);
        // The third counts swap entries, the fourth shared memory.
        let shared: i64 = read_or_zero(base, 3 * stride);
        (file.max(0) + anon.max(0) + shared.max(0)) as u64
    }
}

#[inline(always)]
pub fn signal_code(info: u64) -> i32 {
    // 0, 1 and 2 are no pointers: SEND_SIG_NOINFO, SEND_SIG_PRIV and their like.
    match info {
        0 => 0,
        1 | 2 => 0x80,
        _ => read_or_zero(info as Ptr, offset!(siginfo_code)),
    }
}

/// A packet that a hook was given.
#[derive(Clone, Copy)]
pub struct Skb(pub Ptr);

/// Where a packet's TCP header says it comes from and goes to.
pub struct Packet {
    pub tuple: Tuple,
    pub flags: u8,
}

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;

impl Skb {
    /// Namespace of the device that it came in on or goes out by.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        let dev: u64 = read_or_zero(self.0, offset!(skb_dev));
        if dev == 0 { 0 } else { inode_of(read_or_zero(dev as Ptr, offset!(dev_net))) }
    }

    /// The sender's view of a TCP packet; `None` for all others.
    #[inline(always)]
    pub fn packet(self) -> Option<Packet> {
        let head: u64 = read(self.0, offset!(skb_head))?;
        let network: u16 = read(self.0, offset!(skb_network))?;
        if head == 0 || network == 0 || network == u16::MAX {
            return None;
        }
        let ip = (head as Ptr).wrapping_add(network as usize);
        let first: u8 = read(ip, 0)?;
        let mut tuple = Tuple { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, netns: 0 };
        let protocol = u16::from_be(read(self.0, offset!(skb_protocol))?);
        let tcp = if first >> 4 == 4 && (protocol == ETH_P_IP || protocol == 0) {
            if read::<u8>(ip, 9)? != IPPROTO_TCP {
                return None;
            }
            tuple.local = mapped(read(ip, 12)?);
            tuple.remote = mapped(read(ip, 16)?);
            ip.wrapping_add(((first & 15) as usize) * 4)
        } else if first >> 4 == 6 && (protocol == ETH_P_IPV6 || protocol == 0) {
            if read::<u8>(ip, 6)? != IPPROTO_TCP {
                return None;
            }
            tuple.local = read(ip, 8)?;
            tuple.remote = read(ip, 24)?;
            ip.wrapping_add(40)
        } else {
            return None;
        };
        tuple.local_port = u16::from_be(read(tcp, 0)?);
        tuple.remote_port = u16::from_be(read(tcp, 2)?);
        Some(Packet { tuple, flags: read(tcp, 13)? })
    }
}

/// Where the running system call keeps its payload.
pub enum Payload {
    Buffer(u64),
    /// Address and count of an array of iovecs.
    Vectors(u64, u64),
    /// A call without a buffer that we could read: sendfile, splice, io_uring.
    Blind,
}

#[cfg(bpf_target_arch = "aarch64")]
mod syscall {
    //! `struct pt_regs` and numbers of aarch64.
    pub const READ: u64 = 63;
    pub const WRITE: u64 = 64;
    pub const READV: u64 = 65;
    pub const WRITEV: u64 = 66;
    pub const SENDTO: u64 = 206;
    pub const RECVFROM: u64 = 207;
    pub const SENDMSG: u64 = 211;
    pub const RECVMSG: u64 = 212;
    pub const RECVMMSG: u64 = 243;
    pub const SENDMMSG: u64 = 269;
    /// `syscallno` follows regs[31], sp, pc, pstate and orig_x0.
    pub const NUMBER: usize = 280;
    pub const ARG1: usize = 8;
    pub const ARG2: usize = 16;
    pub const ARG4: usize = 32;
    pub const RETURN: usize = 0;
    /// x0 to x3: the first arguments of a function.
    pub const CALL: [usize; 4] = [0, 8, 16, 24];
}

#[cfg(not(bpf_target_arch = "aarch64"))]
mod syscall {
    //! `struct pt_regs` and numbers of x86_64.
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const RECVMMSG: u64 = 299;
    pub const SENDMMSG: u64 = 307;
    /// orig_ax, rsi, rdx and r8.
    pub const NUMBER: usize = 120;
    pub const ARG1: usize = 104;
    pub const ARG2: usize = 96;
    pub const ARG4: usize = 72;
    pub const RETURN: usize = 80;
    /// rdi, rsi, rdx and rcx: the first arguments of a function.
    pub const CALL: [usize; 4] = [112, 104, 96, 88];
}

/// The buffer of the system call that the current task is in.
#[inline(always)]
pub fn payload() -> Payload {
    // SAFETY: both helpers return pointers of kernel types that the verifier knows; the offsets are ABI.
    unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as Ptr;
        let number: u64 = direct::<u64>(regs, syscall::NUMBER) & 0xffff_ffff;
        let arg1: u64 = direct(regs, syscall::ARG1);
        match number {
            syscall::READ | syscall::WRITE | syscall::SENDTO | syscall::RECVFROM => Payload::Buffer(arg1),
            syscall::READV | syscall::WRITEV => Payload::Vectors(arg1, direct(regs, syscall::ARG2)),
            // struct msghdr: name, namelen, iov at 16, iovlen at 24. The first message of the multi-message calls.
            syscall::SENDMSG | syscall::RECVMSG | syscall::SENDMMSG | syscall::RECVMMSG => {
                match read_user::<[u64; 2]>(arg1.wrapping_add(16)) {
                    Some([vectors, count]) => Payload::Vectors(vectors, count),
                    None => Payload::Blind,
                }
            }
            _ => Payload::Blind,
        }
    }
}

/// Address that the running sendto() or sendmsg() names, and its port in host byte order.
#[inline(always)]
pub fn destination() -> Option<([u8; 16], u16)> {
    // SAFETY: as in `payload`.
    let (number, arg1, arg4) = unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as Ptr;
        (direct::<u64>(regs, syscall::NUMBER) & 0xffff_ffff, direct(regs, syscall::ARG1), direct(regs, syscall::ARG4))
    };
    let at: u64 = match number {
        syscall::SENDTO => arg4,
        // The first member of struct msghdr.
        syscall::SENDMSG | syscall::SENDMMSG => read_user(arg1)?,
        _ => return None,
    };
    if at == 0 {
        return None;
    }
    let [family, port, v4_low, v4_high] = read_user::<[u16; 4]>(at)?;
    let addr = match family {
        AF_INET => mapped(v4_low as u32 | (v4_high as u32) << 16),
        AF_INET6 => read_user(at.wrapping_add(8))?,
        _ => return None,
    };
    Some((addr, u16::from_be(port)))
}

/// Second argument and result of a system call, read from a uprobe's registers behind its instruction.
#[inline(always)]
pub fn call_registers(regs: *const c_void) -> (u64, i64) {
    // SAFETY: a uprobe's context is struct pt_regs; the verifier checks the offsets.
    unsafe { (direct(regs.cast(), syscall::ARG1), direct(regs.cast(), syscall::RETURN)) }
}

/// The first arguments of the function that a uprobe stands at.
#[inline(always)]
pub fn call_arguments(regs: *const c_void) -> [u64; 4] {
    // SAFETY: a uprobe's context is struct pt_regs; the verifier checks the offsets.
    syscall::CALL.map(|offset| unsafe { direct(regs.cast(), offset) })
}

/// What the function returned that a return probe stands behind.
#[inline(always)]
pub fn call_result(regs: *const c_void) -> i32 {
    // SAFETY: as above.
    let wide: u64 = unsafe { direct(regs.cast(), syscall::RETURN) };
    wide as i32
}

/// One `struct iovec`.
#[inline(always)]
pub fn vector(vectors: u64, index: u64) -> Option<(u64, u64)> {
    read_user::<[u64; 2]>(vectors.wrapping_add(index * 16)).map(|[base, len]| (base, len))
}

/// `struct socket.sk` of a function argument.
#[inline(always)]
pub fn sock_of(socket: Ptr) -> Sock {
    let sk: u64 = load!(socket, socket_sk);
    Sock(sk as Ptr)
}
