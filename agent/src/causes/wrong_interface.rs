//! `wrong_interface`: the port is listened on, but on another address.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::host::ListenerFacts;
use crate::model::{Endpoint, Group};
use crate::proxies::{self, Setting};
use crate::text;
use std::net::SocketAddr;

pub static CAUSE: Cause = Cause {
    id: "wrong_interface",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: true,
    meaning: "Something listens on that port, but on another address or family than the one that the proxy dials.",
    proof: "Refused, and a listener on that port on another address in that network namespace.",
    remedy: "Let the upstream listen on the address that is dialled (or 0.0.0.0 and ::), or dial the one it listens \
              on.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(target) = case.target() else { return Verdict::No };
    if !case.refused() || !case.is_local() || case.listener().is_some() {
        return Verdict::No;
    }
    // Who listened on exactly that address and stopped was meant, and nobody else.
    if case.past.history.lost(&Endpoint::Tcp(target), case.target_netns(), case.at).is_some() {
        return Verdict::No;
    }
    let listeners = case.listeners();
    let Some((there, listener)) = other(&listeners, target, |l| is_proxy(case, l)) else { return Verdict::No };
    let who = match (listener.pid, &listener.name) {
        (Some(pid), _) => case.who(pid),
        (None, Some(name)) => text::clipped(name, 40),
        (None, None) => "somebody".into(),
    };
    let family = match (there.is_ipv4(), target.is_ipv4()) {
        (true, false) => " (IPv4, dialled over IPv6: `localhost` may be both)",
        (false, true) => " (IPv6 only, dialled over IPv4)",
        _ => "",
    };
    Finding::new(format!("{who} listens on {there}{family}, not on {target}"))
        .fix(format!("let it listen on {}, or on all addresses", target.ip()))
        .fixes(case.advise(Setting::Upstream, &format!("or dial {there} in {{}}")))
        .of_process(listener.pid)
        .yes()
}

/// A proxy often listens on the port that it dials elsewhere, and one that asked itself would go round and round.
fn is_proxy(case: &Case<'_>, listener: &ListenerFacts) -> bool {
    let named = |name: &str| proxies::by_name(name).is_some();
    listener.pid == Some(case.owner.pid)
        || listener.name.as_deref().is_some_and(named)
        || listener.pid.and_then(|pid| case.name(pid)).is_some_and(|name| named(&name))
}

/// A listener on the same port, the one nearest to what was meant first.
fn other(
    listeners: &[ListenerFacts],
    target: SocketAddr,
    passed_over: impl Fn(&ListenerFacts) -> bool,
) -> Option<(SocketAddr, &ListenerFacts)> {
    let on_port = listeners.iter().filter_map(|l| match l.endpoint {
        Endpoint::Tcp(addr) if addr.port() == target.port() && addr.ip() != target.ip() && !passed_over(l) => {
            Some((addr, l))
        }
        _ => None,
    });
    on_port.min_by_key(|(addr, _)| (!addr.ip().is_loopback(), addr.is_ipv4() != target.is_ipv4(), *addr))
}
