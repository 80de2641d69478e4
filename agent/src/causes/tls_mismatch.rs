//! `tls_mismatch`: one side speaks TLS, the other plain text.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::proxies::Setting;
use crate::text;
use crate::wire::{Looks, http, tls};

pub static CAUSE: Cause = Cause {
    id: "tls_mismatch",
    group: Group::Response,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The proxy speaks TLS to an upstream that speaks plain text, or plain text to an upstream that speaks \
              TLS.",
    proof: "The first bytes of both sides.",
    remedy: "Make both sides agree: https or http in the proxy's upstream setting, or the port that speaks it.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let (sent, answered) = (case.sent(), case.answered());
    if let Some(finding) = header_only(case) {
        return finding.yes();
    }
    let finding = match (sent, answered) {
        (_, Looks::Nothing) | (Looks::Tls, Looks::Tls) => return Verdict::No,
        (Looks::Tls, _) if hello(case) => Finding::new(format!(
            "{} speaks TLS to {}, which answered in plain text: {}",
            case.owner.name,
            case.place(),
            text::safe_bytes(case.reply(), 40)
        )),
        // Protocols that begin plain and go on in TLS are none of these.
        (Looks::HttpRequest | Looks::Http2 | Looks::FastCgi, Looks::Tls) => {
            let alert = tls::alert(case.reply());
            let alert = alert.map_or_else(String::new, |a| format!(" (alert {})", a.name()));
            let name = &case.owner.name;
            Finding::new(format!("{name} speaks plain text to {}, which answered with TLS{alert}", case.place()))
        }
        _ => return Verdict::No,
    };
    finding
        .note(case.at, "first_bytes", format!("sent {sent}, got {}", text::safe_bytes(case.reply(), 32)))
        .fix(same(case))
        .fixes(case.advise(Setting::UpstreamTls, "{}"))
        .yes()
}

fn hello(case: &Case<'_>) -> bool {
    case.conn().is_some_and(|c| tls::is_client_hello(http::after_proxy_header(&c.request_head)))
}

fn same(case: &Case<'_>) -> String {
    format!("make both sides speak the same on {}: TLS, or plain text", case.place())
}

/// It read as much as the head of a TLS record is long, saw that this is none, and closed: OpenSSL sends no alert to
/// those who speak HTTP.
fn header_only(case: &Case<'_>) -> Option<Finding> {
    const RECORD_HEAD: u64 = 5;
    let (conn, peer) = (case.conn()?, case.peer()?);
    let plain = case.sent() == Looks::HttpRequest && case.no_answer() && case.broken();
    let read = conn.request_bytes.checked_sub(peer.unread.into())?;
    if !plain || conn.secured || read != RECORD_HEAD || peer.closed.is_none() || case.is_unix() {
        return None;
    }
    let who = case.server_name();
    let finding = Finding::new(format!(
        "{} speaks plain text to {}, which seems to want TLS: {who} read {RECORD_HEAD} bytes, the head of a TLS record, \
         and closed",
        case.owner.name,
        case.place()
    ));
    let finding = finding.fix(same(case)).fixes(case.advise(Setting::UpstreamTls, "{}"));
    Some(finding.missing("a byte of TLS from it"))
}
