//! `socket_missing`: the unix socket does not exist.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::{Endpoint, Group};
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "socket_missing",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: true,
    meaning: "The path of the unix socket does not exist, as the proxy sees it.",
    proof: "ENOENT (or ENOTDIR) from connect().",
    remedy: "Start the upstream, or correct the path. A PrivateTmp or another root directory hides paths too.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    if !case.is_unix() || !case.failed_with(&[libc::ENOENT, libc::ENOTDIR]) {
        return Verdict::No;
    }
    let place = case.place();
    let gone = case.endpoint().and_then(|e| case.past.history.lost(e, Some(case.netns), case.at));
    let was = gone.map_or_else(String::new, |l| {
        format!("; {} listened on it until {}", case.who(l.pid), case.ago(l.closed.unwrap_or(case.at)))
    });
    let now = if case.path().is_some_and(|p| p.exists) { "; it exists now" } else { "" };
    let near = neighbour(case).map(|path| format!("did you mean {path}? Somebody listens there"));
    Finding::new(format!("{place} does not exist{was}{now}"))
        .fix(format!("start what should listen on {place}"))
        .fixes(near)
        .fixes(case.advise(Setting::Upstream, "check the path in {}"))
        .fix("if the file is there for you: the proxy may see another /tmp (PrivateTmp) or root directory")
        .yes()
}

/// A unix listener whose file has the same name, or lies in the same directory.
fn neighbour(case: &Case<'_>) -> Option<String> {
    let Some(Endpoint::Unix(path)) = case.endpoint() else { return None };
    let (dir, name) = path.rsplit_once('/')?;
    let near = |other: &str| {
        other.rsplit_once('/').is_some_and(|(d, n)| other != path && (n == name || (d == dir && dir.len() > 5)))
    };
    case.listeners().iter().find_map(|l| match &l.endpoint {
        Endpoint::Unix(other) if near(other) => Some(text::clipped(other, 120)),
        _ => None,
    })
}
