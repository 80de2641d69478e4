//! `no_listener`: nothing listens there.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::correlate::history::Listener;
use crate::host::ListenerFacts;
use crate::model::{Endpoint, Group};
use crate::proxies::{self, Setting};
use crate::text::{self, sentence};
use std::net::SocketAddr;

pub static CAUSE: Cause = Cause {
    id: "no_listener",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: true,
    meaning: "Nothing listens on that port: the service is not running, or listens elsewhere. Nothing was seen to die.",
    proof: "A reset with reason no-socket by the target's own stack, or refused on an address of this host that has \
              no such listener.",
    remedy: "Start the service, or correct the port in the proxy.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    if !case.refused() {
        return Verdict::No;
    }
    let resets = case.resets_received();
    let stack = resets.iter().find(|(_, p)| !p.has_socket || p.reason.as_deref() == Some("NO_SOCKET"));
    if stack.is_none() && !case.is_local() {
        return Verdict::No;
    }
    let redirected = stack.is_none() && super::firewall_reject::redirected(case);
    let listener = case.listener();
    if listener.is_some() && stack.is_none() && !redirected {
        return Verdict::No;
    }
    let place = case.place();
    let finding = match &listener {
        Some(l) if !redirected => {
            let who = l.pid.map_or_else(|| "somebody".into(), |pid| case.who(pid));
            Finding::new(format!("nothing listened on {place} yet; {who} does since"))
        }
        Some(_) => Finding::new(format!("{place} is redirected to another address, and nothing listens there"))
            .missing("where it is redirected to"),
        None if case.is_unix() => Finding::new(format!("nobody listens on {place}: the file is a left-over")),
        None => Finding::new(sentence(format_args!("nothing listens on {place}{}", since(case)))),
    };
    let finding = match stack {
        Some((at, p)) => {
            let reason = p.reason.as_deref().map_or_else(String::new, |r| format!(" ({})", text::safe(r)));
            let text = sentence(format_args!("the stack of {place} answered the SYN with a reset{reason}"));
            finding.note(*at, "rst_sent", text)
        }
        None => finding,
    };
    let listeners = case.listeners();
    // Who listened there a moment ago was meant, and nobody else.
    let gone = lost(case);
    let near = meant(&listeners, case.target(), |pid| case.past.history.comm_of(pid).is_some());
    // A proxy that asked itself would go round and round.
    let proxy =
        |pid: u32| pid == case.owner.pid || case.name(pid).is_some_and(|name| proxies::by_name(&name).is_some());
    let near = near.iter().filter(|(_, l)| gone.is_none() && !l.pid.is_some_and(proxy)).take(2);
    finding
        .fix(match gone {
            Some(gone) => format!("start {} again", case.service(gone.pid)),
            None => sentence(format_args!("start what should listen on {place}")),
        })
        .fixes(near.map(|(addr, l)| {
            let who = l.pid.map_or_else(|| "somebody".into(), |pid| case.who(pid));
            format!("did you mean {addr}? {who} listens there")
        }))
        .fixes(case.advise(Setting::Upstream, "or correct the port in {}"))
        .yes()
}

/// Somebody listened there some time ago and stopped without dying.
fn since(case: &Case<'_>) -> String {
    lost(case).map_or_else(String::new, |l| {
        let closed = l.closed.unwrap_or(case.at);
        format!("; {} stopped listening there {}", case.who(l.pid), case.ago(closed))
    })
}

fn lost<'a>(case: &Case<'a>) -> Option<&'a Listener> {
    case.past.history.lost(case.endpoint()?, case.target_netns(), case.at)
}

/// Listeners whose port looks like the one that was dialled, best first.
fn meant(
    listeners: &[ListenerFacts],
    target: Option<SocketAddr>,
    known: impl Fn(u32) -> bool,
) -> Vec<(SocketAddr, &ListenerFacts)> {
    let Some(target) = target else { return Vec::new() };
    let mut near: Vec<_> = listeners
        .iter()
        .filter_map(|l| match l.endpoint {
            Endpoint::Tcp(addr) if reaches(addr, target) => Some((alike(addr.port(), target.port())?, addr, l)),
            _ => None,
        })
        .collect();
    near.sort_by_key(|(distance, addr, l)| (*distance, !l.pid.is_some_and(&known), *addr));
    near.into_iter().map(|(_, addr, l)| (addr, l)).collect()
}

fn reaches(listener: SocketAddr, target: SocketAddr) -> bool {
    listener.ip() == target.ip() || listener.ip().is_unspecified()
}

/// How far two ports are apart as people mistype them: by one, or in one digit. `None`: too far.
fn alike(a: u16, b: u16) -> Option<u16> {
    if a == b {
        return None;
    }
    if a.abs_diff(b) <= 10 {
        return Some(a.abs_diff(b));
    }
    if a.checked_ilog10() != b.checked_ilog10() {
        return None;
    }
    // Digits, from the last one; the zeros before a number are the same in both.
    let digits = |port: u16| [1, 10, 100, 1_000, 10_000].map(|place| port / place % 10);
    let (a, b) = (digits(a), digits(b));
    let differing = a.iter().zip(&b).filter(|(x, y)| x != y).count();
    let sorted = |mut digits: [u16; 5]| {
        digits.sort_unstable();
        digits
    };
    (differing == 1 || (differing == 2 && sorted(a) == sorted(b))).then_some(20)
}
