//! `request_not_read`: the application accepted, but never read the request.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "request_not_read",
    group: Group::Wait,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The application accepted the connection, but never read the request.",
    proof: "The request unread in the upstream's socket when the proxy gave up.",
    remedy: "The process is stuck before it reads: look at what it is doing.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let (Some(conn), Some(peer)) = (case.conn(), case.peer()) else { return Verdict::No };
    let unread = u64::from(peer.unread);
    // A unix socket counts pieces, not bytes: one may have been read in part.
    let pieces = case.is_unix();
    let none_read = conn.none_read(unread);
    // On a unix socket only who read says that something was: what is left is the rest of it.
    if pieces && peer.read_by.is_some() {
        return Verdict::No;
    }
    if !case.gave_up() || !case.no_answer() || !peer.accepted || unread == 0 || !(none_read || pieces) {
        return Verdict::No;
    }
    let server = case.server();
    let who = case.server_name();
    let state = server.and_then(|pid| super::response_timeout::state(case, pid));
    let doing = state.as_ref().map_or_else(String::new, |s| format!("; it is {s}"));
    let service = server.map_or_else(|| "the upstream".into(), |pid| case.service(pid));
    let bytes = if pieces { String::new() } else { format!(" ({} unread)", text::count(unread, "byte")) };
    let waited = text::duration(case.waited());
    let (what, limit) = match case.mute_to_tls() {
        true => (format!("{}'s TLS hello", case.owner.name), Setting::HandshakeTimeout),
        false => ("the request".to_owned(), Setting::ResponseTimeout),
    };
    Finding::new(format!("{who} accepted the connection and never read {what}{bytes} in {waited}{doing}"))
        .fix(format!("{service} is stuck before it reads: look at a stack dump of it"))
        .fixes(case.advise(limit, "{} decides how long it waits"))
        .unless_frozen(case, server)
        .proven_if(none_read, "whether it had read a part of the request")
        .yes()
}
