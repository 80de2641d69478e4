//! `tls_mismatch`: one side speaks TLS, the other plain text.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;
use crate::wire::{Looks, tls};

pub static CAUSE: Cause = Cause {
    id: "tls_mismatch",
    group: Group::Response,
    scope: Scope::Attempt,
    meaning: "The proxy speaks TLS to an upstream that speaks plain text, or plain text to an upstream that speaks \
              TLS.",
    proof: "The first bytes of both sides.",
    remedy: "Make both sides agree: https or http in the proxy's upstream setting, or the port that speaks it.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let (sent, answered) = (case.sent(), case.answered());
    let finding = match (sent, answered) {
        (_, Looks::Nothing) | (Looks::Nothing, _) => return Verdict::No,
        (Looks::Tls, Looks::Tls) => return Verdict::No,
        (Looks::Tls, _) => Finding::new(format!(
            "{} speaks TLS to {}, which answered in plain text: {}",
            case.owner.name,
            case.place(),
            text::safe_bytes(case.reply(), 40)
        )),
        (_, Looks::Tls) => {
            let alert = tls::alert(case.reply());
            let alert = alert.map_or_else(String::new, |a| format!(" (alert {})", a.name()));
            let name = &case.owner.name;
            Finding::new(format!("{name} speaks plain text to {}, which answered with TLS{alert}", case.place()))
        }
        _ => return Verdict::No,
    };
    finding
        .note(case.at, "first_bytes", format!("sent {sent}, got {}", text::safe_bytes(case.reply(), 32)))
        .fixes(case.advise(Setting::UpstreamTls, "{}"))
        .yes()
}
