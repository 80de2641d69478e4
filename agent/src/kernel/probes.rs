//! Every probe: its programs, the hooks that can carry it by preference, and what is lost without it.

/// How a program is hooked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// A tracepoint with the kernel's own types (5.5).
    TpBtf(&'static str),
    /// The return of a kernel function, through a trampoline (5.5).
    Fexit(&'static str),
    /// A walk over what exists (5.8); run once at start.
    Iter(&'static str),
    /// Behind the system call of the C library's connect(), in each proxy.
    LibcConnect,
    /// The functions of a Go executable, in each proxy that is one.
    Go,
    /// The calls of the TLS library, in each proxy.
    Tls,
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hook::TpBtf(name) | Hook::Fexit(name) | Hook::Iter(name) => f.write_str(name),
            Hook::LibcConnect => f.write_str("libc connect()"),
            Hook::Go => f.write_str("functions of Go"),
            Hook::Tls => f.write_str("TLS library calls"),
        }
    }
}

impl Hook {
    /// The word of `trace502_probe_attached{provider}`.
    pub fn provider(&self) -> &'static str {
        match self {
            Hook::TpBtf(_) => "tp_btf",
            Hook::Fexit(_) => "fexit",
            Hook::Iter(_) => "iter",
            Hook::LibcConnect | Hook::Go | Hook::Tls => "uprobe",
        }
    }
}

/// One way to carry a probe: all of its programs, or none.
pub type Provider = &'static [(&'static str, Hook)];

pub struct Probe {
    pub name: &'static str,
    pub required: bool,
    /// By preference.
    pub providers: &'static [Provider],
    /// Fields of `Offsets` without which it says nothing, beside the socket's own.
    pub needs: &'static [&'static str],
    /// What is lost without it.
    pub lost: &'static str,
}

/// Fields of `Offsets` without which nothing works.
pub const BASE: &[&str] = &[
    "sk_family",
    "sk_state",
    "sk_num",
    "sk_dport",
    "sk_saddr",
    "sk_daddr",
    "sk_saddr6",
    "sk_daddr6",
    "sk_net",
    "sk_cookie",
    "sk_protocol",
    "sk_type",
    "sk_err",
    "net_ns_inum",
];

pub const PROBES: &[Probe] = &[
    Probe {
        name: "state",
        required: true,
        providers: &[&[("state", Hook::TpBtf("inet_sock_set_state"))]],
        needs: &["sk_shutdown"],
        lost: "connects and closes: nothing can be told",
    },
    Probe {
        name: "destroy",
        required: true,
        providers: &[&[("destroyed", Hook::TpBtf("tcp_destroy_sock"))]],
        needs: &[],
        lost: "connections that ended by a reset",
    },
    Probe {
        name: "send",
        required: true,
        providers: &[
            &[("sent", Hook::TpBtf("sock_send_length"))],
            &[
                ("inet_sent", Hook::Fexit("inet_sendmsg")),
                ("inet6_sent", Hook::Fexit("inet6_sendmsg")),
                ("unix_sent", Hook::Fexit("unix_stream_sendmsg")),
                ("inet_paged", Hook::Fexit("inet_sendpage")),
                ("unix_paged", Hook::Fexit("unix_stream_sendpage")),
            ],
        ],
        needs: &[],
        lost: "requests to upstreams and answers to clients: no error is seen",
    },
    Probe {
        name: "receive",
        required: true,
        providers: &[
            &[("received", Hook::TpBtf("sock_recv_length"))],
            &[
                ("inet_received", Hook::Fexit("inet_recvmsg")),
                ("inet6_received", Hook::Fexit("inet6_recvmsg")),
                ("unix_received", Hook::Fexit("unix_stream_recvmsg")),
            ],
        ],
        needs: &[],
        lost: "requests of clients and answers of upstreams: no request is known",
    },
    Probe {
        name: "reset_received",
        required: true,
        providers: &[&[("reset_received", Hook::TpBtf("tcp_receive_reset"))]],
        needs: &[],
        lost: "resets look like orderly closes",
    },
    Probe {
        name: "reset_sent",
        required: false,
        providers: &[&[("reset_sent", Hook::TpBtf("tcp_send_reset"))]],
        needs: &["skb_head", "skb_network", "skb_protocol"],
        lost: "why an upstream on this host reset a connection; firewall rejects are only likely",
    },
    Probe {
        name: "drop",
        required: false,
        providers: &[&[("dropped", Hook::TpBtf("kfree_skb"))]],
        needs: &["skb_head", "skb_network", "skb_protocol"],
        lost: "packets dropped by this host's firewall or full queues are only likely",
    },
    Probe {
        name: "exec",
        required: false,
        providers: &[&[("executed", Hook::TpBtf("sched_process_exec"))]],
        needs: &["task_tgid"],
        lost: "proxies and upstreams started later are not known",
    },
    Probe {
        name: "fork",
        required: false,
        providers: &[&[("forked", Hook::TpBtf("sched_process_fork"))]],
        needs: &["task_tgid"],
        lost: "new workers of a proxy are not known",
    },
    Probe {
        name: "exit",
        required: false,
        providers: &[&[("exited", Hook::TpBtf("sched_process_exit"))]],
        needs: &["task_exit_code", "task_signal", "signal_live"],
        lost: "exits and crashes of upstreams",
    },
    Probe {
        name: "cgroup",
        required: false,
        providers: &[&[
            ("cgroup_made", Hook::TpBtf("cgroup_mkdir")),
            ("cgroup_joined", Hook::TpBtf("cgroup_attach_task")),
        ]],
        needs: &[
            "task_cgroups",
            "css_set_group",
            "group_node",
            "node_id",
            "group_level",
            "group_root",
            "group_ancestors",
        ],
        lost: "processes that come later into a cgroup that --proxy names",
    },
    Probe {
        name: "signal",
        required: false,
        providers: &[&[("signalled", Hook::TpBtf("signal_generate"))]],
        needs: &["task_tgid", "task_comm"],
        lost: "who killed an upstream",
    },
    Probe {
        name: "oom",
        required: false,
        providers: &[&[("chosen", Hook::TpBtf("mark_victim"))]],
        needs: &[],
        lost: "OOM kills look like SIGKILL",
    },
    Probe {
        name: "connect_error",
        required: false,
        providers: &[
            &[("connect_returned", Hook::Fexit("__sys_connect_file"))],
            &[("connect_uprobe", Hook::LibcConnect), ("go_dials", Hook::Go), ("go_dialled", Hook::Go)],
        ],
        needs: &["task_nsproxy", "nsproxy_net"],
        lost: "connects that fail at once: unix sockets, no route, no free port",
    },
    Probe {
        name: "tls",
        required: false,
        providers: &[&[
            ("tls_called", Hook::Tls),
            ("tls_shook", Hook::Tls),
            ("tls_read", Hook::Tls),
            ("tls_wrote", Hook::Tls),
            ("tls_parts", Hook::Tls),
        ]],
        needs: &[],
        lost: "what clients and upstreams say inside TLS",
    },
    Probe {
        name: "tls_reasons",
        required: false,
        providers: &[&[
            ("tls_error", Hook::Tls),
            ("tls_verified", Hook::Tls),
            ("tls_asked", Hook::Tls),
            ("tls_told", Hook::Tls),
            ("tls_named", Hook::Tls),
        ]],
        needs: &[],
        lost: "why a TLS handshake with an upstream failed, where no alert says so in the clear",
    },
    Probe {
        name: "tls_go",
        required: false,
        providers: &[&[
            ("go_reads", Hook::Go),
            ("go_read", Hook::Go),
            ("go_writes", Hook::Go),
            ("go_shakes", Hook::Go),
            ("go_shook", Hook::Go),
            ("go_alerts", Hook::Go),
            ("go_parts", Hook::Go),
        ]],
        needs: &[],
        lost: "what clients and upstreams say inside TLS to proxies written in Go",
    },
    Probe {
        name: "existing_listeners",
        required: false,
        providers: &[&[("found_listening", Hook::Iter("task_file")), ("found_beneath", Hook::Iter("tcp"))]],
        needs: &["socket_sk", "task_tgid", "task_pid", "task_comm"],
        lost: "listeners that were there before the agent",
    },
    Probe {
        name: "existing_connections",
        required: false,
        providers: &[&[("found_connected", Hook::Iter("task_file"))]],
        needs: &["socket_sk", "task_tgid"],
        lost: "connections that were there before the agent",
    },
    Probe {
        name: "existing_peers",
        required: false,
        providers: &[&[("found_peers", Hook::Iter("tcp"))]],
        needs: &[],
        lost: "the upstream's side of connections that were there before the agent",
    },
];
