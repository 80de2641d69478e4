//! What the kernel side is told before it is loaded: where the running kernel keeps its members, and what it has.

/// Struct members of the running kernel, resolved from its BTF: byte offsets.
/// `u32::MAX` marks a member that this kernel lacks.
macro_rules! offsets {
    ($($name:ident = $strukt:literal . $member:literal),* $(,)?) => {
        #[derive(Clone, Copy)]
        #[repr(C)]
        pub struct Offsets { $(pub $name: u32),* }

        impl Offsets {
            pub const NONE: Offsets = Offsets { $($name: u32::MAX),* };
            /// (field, struct, member path) of each, in order.
            pub const TABLE: &'static [(&'static str, &'static str, &'static str)] =
                &[$((stringify!($name), $strukt, $member)),*];

            /// Asks for the offset of each (field, struct, member path), in order.
            pub fn resolve(mut offset: impl FnMut(&'static str, &'static str, &'static str) -> u32) -> Offsets {
                Offsets { $($name: offset(stringify!($name), $strukt, $member)),* }
            }
        }
    };
}

offsets! {
    sk_family = "sock_common"."skc_family",
    sk_state = "sock_common"."skc_state",
    sk_num = "sock_common"."skc_num",
    sk_dport = "sock_common"."skc_dport",
    sk_saddr = "sock_common"."skc_rcv_saddr",
    sk_daddr = "sock_common"."skc_daddr",
    sk_saddr6 = "sock_common"."skc_v6_rcv_saddr",
    sk_daddr6 = "sock_common"."skc_v6_daddr",
    sk_net = "sock_common"."skc_net.net",
    sk_cookie = "sock_common"."skc_cookie",
    sk_sport = "inet_sock"."inet_sport",
    sk_protocol = "sock"."sk_protocol",
    sk_type = "sock"."sk_type",
    sk_err = "sock"."sk_err",
    sk_err_soft = "sock"."sk_err_soft",
    sk_error_queue = "sock"."sk_error_queue.next",
    sk_socket = "sock"."sk_socket",
    sk_shutdown = "sock"."sk_shutdown",
    sk_ack_backlog = "sock"."sk_ack_backlog",
    sk_max_ack_backlog = "sock"."sk_max_ack_backlog",
    sk_receive_qlen = "sock"."sk_receive_queue.qlen",
    net_ns_inum = "net"."ns.inum",
    socket_sk = "socket"."sk",
    icsk_retransmits = "inet_connection_sock"."icsk_retransmits",
    icsk_pingpong = "inet_connection_sock"."icsk_ack.pingpong",
    icsk_lrcvtime = "inet_connection_sock"."icsk_ack.lrcvtime",
    tp_packets_out = "tcp_sock"."packets_out",
    tp_snd_una = "tcp_sock"."snd_una",
    tp_write_seq = "tcp_sock"."write_seq",
    tp_snd_wnd = "tcp_sock"."snd_wnd",
    tp_rcv_nxt = "tcp_sock"."rcv_nxt",
    tp_copied_seq = "tcp_sock"."copied_seq",
    tp_bytes_received = "tcp_sock"."bytes_received",
    tp_lsndtime = "tcp_sock"."lsndtime",
    unix_peer = "unix_sock"."peer",
    unix_addr = "unix_sock"."addr",
    unix_addr_len = "unix_address"."len",
    unix_addr_name = "unix_address"."name",
    skb_cb = "sk_buff"."cb",
    exterr_ee = "sock_exterr_skb"."ee",
    skb_head = "sk_buff"."head",
    skb_network = "sk_buff"."network_header",
    skb_protocol = "sk_buff"."protocol",
    skb_dev = "sk_buff"."dev",
    dev_net = "net_device"."nd_net.net",
    task_tgid = "task_struct"."tgid",
    task_pid = "task_struct"."pid",
    task_comm = "task_struct"."comm",
    task_exit_code = "task_struct"."exit_code",
    task_mm = "task_struct"."mm",
    task_parent = "task_struct"."real_parent",
    task_signal = "task_struct"."signal",
    task_nsproxy = "task_struct"."nsproxy",
    task_cgroups = "task_struct"."cgroups",
    task_nvcsw = "task_struct"."nvcsw",
    task_flags = "task_struct"."flags",
    task_io_uring = "task_struct"."io_uring",
    task_files = "task_struct"."files",
    files_fdt = "files_struct"."fdt",
    fdt_fd = "fdtable"."fd",
    fdt_max = "fdtable"."max_fds",
    socket_file = "socket"."file",
    file_private = "file"."private_data",
    css_set_group = "css_set"."dfl_cgrp",
    group_node = "cgroup"."kn",
    node_id = "kernfs_node"."id",
    group_level = "cgroup"."level",
    group_root = "cgroup"."root",
    group_ancestors = "cgroup"."ancestors",
    nsproxy_net = "nsproxy"."net_ns",
    signal_group_exit_code = "signal_struct"."group_exit_code",
    signal_live = "signal_struct"."live",
    // The first counter; the next ones are `Settings::rss_stride` apart.
    mm_rss = "mm_struct"."rss_stat.count",
    siginfo_code = "kernel_siginfo"."si_code",
}

/// Kernel facts that change what a program does, resolved before load and constant afterwards.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Settings {
    /// `tcp_send_reset` has a reason as its third argument (6.10).
    pub reset_reason: u32,
    /// `mark_victim` gets the task (6.9), not the pid.
    pub victim_task: u32,
    /// Stride of one `mm_struct.rss_stat` counter; 0 when it cannot be read.
    pub rss_stride: u32,
    /// Bytes of each head that are kept, up to [`HEAD`].
    pub head: u32,
    /// Number of possible CPUs.
    pub cpus: u32,
    /// Microseconds of one jiffy.
    pub jiffy_us: u32,
    /// Which bit of a socket says that it takes IPv6 alone, counted from its start; `u32::MAX` when it cannot be read.
    pub only_v6: u32,
    /// Where a socket of MPTCP keeps the TCP socket that it began with; `u32::MAX` where there is no MPTCP.
    pub mptcp_first: u32,
    /// Connections that there is room for: a power of two.
    pub places: u32,
    /// The same for upstream connections whose other end may be on this host.
    pub flows: u32,
    pub _pad: u32,
    /// `PROC_*` of a process that listens and dials, which makes it a proxy; 0 where that is not asked for.
    pub found: u32,
    /// Drop reasons worth telling, a bit each. The others belong to every healthy connection's end.
    pub drops: [u64; 4],
}
