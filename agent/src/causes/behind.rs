//! What lies behind an upstream that failed: where it was refused itself, as far as that was seen. A forwarder
//! (docker-proxy, ssh, a sidecar) closes what it accepted when nobody takes it on; an application fails without its
//! database. It never decides the cause, which is what the upstream did.

use std::net::SocketAddr;

use super::{Case, Finding};
use crate::model::Nanos;
use crate::text::{self, MILLI};

/// So shortly before its end, a refusal is taken for why it ended.
const SHORTLY: Nanos = 50 * MILLI;

impl Finding {
    /// With what the upstream itself could not reach while it had the request.
    pub fn behind(self, case: &Case<'_>) -> Finding {
        let Some(refusal) = last(case) else { return self };
        let (who, to) = (case.who(refusal.pid), refusal.to);
        let errno = text::errno(refusal.errno);
        let mut finding =
            self.note(refusal.at, "dial_failed", format!("{who} itself failed to connect to {to}: {errno}"));
        let search = if refusal.errno == libc::ECONNREFUSED { "what should listen there" } else { "the way there" };
        if refusal.shortly {
            finding.summary.push_str(&format!("; its own connection to {to} failed ({errno})"));
            finding.fix.insert(0, format!("{who} could not connect to {to}: see to {search} first"));
            return finding;
        }
        finding.fix(format!("{who} could not connect to {to}: see to {search}, if the request needs it"))
    }
}

/// A connection that the upstream was refused.
struct Refusal {
    pid: u32,
    at: Nanos,
    to: SocketAddr,
    errno: i32,
    /// Right before it ended the request.
    shortly: bool,
}

/// The last one that the process behind this attempt was refused during it.
fn last(case: &Case<'_>) -> Option<Refusal> {
    let pid = case.server()?;
    let conn = case.conn()?;
    let history = &case.past.history;
    let began = conn.opened.filter(|_| !conn.reused).unwrap_or_else(|| case.began());
    let ended = case.peer().and_then(|peer| peer.closed).or(conn.fin).unwrap_or(case.at).min(case.at);
    let life = history.life_of(pid).or_else(|| history.death_of(pid).map(|death| &death.life))?;
    let during = || life.dials.iter().rev().filter(|(at, _)| (began..=ended).contains(at));
    let (at, dial) = *during().next()?;
    // A name with both kinds of address: the other one is tried next, and may have answered.
    let half = dial.to.is_ipv6() && !during().any(|(_, other)| other.to.is_ipv4() && other.to.port() == dial.to.port());
    let shortly = ended - at <= SHORTLY;
    (!half).then_some(Refusal { pid, at, to: dial.to, errno: dial.errno, shortly })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::tests::nginx;
    use crate::correlate::fixture::*;
    use crate::model::Confidence::Certain;
    use crate::model::{Dial, Fact, Incident, Task};

    /// The upstream closes, after it was refused at these addresses so long ago.
    fn closed_after(refused: &[(&str, Nanos)]) -> Incident {
        answered_after(refused, 2 * MILLI)
    }

    /// The same to a request that it has had for this long.
    fn answered_after(refused: &[(&str, Nanos)], had: Nanos) -> Incident {
        let mut w = nginx();
        for (to, ago) in refused {
            let dial = Dial { to: addr(to), errno: libc::ECONNREFUSED };
            w.see_at(w.now - ago, Some(Task { pid: SERVER, tid: SERVER }), Fact::DialFailed(dial));
        }
        let mut a = w.attempt();
        a.conn.opened = Some(w.now - had);
        a.conn.established = a.conn.opened;
        a.conn.fin = Some(w.now);
        a.peer = Some(w.closed_peer(SERVER));
        w.tell(a).pass(MILLI).answered(502);
        w.expect("upstream_closed_early", Certain)
    }

    #[test]
    fn an_upstream_that_was_refused_itself_says_where() {
        let i = closed_after(&[("127.0.0.1:5432", MILLI / 2)]);
        assert!(i.summary.ends_with("; its own connection to 127.0.0.1:5432 failed (ECONNREFUSED)"), "{}", i.summary);
        assert!(i.evidence.iter().any(|e| e.kind == "dial_failed"), "{i:#?}");
        assert!(i.fix[0].contains("127.0.0.1:5432: see to what should listen there first"), "{i:#?}");
    }

    #[test]
    fn what_it_was_refused_before_the_request_is_not_told() {
        assert!(!closed_after(&[("127.0.0.1:5432", 20 * MILLI)]).summary.contains("5432"));
    }

    /// Whoever reports to a collector that is away is refused every few seconds, whatever becomes of its requests.
    #[test]
    fn what_it_was_refused_long_before_its_end_is_evidence_and_no_reason() {
        let i = answered_after(&[("127.0.0.1:4318", 200 * MILLI)], 300 * MILLI);
        assert!(!i.summary.contains("4318") && !i.fix[0].contains("4318"), "{i:#?}");
        assert!(i.fix.last().unwrap().ends_with("if the request needs it"), "{i:#?}");
    }

    #[test]
    fn the_first_half_of_a_name_is_not_told_alone() {
        assert!(!closed_after(&[("[::1]:5432", MILLI / 2)]).summary.contains("5432"));
        let both = closed_after(&[("127.0.0.1:5432", MILLI / 2), ("[::1]:5432", MILLI / 3)]);
        assert!(both.summary.contains("its own connection to [::1]:5432 failed"), "{}", both.summary);
    }
}
