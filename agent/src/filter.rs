//! Which incidents a user asked for: the same words for `live`, `history` and the screen.
//!
//! Judges nothing and prints nothing; [`Filter::matches`] is the only meaning of these flags.

use std::net::IpAddr;
use std::str::FromStr;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};

use crate::model::{GROUP_PREFIX, GroupPath, Incident};

/// What `--status` takes, and what the `status` label of the metrics holds.
pub const STATUS_WORDS: [&str; 8] = ["500", "502", "503", "504", "grpc", "closed", "garbled", "unknown"];

/// Flags that choose incidents. Each flag may be given several times or as a list; an incident must match one
/// value of every flag that was given. Nothing given: every incident.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Which errors")]
pub struct Filter {
    /// What the client got: 500, 502, 503, 504, grpc (an answer of gRPC with UNAVAILABLE), closed (no answer), garbled (no HTTP), unknown (its answer could not be read) [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = PossibleValuesParser::new(STATUS_WORDS), hide_possible_values = true)]
    pub status: Vec<String>,
    /// Only errors of this proxy: its name (nginx), unit, container name or id, pid, or cgroup:PATH; `live` also
    /// watches it, where it is none of the well-known ones
    #[arg(long, value_name = "NAME|PID|cgroup:PATH", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub proxy: Vec<String>,
    /// Only errors with this upstream in play: 10.0.0.7:8000, 10.0.0.7, :8000 or /run/app.sock
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub upstream: Vec<UpstreamPattern>,
    /// Only this cause (`trace502 causes` lists them)
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub cause: Vec<String>,
    /// Only requests whose path begins like this
    #[arg(long, value_name = "PREFIX", value_parser = path_prefix)]
    pub path: Vec<String>,
}

impl Filter {
    /// Whether every flag that was given has a value that this incident matches.
    pub fn matches(&self, incident: &Incident) -> bool {
        any(&self.status, |word| *word == incident.status_word())
            && any(&self.cause, |id| *id == incident.cause)
            && any(&self.proxy, |who| is_proxy(incident, who))
            && any(&self.upstream, |at| upstreams(incident).any(|addr| at.matches(addr)))
            && any(&self.path, |prefix| incident.request.path.as_deref().is_some_and(|path| path.starts_with(prefix)))
    }

    /// Nothing was asked for: all incidents match.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// The first `--cause` that the catalogue does not have, with the id that was probably meant.
    pub fn unknown_cause<'a>(&self, known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
        let odd = self.cause.iter().find(|id| !known.clone().any(|k| k == id.as_str()))?;
        let hint = match nearest(odd, known) {
            Some(near) => format!("did you mean {near}?"),
            None => "`trace502 causes` lists them".to_owned(),
        };
        Some(format!("--cause {}: no such cause; {hint}", odd.escape_debug()))
    }
}

/// The known word closest to what was typed, if one is close enough to have been meant.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let score = |word: &str| {
        let part = typed.len() > 2 && (word.starts_with(typed) || word.ends_with(typed));
        let whole = typed.len() > 2 && word.split('_').any(|w| w == typed);
        let bonus = if whole {
            0.5
        } else if part {
            0.15
        } else {
            0.0
        };
        strsim::jaro_winkler(typed, word).max(strsim::normalized_damerau_levenshtein(typed, word)) + bonus
    };
    known.map(|word| (score(word), word)).filter(|(s, _)| *s > 0.7).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, w)| w)
}

/// What no path begins with would match nothing, without a word.
fn path_prefix(text: &str) -> Result<String, String> {
    match text.starts_with(['/', '*']) || text.contains("://") {
        true => Ok(text.to_owned()),
        false => Err("a path begins with a slash".into()),
    }
}

/// An empty list asks for nothing in particular.
fn any<T>(wanted: &[T], test: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(test)
}

fn is_proxy(incident: &Incident, who: &str) -> bool {
    let proxy = &incident.proxy;
    if let Some(path) = who.strip_prefix(GROUP_PREFIX) {
        let cgroup = proxy.cgroup.as_deref();
        return GroupPath::parse(path).is_ok_and(|path| cgroup.is_some_and(|cgroup| path.holds(cgroup)));
    }
    proxy.name == who
        || who.parse().is_ok_and(|pid: u32| pid == proxy.pid)
        || proxy.unit.as_deref().is_some_and(|unit| unit == who || unit.strip_suffix(".service") == Some(who))
        || proxy.container_name.as_deref() == Some(who)
        || proxy.container.as_deref().is_some_and(|id| who.len() >= 6 && (id.starts_with(who) || who.starts_with(id)))
}

/// Where the request was tried: the last upstream and those of the attempts before it.
fn upstreams(incident: &Incident) -> impl Iterator<Item = &str> {
    let last = incident.upstream.iter().map(|u| u.addr.as_str());
    last.chain(incident.attempts.iter().map(|a| a.upstream.as_str()))
}

/// How a user names an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamPattern {
    /// Address and port, or a unix socket's `unix:/path`, as the record writes it.
    Exact(String),
    /// An address with any port.
    Host(IpAddr),
    /// A port at any address.
    Port(u16),
    /// `localhost`: either loopback address, with this port or any.
    Loopback(Option<u16>),
}

impl UpstreamPattern {
    pub fn matches(&self, addr: &str) -> bool {
        let socket = || addr.parse::<std::net::SocketAddr>().ok();
        match self {
            UpstreamPattern::Exact(wanted) => wanted == addr,
            UpstreamPattern::Host(ip) => socket().is_some_and(|s| s.ip() == *ip),
            UpstreamPattern::Port(port) => socket().is_some_and(|s| s.port() == *port),
            UpstreamPattern::Loopback(port) => {
                socket().is_some_and(|s| s.ip().is_loopback() && port.is_none_or(|p| p == s.port()))
            }
        }
    }
}

impl FromStr for UpstreamPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let odd = || {
            let shown = text.escape_debug();
            format!("`{shown}` names no upstream; write 10.0.0.7:8000, [::1]:8000, 10.0.0.7, :8000 or /run/app.sock")
        };
        if text.starts_with("unix:") {
            return Ok(UpstreamPattern::Exact(text.to_owned()));
        }
        if text.starts_with(['/', '@']) {
            return Ok(UpstreamPattern::Exact(format!("unix:{text}")));
        }
        if let Some(port) = text.strip_prefix(':').filter(|rest| !rest.contains(':')) {
            return port.parse().map(UpstreamPattern::Port).map_err(|_| odd());
        }
        if let Some(rest) = text.strip_prefix("localhost") {
            return match rest.strip_prefix(':') {
                None if rest.is_empty() => Ok(UpstreamPattern::Loopback(None)),
                Some(port) => port.parse().map(|p| UpstreamPattern::Loopback(Some(p))).map_err(|_| odd()),
                None => Err(odd()),
            };
        }
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
            return Ok(UpstreamPattern::Exact(socket.to_string()));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        bare.parse().map(UpstreamPattern::Host).map_err(|_| odd())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::model::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        filter: Filter,
    }

    fn filter(args: &str) -> Filter {
        Cli::try_parse_from(std::iter::once("x").chain(args.split_whitespace())).unwrap().filter
    }

    fn incident() -> Incident {
        Incident {
            v: RECORD_VERSION,
            id: "1".into(),
            time: "2026-11-21T03:00:00.123456Z".into(),
            status: Some(502),
            grpc_status: None,
            seen: Seen::Wire,
            proxy: Process {
                name: "nginx".into(),
                pid: 7353,
                unit: Some("nginx.service".into()),
                container: Some("0123456789ab".into()),
                container_name: Some("shop-web".into()),
                cgroup: Some("/system.slice/shop.service/web".into()),
                ..Process::default()
            },
            client: None,
            request: Request { path: Some("/api/cart".into()), ..Request::default() },
            upstream: Some(Upstream { addr: "127.0.0.1:8001".into(), process: None }),
            cause: "no_listener".into(),
            group: Group::Connect,
            confidence: Confidence::Certain,
            summary: String::new(),
            evidence: vec![],
            fix: vec![],
            attempts: vec![AttemptSummary {
                upstream: "[::1]:8000".into(),
                cause: "upstream_reset".into(),
                reused: false,
                connect_us: None,
                wait_us: None,
                bytes: 0,
            }],
            why: None,
        }
    }

    #[test]
    fn nothing_asked_matches_everything() {
        let all = filter("");
        assert!(all.is_empty());
        assert!(all.matches(&incident()));
        let mut closed = incident();
        closed.status = None;
        closed.seen = Seen::Closed;
        assert!(all.matches(&closed));
    }

    #[test]
    fn each_flag_must_match_and_any_of_its_values_does() {
        let yes = [
            "--status 502",
            "--status 503,502",
            "--proxy nginx",
            "--proxy 7353",
            "--proxy nginx.service",
            "--proxy shop-web",
            "--proxy 0123456789ab",
            "--proxy 0123456789abcdef0123",
            "--proxy cgroup:system.slice/shop.service",
            "--proxy cgroup:/sys/fs/cgroup/system.slice",
            "--upstream 127.0.0.1:8001",
            "--upstream 127.0.0.1",
            "--upstream :8000",
            "--upstream ::1",
            "--upstream [::1]",
            "--upstream [::1]:8000",
            "--upstream localhost:8001",
            "--upstream localhost",
            "--cause dns_failure --cause no_listener",
            "--path /api --status 502 --proxy nginx",
        ];
        for args in yes {
            assert!(filter(args).matches(&incident()), "{args}");
        }
        let no = [
            "--status 503",
            "--status closed,garbled",
            "--proxy haproxy",
            "--proxy 735",
            "--proxy 012",
            "--upstream 127.0.0.1:8002",
            "--upstream :80",
            "--upstream localhost:80",
            "--upstream /run/app.sock",
            "--cause upstream_reset",
            "--proxy cgroup:system.slice/shop",
            "--path /cart",
            "--path /api --status 503",
        ];
        for args in no {
            assert!(!filter(args).matches(&incident()), "{args}");
        }
    }

    #[test]
    fn errors_without_a_status_have_their_word() {
        let mut odd = incident();
        odd.status = None;
        odd.seen = Seen::Garbled;
        assert!(filter("--status garbled").matches(&odd));
        odd.seen = Seen::Closed;
        assert!(!filter("--status garbled").matches(&odd));
        assert!(filter("--status closed").matches(&odd));
    }

    #[test]
    fn a_unix_upstream_is_named_by_its_path() {
        let mut fpm = incident();
        fpm.upstream = Some(Upstream { addr: "unix:/run/php/fpm.sock".into(), process: None });
        assert!(filter("--upstream /run/php/fpm.sock").matches(&fpm));
        assert!(filter("--upstream unix:/run/php/fpm.sock").matches(&fpm));
        assert!(!filter("--upstream :9000").matches(&fpm));
    }

    #[test]
    fn nonsense_is_refused() {
        for args in ["--status 404", "--upstream shop:8000", "--upstream :http", "--upstream localhostx", "--path cart"]
        {
            assert!(Cli::try_parse_from(std::iter::once("x").chain(args.split_whitespace())).is_err(), "{args}");
        }
        assert!(Cli::try_parse_from(["x", "--proxy", ""]).is_err());
    }

    #[test]
    fn an_unknown_cause_names_the_nearest() {
        let known = ["no_listener", "upstream_reset", "syn_timeout"];
        assert_eq!(filter("--cause no_listener").unknown_cause(known.into_iter()), None);
        let message = filter("--cause no_listner").unknown_cause(known.into_iter()).unwrap();
        assert!(message.contains("did you mean no_listener?"), "{message}");
        let known = ["upstream_oom_killed", "upstream_reset"];
        let message = filter("--cause oom").unknown_cause(known.into_iter()).unwrap();
        assert!(message.contains("did you mean upstream_oom_killed?"), "{message}");
        assert!(filter("--cause zzz").unknown_cause(known.into_iter()).unwrap().contains("trace502 causes"));
    }
}
