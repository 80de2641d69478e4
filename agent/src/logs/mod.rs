//! The proxies' own logs as a source of errors: for clients whose bytes cannot be read.
//!
//! A line is foreign text. It becomes plain data here or nothing at all; what an error means is judged elsewhere.

mod apache;
mod caddy;
mod follow;
mod haproxy;
mod nginx;
mod parser;
mod source;
mod text;
mod time;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use follow::{Followed, Follower, Health, LogsError};
pub use parser::{LONGEST, Parser};
pub use source::{Source, SourceError, Wanted, Word, discover};

/// Whose log it is, and which of its logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Format {
    /// error_log of nginx.
    Nginx,
    /// access_log of nginx in its `combined` format: a status and a time, no cause.
    NginxAccess,
    /// `option httplog` of HAProxy, with or without what syslog puts before it.
    Haproxy,
    /// ErrorLog of Apache.
    Apache,
    /// JSON log of Caddy.
    Caddy,
}

/// One line of a log (of Apache: up to three) that tells of a request which failed because of its upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogError {
    pub format: Format,
    /// Wall clock of the error in microseconds since 1970, as exact as the log is.
    pub time_micros: Option<i64>,
    /// What the time lacks in precision: the error may be this many microseconds later than it says.
    pub coarse_micros: u64,
    pub pid: Option<u32>,
    pub tid: Option<u32>,
    /// nginx: the number of the client connection, the same in all lines of a request.
    pub connection: Option<u64>,
    pub client: Option<IpAddr>,
    pub client_port: Option<u16>,
    pub method: Option<String>,
    pub host: Option<String>,
    /// Without its query string.
    pub path: Option<String>,
    /// `address:port` or `name:port`, or `unix:` and a path; of HAProxy the names `backend/server`.
    pub upstream: Option<String>,
    /// The local port of the upstream connection (Caddy tells it for failed reads).
    pub upstream_local_port: Option<u16>,
    /// What the client got, as the log says; where it does not, what the proxy answers unless it tries again.
    pub status: Option<u16>,
    pub hint: Hint,
}

impl LogError {
    fn new(format: Format, hint: Hint) -> Self {
        Self {
            format,
            time_micros: None,
            coarse_micros: 0,
            pid: None,
            tid: None,
            connection: None,
            client: None,
            client_port: None,
            method: None,
            host: None,
            path: None,
            upstream: None,
            upstream_local_port: None,
            status: None,
            hint,
        }
    }
}

/// What the line says went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hint {
    /// connect() failed.
    Connect {
        errno: Option<i32>,
    },
    ConnectTimeout,
    /// The upstream closed before its answer was complete.
    ClosedEarly,
    /// The answer broke off, with this error where the log says which.
    Receive {
        errno: Option<i32>,
    },
    /// Sending the request failed.
    Send {
        errno: Option<i32>,
    },
    SendTimeout,
    ResponseTimeout,
    InvalidResponse,
    HeaderTooBig,
    /// No attempt was made: every upstream is marked down.
    NoLiveUpstream,
    /// The upstream's name did not resolve.
    Unresolved {
        name: String,
    },
    /// The proxy was given no DNS server to ask for it.
    NoResolver {
        name: String,
    },
    TlsHandshake,
    TlsTimeout,
    /// The proxy did not accept the upstream's certificate.
    TlsVerify,
    /// The upstream reset the request inside the connection (HTTP/2).
    Rejected,
    /// It waited in the proxy for a free connection until it was given up.
    QueueTimeout,
    /// A limit of the proxy itself.
    ProxyLimit,
    /// A rule of its configuration lets no more requests or connections through: `rate` tells which.
    Refused {
        rate: bool,
    },
    /// The upstream answered this status itself.
    PassedOn,
    /// A status and nothing else.
    StatusOnly,
    Other,
}

#[cfg(test)]
mod tests;
