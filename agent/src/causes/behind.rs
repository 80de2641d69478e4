//! What lies behind an upstream that failed: where it was refused itself, as far as that was seen. A forwarder
//! (docker-proxy, ssh, a sidecar) closes what it accepted when nobody takes it on; an application fails without its
//! database. It never decides the cause, which is what the upstream did.

use super::{Case, Finding};
use crate::model::{Dial, Nanos};
use crate::text;

impl Finding {
    /// With what the upstream itself could not reach while it had the request.
    pub fn behind(self, case: &Case<'_>) -> Finding {
        let Some((pid, at, dial)) = last(case) else { return self };
        let (who, to, errno) = (case.who(pid), dial.to, text::errno(dial.errno));
        let mut finding = self.note(at, "dial_failed", format!("{who} itself failed to connect to {to}: {errno}"));
        finding.summary.push_str(&format!("; its own connection to {to} failed ({errno})"));
        let search = if dial.errno == libc::ECONNREFUSED { "what should listen there" } else { "the way there" };
        finding.fix.insert(0, format!("{who} could not connect to {to}: see to {search} first"));
        finding
    }
}

/// The last connection that the process behind this attempt was refused during it.
fn last(case: &Case<'_>) -> Option<(u32, Nanos, Dial)> {
    let pid = case.server()?;
    let history = &case.past.history;
    let began = case.conn()?.opened.filter(|_| !case.conn().is_some_and(|c| c.reused)).unwrap_or_else(|| case.began());
    let life = history.life_of(pid).or_else(|| history.death_of(pid).map(|death| &death.life))?;
    let during = || life.dials.iter().rev().filter(|(at, _)| (began..=case.at).contains(at));
    let (at, dial) = *during().next()?;
    // A name with both kinds of address: the other one is tried next, and may have answered.
    let half = dial.to.is_ipv6() && !during().any(|(_, other)| other.to.is_ipv4() && other.to.port() == dial.to.port());
    (!half).then_some((pid, at, dial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::tests::nginx;
    use crate::correlate::fixture::*;
    use crate::model::Confidence::Certain;
    use crate::model::{Fact, Incident, Task};
    use crate::text::MILLI;

    /// The upstream closes, after it was refused at these addresses so long ago.
    fn closed_after(refused: &[(&str, Nanos)]) -> Incident {
        let mut w = nginx();
        for (to, ago) in refused {
            let dial = Dial { to: addr(to), errno: libc::ECONNREFUSED };
            w.see_at(w.now - ago, Some(Task { pid: SERVER, tid: SERVER }), Fact::DialFailed(dial));
        }
        let mut a = w.attempt();
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

    #[test]
    fn the_first_half_of_a_name_is_not_told_alone() {
        assert!(!closed_after(&[("[::1]:5432", MILLI / 2)]).summary.contains("5432"));
        let both = closed_after(&[("127.0.0.1:5432", MILLI / 2), ("[::1]:5432", MILLI / 3)]);
        assert!(both.summary.contains("its own connection to [::1]:5432 failed"), "{}", both.summary);
    }
}
