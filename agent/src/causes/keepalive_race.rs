//! `keepalive_race`: an idle connection was closed as the request went out.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::{Connection, Group};
use crate::proxies::Setting;
use crate::text::{self, MILLI, SECOND};

pub static CAUSE: Cause = Cause {
    id: "keepalive_race",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: true,
    meaning: "The proxy reused an idle connection that the upstream closed at that very moment: its keepalive timeout \
              is shorter than the proxy's.",
    proof: "A reused connection that the upstream closed before it read the request.",
    remedy: "Make the upstream keep idle connections longer than the proxy does, or let the proxy retry such \
              requests.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    let Some(asked) = conn.asked else { return Verdict::No };
    if !conn.reused || !case.broken() || !case.no_answer() {
        return Verdict::No;
    }
    let Some(unread) = unread(case, conn, asked) else { return Verdict::No };
    let idle = conn.asked_before.map(|before| asked.saturating_sub(before));
    let idle = idle.map_or_else(String::new, |ns| format!(" after {} idle", text::duration(ns)));
    let served = text::count(u64::from(conn.request.saturating_sub(1)), "request");
    let who = case.server_name();
    let name = &case.owner.name;
    let late = case.peer().and_then(|peer| peer.closed).map_or(0, |closed| closed.saturating_sub(asked));
    let served = format!("(it had served {served})");
    let finding = match late > AT_ONCE {
        true => Finding::new(format!(
            "{who} did not read {name}'s request on a connection{idle} for {}, then closed it {served}",
            text::duration(late)
        ))
        .fix(format!(
            "look at what kept {} from reading meanwhile",
            case.server().map_or(who, |pid| case.service(pid))
        )),
        false => {
            Finding::new(format!("{who} closed an idle connection{idle} just as {name} sent a request on it {served}"))
        }
    };
    finding
        .fixes(case.advise(Setting::IdleTimeout, "set {} below the upstream's keepalive timeout"))
        .fix("or raise the upstream's keepalive timeout (Node keepAliveTimeout, gunicorn keepalive, PHP pm.max_requests)")
        .fixes(case.advise(Setting::Retry, "or let it retry: {}"))
        .proven_if(unread, "whether the upstream had read the request")
        .proven_if(late <= STUCK, "whether it closed the connection for being idle: it read nothing for that long")
        .yes()
}

/// What is closed this soon after the request was closed at that moment: a busy upstream may take so long to do it.
const AT_ONCE: u64 = 100 * MILLI;

/// Who reads nothing for longer was stuck, and may have closed it for another reason.
const STUCK: u64 = 5 * SECOND;

/// A FIN is on its way for half a round trip; one that did not come in this time was lost.
const UNDER_WAY: u64 = 5 * MILLI;

/// Whether the upstream closed without having read this request: `Some(true)` proven, `Some(false)` likely.
fn unread(case: &Case<'_>, conn: &Connection, asked: u64) -> Option<bool> {
    if let Some(peer) = case.peer() {
        let seen = |closed: u64| conn.fin.is_some() || asked.saturating_sub(closed) <= UNDER_WAY;
        let before = peer.closed_first && peer.closed.is_some_and(|at| at <= asked && seen(at));
        // It had not read it when it closed, so its stack reset the connection.
        let ignored = peer.closed.is_some_and(|at| at >= asked) && conn.none_read(peer.unread.into());
        // The clock is read when the call that sends is over: by then a fast one may have read it all. Only what it
        // never read is answered with a reset.
        let answered = conn.reset.is_some() || peer.sent_reset;
        return (before || ignored).then_some(ignored || answered);
    }
    match conn.fin {
        Some(fin) if fin <= asked => Some(true),
        // Under way at the same time: half a round trip on any usual path between a proxy and its upstream.
        Some(fin) if fin - asked <= 2 * MILLI => Some(false),
        _ => None,
    }
}
