//! One gateway error and what is known of its cause: the JSON record, field by field.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Version of the JSON record.
pub const RECORD_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub v: u32,
    pub id: String,
    /// RFC 3339, UTC, microseconds.
    pub time: String,
    /// What the client got; `None` where it got no status.
    pub status: Option<u16>,
    /// The status of gRPC in an answer whose HTTP status says that all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
    pub seen: Seen,
    pub proxy: Process,
    pub client: Option<String>,
    pub request: Request,
    pub upstream: Option<Upstream>,
    pub cause: String,
    pub group: Group,
    pub confidence: Confidence,
    pub summary: String,
    pub evidence: Vec<Evidence>,
    pub fix: Vec<String>,
    pub attempts: Vec<AttemptSummary>,
    /// With `unattributed`: why, as a word for `trace502_unattributed_total{why}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Incident {
    /// The word of `--status` and of the `status` label: a number, `grpc`, `closed`, `garbled`, or `unknown` where
    /// nobody could read the answer.
    pub fn status_word(&self) -> String {
        if self.grpc_status.is_some() {
            return "grpc".into();
        }
        match (self.status, self.seen) {
            (Some(status), _) => status.to_string(),
            (None, Seen::Garbled) => "garbled".into(),
            (None, Seen::Inferred | Seen::Log) => "unknown".into(),
            (None, _) => "closed".into(),
        }
    }
}

/// How the error itself was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    Wire,
    Tls,
    Log,
    Inferred,
    Closed,
    Garbled,
}

/// Sorts from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    Unknown,
    Likely,
    Certain,
}

/// The phase in which the request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    Process,
    Connect,
    Wait,
    Send,
    Response,
    None,
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($type::$variant => $word),* })
            }
        }
    };
}

words!(Seen { Wire = "wire", Tls = "tls", Log = "log", Inferred = "inferred", Closed = "closed", Garbled = "garbled" });
words!(Confidence { Unknown = "unknown", Likely = "likely", Certain = "certain" });
words!(Group {
    Process = "process",
    Connect = "connect",
    Wait = "wait",
    Send = "send",
    Response = "response",
    None = "none",
});

/// A process as people know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    pub exe: Option<String>,
    pub unit: Option<String>,
    /// First digits of its id.
    pub container: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Its cgroup, to choose by: not part of the record.
    #[serde(skip)]
    pub cgroup: Option<String>,
}

impl Process {
    /// Its container as people call it: by name, else by id.
    pub fn container_label(&self) -> Option<&str> {
        self.container_name.as_deref().or(self.container.as_deref())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub method: Option<String>,
    pub host: Option<String>,
    /// Without its query string.
    pub path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub addr: String,
    pub process: Option<Process>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Microseconds relative to the moment the proxy wrote the error.
    pub t_us: i64,
    pub kind: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptSummary {
    pub upstream: String,
    pub cause: String,
    pub reused: bool,
    pub connect_us: Option<u64>,
    pub wait_us: Option<u64>,
    pub bytes: u64,
}

/// A failed attempt, whether or not a retry rescued its request.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamFailure {
    pub proxy: String,
    pub upstream: String,
    pub cause: String,
}

/// The end of a process that listened.
#[derive(Clone, Debug, PartialEq)]
pub struct DeathNotice {
    pub name: String,
    /// `oom`, `signal` or `exit`.
    pub how: &'static str,
}

/// A reset on an upstream connection, for the metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct ResetNotice {
    pub proxy: String,
    pub upstream: String,
    /// `upstream` or `proxy`: who sent it.
    pub side: &'static str,
    pub reason: String,
}

/// What the engine tells its sinks.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    Incident(Box<Incident>),
    Failure(UpstreamFailure),
    Death(DeathNotice),
    Reset(ResetNotice),
}
