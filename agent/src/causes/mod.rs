//! The causes, in the order in which they are asked: one file each.
//!
//! A cause judges one [`Case`] and does no I/O of its own: what it wants of the host it asks through the case, which
//! remembers the answers. `certain` means that the proof in its catalogue entry was observed.

mod accept_queue_full;
mod behind;
mod case;
pub mod death;
mod dns_failure;
mod finding;
mod firewall_drop;
mod firewall_reject;
mod h2_mismatch;
mod header_too_big;
mod host_unreachable;
mod invalid_response;
mod keepalive_race;
mod network_unreachable;
mod never_accepted;
mod no_listener;
mod no_live_upstream;
mod permission_denied;
mod port_exhaustion;
mod proxy_limit;
mod refused_remote;
mod request_not_read;
mod response_timeout;
mod response_truncated;
mod send_timeout;
mod socket_missing;
mod stale_connection;
mod syn_timeout;
mod tls_advice;
mod tls_handshake_failed;
mod tls_mismatch;
mod unattributed;
mod upstream_closed_early;
mod upstream_crash_loop;
mod upstream_crashed;
mod upstream_error;
mod upstream_exited;
mod upstream_killed;
mod upstream_oom_killed;
mod upstream_reset;
mod upstream_starting;
mod words;
mod wrong_interface;

pub use case::{Answers, Case, ListenerView};
pub use finding::{Finding, Note, Verdict, Wait};

use crate::model::Group;

/// What a cause is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An attempt that failed.
    Attempt,
    /// An error of the proxy that no attempt explains.
    NoAttempt,
    Both,
}

/// A cause and its entry in the catalogue.
pub struct Cause {
    pub id: &'static str,
    pub group: Group,
    pub scope: Scope,
    /// What it means, for somebody who sees the word for the first time.
    pub meaning: &'static str,
    /// What must have been observed for `certain`.
    pub proof: &'static str,
    pub remedy: &'static str,
    /// Its proof rests on something that was not seen, too: that nothing died, nothing was dropped. Where records were
    /// lost it is likely at most. (Others are proven by what came, whatever else did not.)
    pub absence: bool,
    pub rule: fn(&Case<'_>) -> Verdict,
}

impl Cause {
    /// What it makes of a case, as far as what was seen of it can prove.
    pub fn ask(&self, case: &Case<'_>) -> Verdict {
        match (self.rule)(case) {
            Verdict::Yes(finding) if self.absence && finding.missing.is_empty() && case.lossy() => {
                finding.missing("that nothing else led to it: kernel records were lost at that time").yes()
            }
            verdict => verdict,
        }
    }
}

/// In the order of asking: what ended a process first, then what the bytes say, then what the connection says.
/// A cause stands before every symptom that it produces.
pub static CAUSES: &[&Cause] = &[
    // Bytes that arrived prove more than anything around them.
    &upstream_error::CAUSE,
    &tls_mismatch::CAUSE,
    &h2_mismatch::CAUSE,
    &invalid_response::CAUSE,
    // The process is gone.
    &upstream_oom_killed::CAUSE,
    &upstream_crash_loop::CAUSE,
    &upstream_crashed::CAUSE,
    &upstream_starting::CAUSE,
    &upstream_killed::CAUSE,
    &upstream_exited::CAUSE,
    // connect() said why.
    &socket_missing::CAUSE,
    &permission_denied::CAUSE,
    &port_exhaustion::CAUSE,
    &proxy_limit::CAUSE,
    &network_unreachable::CAUSE,
    // Something on the way.
    &accept_queue_full::CAUSE,
    &firewall_drop::CAUSE,
    &firewall_reject::CAUSE,
    &host_unreachable::CAUSE,
    &wrong_interface::CAUSE,
    &no_listener::CAUSE,
    &refused_remote::CAUSE,
    &syn_timeout::CAUSE,
    // Connected.
    &tls_handshake_failed::CAUSE,
    &header_too_big::CAUSE,
    &response_truncated::CAUSE,
    &keepalive_race::CAUSE,
    &stale_connection::CAUSE,
    &upstream_reset::CAUSE,
    &upstream_closed_early::CAUSE,
    &send_timeout::CAUSE,
    &never_accepted::CAUSE,
    &request_not_read::CAUSE,
    &response_timeout::CAUSE,
    // No attempt.
    &dns_failure::CAUSE,
    &no_live_upstream::CAUSE,
    &unattributed::CAUSE,
];

/// The catalogue, for `trace502 causes`.
pub static CATALOGUE: &[&Cause] = CAUSES;

pub fn by_id(id: &str) -> Option<&'static Cause> {
    CAUSES.iter().copied().find(|cause| cause.id == id)
}

impl std::fmt::Debug for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id)
    }
}

/// What the causes, asked in order, make of a case.
pub enum Opinion {
    Found(&'static Cause, Finding),
    Wait(Wait),
    None,
}

/// Asks each in turn. One that must wait stops those after it: a symptom must not win over its cause by being faster.
pub fn judge(case: &Case<'_>) -> Opinion {
    for cause in CAUSES.iter().copied().filter(|cause| case.in_scope(cause.scope)) {
        match cause.ask(case) {
            Verdict::No => {}
            Verdict::NotYet(wait) if wait.until > case.now => return Opinion::Wait(wait),
            Verdict::NotYet(_) => {}
            Verdict::Yes(finding) => return Opinion::Found(cause, *finding),
        }
    }
    Opinion::None
}

#[cfg(test)]
mod advice_tests;
#[cfg(test)]
mod alike_tests;
#[cfg(test)]
mod bystander_tests;
#[cfg(test)]
mod tests;
