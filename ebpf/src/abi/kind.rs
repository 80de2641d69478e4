//! The kinds of record, and the tables that may be full: what is counted when it is lost.

/// The kinds of record. The numbers are part of a recording: add, never renumber.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Kind {
    /// [`ConnRecord`]: a client connection of a proxy got an error status, bytes that are no HTTP, or nothing at all.
    Client = 1,
    /// [`ConnRecord`]: one request of a proxy on an upstream connection, handed over because it failed or was asked for.
    Attempt = 2,
    /// [`ConnectRecord`]: connect() failed in the call itself.
    Connect = 3,
    /// [`FlowRecord`]: the client went away while its request was unanswered.
    ClientLeft = 4,
    /// [`FlowRecord`]: a stack of this host sent a reset that concerns a known upstream.
    ResetSent = 5,
    /// [`FlowRecord`]: a packet of a known upstream was dropped on this host.
    Drop = 6,
    /// [`ListenRecord`]: a socket started to listen, or was found listening at start.
    Listen = 7,
    /// [`ListenRecord`]: a listening socket closed.
    Unlisten = 8,
    /// [`TaskRecord`]: a process that matters was executed, or a proxy became what is none (class 0).
    Exec = 9,
    /// [`TaskRecord`]: a process that matters forked.
    Fork = 10,
    /// [`TaskRecord`]: a process that matters exited.
    Exit = 11,
    /// [`TaskRecord`]: somebody sent a fatal signal to a process that matters.
    Signal = 12,
    /// [`TaskRecord`]: the OOM killer chose a victim.
    Oom = 13,
    /// [`DnsRecord`]: a proxy sent or received a DNS message.
    Dns = 14,
    /// [`FlowRecord`]: an upstream answered a client that an unseen error had been told of.
    Rescued = 15,
    /// [`TaskRecord`]: a running process became a proxy, or is none any more (class 0): by its cgroup, or by what it does.
    Became = 16,
    /// [`FlowRecord`]: a process that listens was refused where it connected to in turn; the reason is its errno.
    DialFailed = 17,
}

impl Kind {
    pub const ALL: [Kind; 17] = [
        Kind::Client,
        Kind::Attempt,
        Kind::Connect,
        Kind::ClientLeft,
        Kind::ResetSent,
        Kind::Drop,
        Kind::Listen,
        Kind::Unlisten,
        Kind::Exec,
        Kind::Fork,
        Kind::Exit,
        Kind::Signal,
        Kind::Oom,
        Kind::Dns,
        Kind::Rescued,
        Kind::Became,
        Kind::DialFailed,
    ];

    /// One past the largest number, for tables indexed by kind.
    pub const COUNT: usize = 18;

    /// The word used in `trace502_events_total{kind}`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Client => "client",
            Kind::Attempt => "attempt",
            Kind::Connect => "connect",
            Kind::ClientLeft => "client_left",
            Kind::ResetSent => "reset_sent",
            Kind::Drop => "drop",
            Kind::Listen => "listen",
            Kind::Unlisten => "unlisten",
            Kind::Exec => "exec",
            Kind::Fork => "fork",
            Kind::Exit => "exit",
            Kind::Signal => "signal",
            Kind::Oom => "oom",
            Kind::Dns => "dns",
            Kind::Rescued => "rescued",
            Kind::Became => "became",
            Kind::DialFailed => "dial_failed",
        }
    }
}

/// Tables of the kernel side that may be full when something is to be kept in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Upstream connections by their addresses: without its entry the other end is not known.
    Flows,
    /// Threads of proxies: without its entry an attempt is bound to no request.
    Threads,
    /// Who listens where: from then on nobody is said not to listen.
    Listeners,
    /// Processes that matter: without its entry a process's end is not told.
    Processes,
    /// Connections of proxies and their other ends: of one without a place nothing is told.
    Connections,
}

impl Table {
    pub const ALL: [Table; 5] = [Table::Flows, Table::Threads, Table::Listeners, Table::Processes, Table::Connections];

    /// Where it is counted, behind the kinds.
    pub const fn slot(self) -> usize {
        Kind::COUNT + self as usize
    }

    /// The word used in `trace502_events_lost_total{where}`.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Flows => "table_flows",
            Table::Threads => "table_threads",
            Table::Listeners => "table_listeners",
            Table::Processes => "table_processes",
            Table::Connections => "table_connections",
        }
    }
}

/// Counters of what could not be told or kept: slot 0 for payload that could not be read, the kinds, the tables.
pub const LOSSES: usize = Kind::COUNT + Table::ALL.len();
