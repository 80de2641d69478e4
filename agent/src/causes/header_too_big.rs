//! `header_too_big`: the header of the answer did not fit.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::{ClientOutcome, Group};
use crate::proxies::{Birth, Setting};
use crate::text;
use crate::wire::{Looks, fastcgi, http};

/// The smallest buffer for a header that a proxy has by default.
const LEAST: u64 = 4_000;

pub static CAUSE: Cause = Cause {
    id: "header_too_big",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The header of the answer outgrew the proxy's buffer for it.",
    proof: "As many bytes as the buffer holds were read, without the end of the header, and the proxy gave up.",
    remedy: "Raise the proxy's buffer, or find what makes the header grow: cookies, tokens, a Link or CSP header.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    let open = match case.answered() {
        Looks::HttpResponse => http::response(case.reply()).is_some_and(|r| !r.complete && r.bad_line.is_none()),
        Looks::FastCgi => fastcgi::response(case.reply()).is_some_and(|r| !r.complete),
        _ => false,
    };
    let kept = conn.reply_head.len() as u64;
    let errored = case.client.is_none_or(|c| c.outcome != ClientOutcome::Closed);
    if !open || conn.reply_bytes < LEAST || kept >= conn.reply_bytes || !errored {
        return Verdict::No;
    }
    let bytes = conn.reply_bytes;
    // A proxy that reads until its buffer is full reads exactly that much.
    let exact = (case.owner.kind.header_full)(bytes);
    let left = case.tcp().map_or(0, |t| t.unread);
    // A proxy that stores answers before it passes them on fails on a body that breaks off, too.
    if case.broken() && !exact && left == 0 && case.owner.kind.birth != Birth::Exact {
        return Verdict::No;
    }
    let name = &case.owner.name;
    let more = if left > 0 { format!(", {} more waiting", text::size(left.into())) } else { String::new() };
    Finding::new(format!(
        "the header of {} did not fit: {name} read {bytes} bytes of it{more} and gave up",
        case.place()
    ))
    .note(case.at, "response", format!("{bytes} bytes read, no end of the header in the {kept} that were kept"))
    .fixes(case.advise(Setting::HeaderRoom, "raise {}"))
    .fix("find what makes the header grow: cookies, tokens, Link or Content-Security-Policy")
    .proven_if(exact, "that the end of the header was not among the bytes that were read")
    .yes()
}
