//! `h2_mismatch`: one side speaks only HTTP/2, the other HTTP/1.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;
use crate::wire::{Looks, h2};

pub static CAUSE: Cause = Cause {
    id: "h2_mismatch",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The upstream speaks only HTTP/2 (gRPC) and was asked in HTTP/1, or the other way round.",
    proof: "The first bytes of both sides.",
    remedy: "Tell the proxy which protocol the upstream speaks.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let (sent, answered) = (case.sent(), case.answered());
    let (name, place) = (&case.owner.name, case.place());
    let finding = match (sent, answered) {
        (Looks::HttpRequest, Looks::Http2) => {
            let error = h2::goaway(case.reply()).map_or_else(String::new, |e| format!(" (GOAWAY {e})"));
            Finding::new(format!("{place} speaks only HTTP/2{error}, and {name} asked in HTTP/1"))
        }
        (Looks::Http2, Looks::HttpResponse | Looks::Text | Looks::Named(_)) => Finding::new(format!(
            "{name} asked in HTTP/2, and {place} answered: {}",
            text::safe_bytes(case.reply(), 40)
        )),
        _ => return Verdict::No,
    };
    finding
        .note(case.at, "first_bytes", format!("sent {sent}, got {}", text::safe_bytes(case.reply(), 32)))
        .fix(format!("make both sides speak the same version of HTTP on {place}"))
        .fixes(case.advise(Setting::UpstreamHttp2, "{}"))
        .yes()
}
