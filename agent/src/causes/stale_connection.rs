//! `stale_connection`: the upstream no longer knew the reused connection.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text::{self, MILLI, SECOND};

/// No middlebox that people use forgets a connection sooner.
const FORGET: u64 = 30 * SECOND;
/// A FIN is on its way for half a round trip.
const UNDER_WAY: u64 = 5 * MILLI;

pub static CAUSE: Cause = Cause {
    id: "stale_connection",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: true,
    meaning: "The proxy reused a connection that the upstream's stack no longer knew: it was restarted, or a NAT or \
              load balancer in between forgot it.",
    proof: "A reused connection, and a reset with reason no-socket.",
    remedy: "Keep idle connections for a shorter time than what lies in between does, or use TCP keepalive.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    // With a FIN the upstream said goodbye: that is another story.
    if !conn.reused || !case.was_reset() || !case.no_answer() || conn.fin.is_some() {
        return Verdict::No;
    }
    let unknown = |p: &crate::model::Packet| !p.has_socket || p.reason.as_deref() == Some("NO_SOCKET");
    let stack = case.resets_received().into_iter().any(|(_, p)| unknown(p));
    let peer = case.peer().is_some_and(|p| p.reset_reason.as_deref() == Some("NO_SOCKET"));
    // It closed long before, and what said so was lost on the way.
    let gone = conn.asked.zip(case.peer().and_then(|p| p.closed)).is_some_and(|(asked, at)| at + UNDER_WAY < asked);
    let idle = conn.asked.zip(conn.asked_before).map(|(now, before)| now.saturating_sub(before));
    let proven = stack || peer || gone;
    let long = !case.is_local() && idle.is_some_and(|ns| ns >= FORGET);
    if !proven && !long {
        return Verdict::No;
    }
    let after = idle.map_or_else(String::new, |ns| format!(" after {} idle", text::duration(ns)));
    Finding::new(format!("{} no longer knew the connection that {} reused{after}", case.place(), case.owner.name))
        .fixes(case.advise(Setting::IdleTimeout, "lower {}"))
        .fix("if a NAT or load balancer lies in between: its idle timeout is shorter than the proxy's")
        .fixes(case.advise(Setting::Retry, "or let it retry: {}"))
        .proven_if(proven, "that the reset was for an unknown connection: it came from another host")
        .yes()
}
