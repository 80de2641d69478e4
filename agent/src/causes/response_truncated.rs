//! `response_truncated`: the answer broke off inside its header.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::text;
use crate::wire::{Looks, fastcgi, http};

pub static CAUSE: Cause = Cause {
    id: "response_truncated",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: true,
    meaning: "The upstream closed or reset the connection in the middle of the header of its answer.",
    proof: "The first bytes of an answer without the end of its header, then the end of the connection.",
    remedy: "Look at the log of the upstream for that request: it failed while it wrote its answer.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    let open = match case.answered() {
        Looks::HttpResponse => http::response(case.reply()).is_none_or(|r| !r.complete),
        Looks::FastCgi => fastcgi::response(case.reply()).is_some_and(|r| !r.complete && conn.reply_bytes < 4_096),
        _ => false,
    };
    let whole = conn.reply_head.len() as u64 >= conn.reply_bytes;
    // A header that breaks off after that much was too big before it broke off.
    if !case.broken() || !open || (!whole && conn.reply_bytes >= 4_096) {
        return Verdict::No;
    }
    let how = if case.was_reset() { "reset" } else { "closed" };
    let who = case.server_name();
    let place = case.place();
    let bytes = text::count(conn.reply_bytes, "byte");
    let log = case.server().map_or_else(|| place.clone(), |pid| case.service(pid));
    Finding::new(format!("{who} {how} the connection inside the header of its answer, after {bytes}"))
        .note(case.at, "response", format!("it ends with: {}", text::safe_bytes(tail(case.reply()), 40)))
        .fix(format!("look at the log of {log} for this request: it failed while it answered"))
        .proven_if(whole, "the bytes of the header beyond the first ones")
        .yes()
}

fn tail(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.len().saturating_sub(40)..]
}
