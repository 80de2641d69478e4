//! `port_exhaustion`: no local port was free for that destination.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "port_exhaustion",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The proxy had no free local port for that destination: too many connections to it, most of them in \
              TIME_WAIT.",
    proof: "EADDRNOTAVAIL from connect(), or a connect that ended before the kernel had given it a local port.",
    remedy: "Keep upstream connections open (keepalive), widen net.ipv4.ip_local_port_range, or use more addresses.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    // A TCP connect() says EAGAIN on older kernels.
    let full = case.failed_with(&[libc::EADDRNOTAVAIL]) || (!case.is_unix() && case.failed_with(&[libc::EAGAIN]));
    if !case.connecting() || !(full || portless(case)) {
        return Verdict::No;
    }
    let errno = case.errno().map_or_else(|| "the kernel gave it none".into(), text::errno);
    Finding::new(format!("{} had no free local port for {}: {errno}", case.owner.name, case.place()))
        .fix("keep upstream connections open instead of one per request (keepalive)")
        .fix("widen net.ipv4.ip_local_port_range; see `ss -tan state time-wait | wc -l`")
        .fixes(case.advise(Setting::SourceAddress, "{}"))
        .yes()
}

/// Where the error of the call cannot be seen: the connect began, and ended before it had a port. It begins with the
/// search for one, and nothing else comes before that is over.
fn portless(case: &Case<'_>) -> bool {
    !case.in_call && case.unanswered() && case.flow().is_some_and(|flow| flow.local.port() == 0)
}
