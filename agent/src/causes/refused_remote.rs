//! `refused_remote`: another host refused.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "refused_remote",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: true,
    meaning: "Another host, or something on the way to it, refused the connection; what lies behind cannot be seen \
              from here.",
    proof: "Refused by an address that is not of this host.",
    remedy: "Look on that host: does the service run and listen on that port, does its firewall reject. trace502 \
              there would say.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    if !case.refused() || case.is_local() {
        return Verdict::No;
    }
    let after = text::duration(case.waited());
    Finding::new(format!("{} is another host, and refused after {after}", case.place()))
        .fix(format!("look on that host what listens on {} (`ss -ltnp`), and at its firewall", case.place()))
        .fixes(case.advise(Setting::Upstream, "check the address in {}"))
        .yes()
}
