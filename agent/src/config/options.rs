//! The table of options of `trace502 agent`: what a flag is called, its key in the file is called too.
//!
//! To add one: a row here, and its field in `settings.rs`. A test holds the two together.

/// What a value looks like, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// On when given; `true` or `false` in the file.
    Switch,
    One(&'static str),
    /// Given several times, or as a list with commas; an array in the file.
    Many(&'static str),
}

/// Whether a changed value is taken up by a running agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// On SIGHUP.
    Live,
    /// It shapes what is attached, bound or open: after a restart.
    Restart,
}

#[derive(Debug)]
pub struct Opt {
    pub key: &'static str,
    pub takes: Takes,
    /// As it would be typed; nothing: not set.
    pub default: &'static [&'static str],
    pub change: Change,
    pub help: &'static str,
}

const fn opt(
    key: &'static str,
    takes: Takes,
    default: &'static [&'static str],
    change: Change,
    help: &'static str,
) -> Opt {
    Opt { key, takes, default, change, help }
}

use Change::{Live, Restart};
use Takes::{Many, One, Switch};

pub const OPTIONS: &[Opt] = &[
    opt(
        "listen",
        Many("ADDR:PORT"),
        &["127.0.0.1:9502"],
        Restart,
        "Where /metrics, /healthz, /readyz and / are served; `off` for nowhere",
    ),
    opt(
        "token-file",
        One("FILE"),
        &[],
        Live,
        "File with the bearer token that / and /metrics ask for; needed on any address that is not loopback",
    ),
    opt("tls-cert", One("FILE"), &[], Live, "Certificate chain (PEM) to serve TLS with"),
    opt("tls-key", One("FILE"), &[], Live, "Private key (PEM) of --tls-cert"),
    opt(
        "listen-without-token",
        Switch,
        &[],
        Restart,
        "Allow an address that is not loopback without a token: everybody who reaches it reads request paths and addresses",
    ),
    opt(
        "history",
        One("FILE"),
        &["/var/lib/trace502/history.db"],
        Restart,
        "Where incidents are kept; `off` for nowhere",
    ),
    opt("history-max-age", One("DURATION"), &["30d"], Live, "Incidents older than this are deleted"),
    opt(
        "history-max-size",
        One("SIZE"),
        &["512MiB"],
        Live,
        "Past this size of the file the oldest incidents are deleted",
    ),
    opt(
        "proxy",
        Many("NAME|PID|cgroup:PATH"),
        &[],
        Live,
        "Treat these processes, and all in these cgroups, as proxies, besides the well-known ones (nginx, haproxy, envoy ...); a reload adds some, a restart takes some away",
    ),
    opt(
        "any",
        Switch,
        &[],
        Restart,
        "Treat as a proxy, too, every process that listens on a TCP port and makes TCP connections of its own: finds proxies of unknown names, and applications that need other services",
    ),
    opt(
        "log",
        Many("FORMAT:FILE"),
        &[],
        Restart,
        "Follow these logs of proxies too, for errors that are encrypted on the wire: nginx:FILE, nginx-access:FILE, haproxy:FILE, apache:FILE, caddy:FILE; the error logs of a running nginx or Apache are found without it, `off` does not look for them",
    ),
    opt("head-bytes", One("N"), &["256"], Restart, "Bytes kept of the head of each request and answer, 0 to 256"),
    opt("ring-size", One("SIZE"), &["16MiB"], Restart, "Ring buffer between kernel and agent, a power of two"),
    opt(
        "connections",
        One("N"),
        &[],
        Restart,
        "Connections of proxies that there is room for, 1024 to 1048576, rounded up to a power of two (800 bytes each); one for each quarter of a megabyte of memory if not given, 16384 to 131072",
    ),
    opt(
        "no-tls",
        Switch,
        &[],
        Restart,
        "Do not look inside the TLS libraries of proxies: errors of clients that speak TLS stay unseen",
    ),
    opt("max-series", One("N"), &["2000"], Live, "Series of each metric; what comes after is counted under `other`"),
    opt(
        "series-idle",
        One("DURATION"),
        &["6h"],
        Live,
        "A series that did not change for this long is no longer exported",
    ),
    opt(
        "instance",
        One("NAME"),
        &[],
        Restart,
        "Run beside an agent that runs already: a name of its own, with its own --listen and --history",
    ),
    opt(
        "keep-privileges",
        Switch,
        &[],
        Restart,
        "Do not give up capabilities and system calls once the probes are attached",
    ),
];

pub fn find(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|o| o.key == key)
}
