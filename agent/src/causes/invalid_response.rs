//! `invalid_response`: the bytes of the answer are no HTTP response.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::logs::Hint;
use crate::model::{ClientOutcome, Group, Handover};
use crate::proxies::Setting;
use crate::text;
use crate::wire::{Looks, http};

pub static CAUSE: Cause = Cause {
    id: "invalid_response",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The upstream answered with bytes that are no HTTP response (or no FastCGI answer, where that was asked).",
    proof: "The first bytes of the answer.",
    remedy: "Usually a wrong port: the proxy talks to something else. Check what listens there.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let answered = case.answered();
    let shown = text::safe_bytes(case.reply(), 48);
    let server = case.server().map_or_else(|| case.place(), |pid| format!("{} on {}", case.who(pid), case.place()));
    let wanted = if case.sent() == Looks::FastCgi { "FastCGI" } else { "HTTP" };
    let finding = match (case.sent(), answered) {
        // Who asked for something else, an application its database, got what it asked for.
        (Looks::Nothing | Looks::Binary | Looks::Tls, _) => return Verdict::No,
        (_, Looks::Nothing) | (Looks::FastCgi, Looks::FastCgi) => return Verdict::No,
        (Looks::Http2, Looks::Http2) => return Verdict::No,
        (Looks::FastCgi, looks) => Finding::new(format!("{server} answered FastCGI with {looks}: {shown}")),
        (_, Looks::HttpResponse) => match bad_header(case) {
            Some(finding) => finding,
            None => return Verdict::No,
        },
        (_, looks) => Finding::new(format!("the answer of {server} is no HTTP but looks like {looks}: {shown}")),
    };
    let finding = finding.note(case.at, "first_bytes", format!("first bytes of the answer: {shown}"));
    if answered == Looks::HttpResponse {
        let service = case.server().map_or_else(|| case.place(), |pid| case.service(pid));
        return finding.fix(format!("mend {service}: it answers with what proxies refuse")).yes();
    }
    finding
        .fix(format!("check what listens on {}: it does not speak {wanted}", case.place()))
        .fixes(case.advise(Setting::Upstream, "check {}"))
        .yes()
}

/// It began as an answer, and a line of its head is none.
fn bad_header(case: &Case<'_>) -> Option<Finding> {
    let line = http::response(case.reply())?.bad_line?;
    // Proxies forgive some of these: only an error at the client says that this one did not.
    let refused = case.attempt.is_some_and(|a| a.handover == Handover::Asked)
        || case.client.is_some_and(|c| c.outcome != ClientOutcome::Closed);
    refused.then(|| {
        Finding::new(format!("the answer of {} breaks the rules of HTTP: {line}", case.place()))
            .proven_if(case.said() == Some(&Hint::InvalidResponse), "the proxy's own word that this was why")
    })
}
