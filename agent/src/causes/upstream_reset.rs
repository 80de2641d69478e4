//! `upstream_reset`: the upstream reset the connection.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::text;
use crate::wire::Looks;
use crate::wire::h2::Refusal;

pub static CAUSE: Cause = Cause {
    id: "upstream_reset",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: true,
    meaning: "The upstream reset the connection before a usable answer, and its process lives.",
    proof: "The reset, with the kernel's reason where the upstream is on this host, and a process that lives on; of HTTP/2 \
            the reset of the request's stream.",
    remedy: "Look at the log of the upstream: it closed without reading the request to its end, or aborted on \
              purpose.",
    rule,
};

/// What is not known of a server of HTTP/2 that said more than was kept.
pub const GREETED: &str = "whether an answer had begun: not all that came was kept";

/// What cannot be seen of a process on another host.
pub const ELSEWHERE: &str = "whether its process lives: it is on another host";

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    let tls = case.sent() == Looks::Tls && case.answered() == Looks::Tls && !case.no_answer();
    let greeted = case.only_greeted();
    let who = case.server_name();
    if let Some(Refusal::Stream(error)) = case.refusal() {
        let whose = if who == "the upstream" { case.place() } else { who };
        return Finding::new(format!("{whose} reset the stream of the request: RST_STREAM {error}"))
            .note(case.at, "rst_stream", format!("it said RST_STREAM {error} instead of an answer"))
            .fix(format!("look at the log of {whose} for this request: it gave it up on purpose or by a fault"))
            .yes();
    }
    if !case.was_reset() || !(case.no_answer() || tls || greeted.is_some()) {
        return Verdict::No;
    }
    let when = match (conn.asked, conn.established) {
        (Some(asked), _) => format!("{} after the request", text::duration(case.at.saturating_sub(asked))),
        (None, Some(up)) => {
            format!("{} after the connect, before a request", text::duration(case.at.saturating_sub(up)))
        }
        (None, None) => "before a request".into(),
    };
    let alive = case.server().is_some_and(|pid| case.process(pid).is_some_and(|p| p.alive));
    let why = reason(case).map_or_else(String::new, |why| format!(": {why}"));
    let log = case.server().map_or_else(|| case.place(), |pid| case.service(pid));
    let whose = if who == "the upstream" { case.place() } else { who };
    Finding::new(format!("{whose} reset the connection {when}{why}"))
        .fix(format!("look at the log of {log} at this time: it dropped the connection on purpose or by a fault"))
        .proven_if(greeted != Some(false), GREETED)
        .proven_if(!tls, "what the TLS connection carried")
        .proven_if(alive, if case.is_local() { "which process reset it, and that it lives" } else { ELSEWHERE })
        .behind(case)
        .yes()
}

/// Why the peer's stack sent it, as far as the kernel says.
fn reason(case: &Case<'_>) -> Option<String> {
    let resets = case.resets_received();
    let sent = resets.iter().rev().find_map(|(_, p)| p.reason.as_deref());
    let unread = case.peer().map_or(0, |p| p.unread);
    let reason = case.peer().and_then(|p| p.reset_reason.as_deref()).or(sent);
    Some(match reason {
        Some("TCP_ABORT_ON_CLOSE") => match unread {
            0 => "it closed with data unread".into(),
            n => format!("it closed with {} unread", text::count(n.into(), "byte")),
        },
        Some("TCP_ABORT_ON_LINGER") => "it aborted on purpose (SO_LINGER 0)".into(),
        Some("TCP_ABORT_ON_DATA") => "data came after it had closed".into(),
        Some("TCP_ABORT_ON_MEMORY") => "its stack was out of memory".into(),
        Some("TCP_KEEPALIVE_TIMEOUT") => "its TCP keepalive gave up".into(),
        Some("TCP_TIMEOUT") => "its TCP gave up retransmitting".into(),
        Some("TCP_STATE") => "it aborted on purpose (SO_LINGER 0 or a disconnect)".into(),
        Some("NO_SOCKET") => "its stack did not know the connection".into(),
        Some(other) => text::safe(other).into_owned(),
        None if unread > 0 => format!("it closed with {} unread", text::count(unread.into(), "byte")),
        None if case.is_unix() => "it closed with data unread".into(),
        None => return None,
    })
}
