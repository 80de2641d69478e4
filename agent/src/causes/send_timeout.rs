//! `send_timeout`: the upstream stopped reading the request.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "send_timeout",
    group: Group::Send,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The upstream stopped reading while the request was being sent to it, until the proxy gave up.",
    proof: "A receive window of zero with data of the request waiting, and the proxy's own close.",
    remedy: "Find why the upstream does not read: a slow disk, a limit on uploads, a handler that never reads its \
              body.",
    rule,
};

/// A window below this many bytes lets no full segment through.
const SEGMENT: u32 = 1_400;

fn rule(case: &Case<'_>) -> Verdict {
    let (Some(conn), Some(tcp)) = (case.conn(), case.tcp()) else { return Verdict::No };
    // Before Linux 6.5 a host without room may leave its window open, and drop what comes: then what is under way, and
    // what the upstream has not read, say so.
    let dropped =
        tcp.in_flight > 0 && tcp.unacked >= SEGMENT && case.peer().is_some_and(|p| p.accepted && p.unread > 0);
    let shut = tcp.window < SEGMENT || dropped;
    if !case.gave_up() || !case.no_answer() || tcp.unacked == 0 || !shut || conn.request_bytes == 0 {
        return Verdict::No;
    }
    let who = case.server_name();
    let whose = if who == "the upstream" { case.place() } else { who };
    // What was sent since the connection was looked at may not be counted.
    let taken = case.peer().map_or(0, |p| u64::from(p.unread));
    let sent = conn.request_bytes.max(u64::from(tcp.unacked) + taken);
    let (sent, left) = (text::size(sent), text::size(tcp.unacked.into()));
    let unread = case.peer().filter(|p| p.unread > 0);
    let unread = unread.map_or_else(String::new, |p| format!(", {} unread on its side", text::size(p.unread.into())));
    Finding::new(format!(
        "{whose} stopped reading the request: of {sent} sent {left} were not taken{unread}; {} gave up after {}",
        case.owner.name,
        text::duration(case.waited())
    ))
    .fix("find why it does not read the body: slow storage, a limit on uploads, a busy handler")
    .fixes(case.advise(Setting::SendTimeout, "{} decides how long it waits"))
    .proven_if(tcp.window == 0, "a window of zero")
    .yes()
}
