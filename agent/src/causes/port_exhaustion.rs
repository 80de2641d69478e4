//! `port_exhaustion`: no local port was free for that destination.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "port_exhaustion",
    group: Group::Connect,
    scope: Scope::Attempt,
    meaning: "The proxy had no free local port for that destination: too many connections to it, most of them in \
              TIME_WAIT.",
    proof: "EADDRNOTAVAIL from connect().",
    remedy: "Keep upstream connections open (keepalive), widen net.ipv4.ip_local_port_range, or use more addresses.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    // A TCP connect() says EAGAIN on older kernels.
    let full = case.failed_with(&[libc::EADDRNOTAVAIL]) || (!case.is_unix() && case.failed_with(&[libc::EAGAIN]));
    if !case.connecting() || !full {
        return Verdict::No;
    }
    let errno = text::errno(case.errno().unwrap_or(libc::EADDRNOTAVAIL));
    Finding::new(format!("{} had no free local port for {}: {errno}", case.owner.name, case.place()))
        .fix("keep upstream connections open instead of one per request (keepalive)")
        .fix("widen net.ipv4.ip_local_port_range; see `ss -tan state time-wait | wc -l`")
        .fixes(case.advise(Setting::SourceAddress, "{}"))
        .yes()
}
