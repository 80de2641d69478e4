//! `response_timeout`: no answer came before the proxy gave up.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::{Group, Peer};
use crate::proxies::Setting;
use crate::text::{self, MILLI, SECOND};
use crate::wire::{Looks, fastcgi, http};

pub static CAUSE: Cause = Cause {
    id: "response_timeout",
    group: Group::Wait,
    scope: Scope::Attempt,
    absence: true,
    meaning: "The upstream took the request and did not answer before the proxy gave up.",
    proof: "The request read by the upstream, no answer, and the proxy's own close.",
    remedy: "Find what the upstream waits for. Raise the proxy's timeout only if such requests may take that long.",
    rule,
};

/// The largest close_notify of TLS on the wire; no request fits into it.
const GOODBYE: u32 = 31;

/// As many bytes as a packet may have.
const SEGMENT: u32 = 1_400;

fn rule(case: &Case<'_>) -> Verdict {
    let Some(conn) = case.conn() else { return Verdict::No };
    let tls =
        case.sent() == Looks::Tls && case.answered() == Looks::Tls && !case.no_answer() && case.waited() >= SECOND;
    let partial = match case.answered() {
        Looks::HttpResponse => http::response(case.reply()).is_none_or(|r| !r.complete) && conn.reply_bytes < 4_000,
        Looks::FastCgi => fastcgi::response(case.reply()).is_some_and(|r| !r.complete) && conn.reply_bytes < 4_000,
        _ => false,
    };
    // It greets as every server of HTTP/2 does, whether or not it answers.
    let greeted = case.only_greeted();
    let silent = case.no_answer() || greeted.is_some();
    if !case.gave_up() || !(silent || tls || partial) || conn.asked.is_none() || case.waited() < 5 * MILLI {
        return Verdict::No;
    }
    let server = case.server();
    let who = case.server_name();
    let whose = if who == "the upstream" { case.place() } else { who };
    let state = server.and_then(|pid| state(case, pid));
    let doing = state.as_ref().map_or_else(String::new, |s| format!("; it is {s}"));
    let waited = text::duration(case.waited());
    let hello = case.mute_to_tls();
    let what = match (partial, tls) {
        (true, _) => format!("sent {} of a header and no more", text::count(conn.reply_bytes, "byte")),
        (_, true) => "did not answer inside TLS".into(),
        _ if hello => format!("accepted the connection and did not answer {}'s TLS hello", case.owner.name),
        _ => "took the request and did not answer".into(),
    };
    let doing = if hello { format!("{doing}; it may not speak TLS") } else { doing };
    // A unix socket does not say how many bytes are unread; who read on its first request read that.
    let begun = |p: &Peer| case.is_unix() && p.read_by.is_some() && !conn.reused;
    // What is left is the proxy's goodbye.
    let goodbye = |p: &Peer| conn.secured && p.unread <= GOODBYE;
    let read = case.peer().is_some_and(|p| p.accepted && (p.unread == 0 || goodbye(p) || begun(p)));
    let taken = read || partial;
    // What it read is no more than what arrived. A proxy's goodbye is under way, too.
    let under_way = case.tcp().is_some_and(|tcp| tcp.in_flight > 0 && tcp.unacked >= SEGMENT);
    let service = server.map_or_else(|| case.place(), |pid| case.service(pid));
    let finding = Finding::new(format!("{whose} {what} in {waited}{doing}"));
    let finding = match hello {
        true => finding
            .fixes(case.advise(Setting::UpstreamTls, "{} if the upstream speaks no TLS on this port"))
            .fixes(case.advise(Setting::HandshakeTimeout, "{} decides how long it waits for a TLS handshake")),
        false => finding
            .fix(format!("find what {service} waits for: a slow query, a lock, a downstream service"))
            .fixes(case.advise(Setting::ResponseTimeout, "raise {} only if such requests may take that long")),
    };
    finding
        .unless_frozen(case, server)
        .proven_if(greeted != Some(false), "whether an answer had begun: not all that came was kept")
        .proven_if(!tls, "what the TLS connection carried")
        .proven_if(!under_way, "whether all of the request had arrived")
        .proven_if(
            taken || tls,
            if hello { "whether the upstream had read the hello" } else { "whether the upstream had read the request" },
        )
        .yes()
}

impl Finding {
    /// Nothing else helps who is frozen.
    pub fn unless_frozen(mut self, case: &Case<'_>, pid: Option<u32>) -> Finding {
        if let Some(pid) = pid
            && case.activity(pid).is_some_and(|activity| activity.frozen)
        {
            self.fix =
                vec![format!("let {} go on: docker unpause, systemctl thaw, or whoever froze it", case.service(pid))];
        }
        self
    }
}

/// What a process is doing, for a sentence: `it is ...`.
pub fn state(case: &Case<'_>, pid: u32) -> Option<String> {
    let activity = case.activity(pid)?;
    let has = |state: char| activity.states.contains(state);
    // Of many threads only the main one was asked, and it need not be the one that has the request.
    let whose = if activity.states.len() > 1 { ", its main thread" } else { "" };
    let waits =
        activity.waits_in.as_deref().map_or_else(String::new, |f| format!("{whose} in {}", text::clipped(f, 40)));
    let throttled = activity.throttled.filter(|n| *n > 0);
    let throttled = throttled.map_or_else(String::new, |n| format!(", its CPU limit was hit {n} times"));
    Some(if activity.states.is_empty() {
        return None;
    } else if activity.frozen {
        "frozen with its cgroup".into()
    } else if has('T') || has('t') {
        "stopped (SIGSTOP or a debugger)".into()
    } else if has('D') {
        format!("blocked in the kernel (D, usually disk or NFS){waits}")
    } else if has('R') {
        match activity.busy {
            true => format!("busy on CPU{throttled}"),
            // Whoever waited may have been woken by the proxy's own close.
            false if throttled.is_empty() => return None,
            // Held back, it is off the CPU and can run.
            false => format!("ready to run{throttled}"),
        }
    } else if has('Z') {
        "a zombie".into()
    } else {
        format!("sleeping{waits}{throttled}")
    })
}
