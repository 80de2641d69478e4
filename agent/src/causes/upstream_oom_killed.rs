//! `upstream_oom_killed`: the kernel killed the upstream for memory.

use super::death::{self, How, Link, Search};
use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::{Group, Nanos};
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "upstream_oom_killed",
    group: Group::Process,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The kernel's OOM killer killed the process that served, or listened for, this upstream: its memory \
              cgroup was at its limit, or the whole host was out of memory.",
    proof: "The OOM killer chose that process (or one of its unit), then its listener closed or its connection \
              broke.",
    remedy: "Raise the memory limit of the service, or find what makes it grow. Give the proxy a second upstream to \
              retry on.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let (dead, link) = match death::of(case) {
        Search::Dead(dead, link) => (dead, link),
        Search::Wait(wait) => return Verdict::NotYet(wait),
        Search::Doomed { .. } | Search::None => return Verdict::No,
    };
    let How::Oom { at, rss, victim } = death::how(case, dead) else { return Verdict::No };
    let who = case.who(victim);
    let limit = case.memory(victim).map(|m| m.limit);
    let memory = memory(limit, rss);
    let limit = limit.flatten().filter(|limit| reached(*limit, rss));
    let with = if victim == dead.pid { String::new() } else { format!(", and {} with it", case.who(dead.pid)) };
    let service = case.service(victim);
    let finding = Finding::new(format!("{who} was OOM-killed {}{with}: {memory}", case.ago(at)))
        .note(at, "oom_kill", format!("the kernel's OOM killer chose {who}: {memory}"))
        .note(dead.at, "exit", format!("{} ended", case.who(dead.pid)))
        .notes(death::consequence(case, link).map(|(at, kind, text)| super::Note { at, kind, text }))
        .fix(match limit {
            Some(_) => format!("raise the memory limit of {service}, or find what makes it grow"),
            None => format!(
                "see what took the memory of the host or of the cgroup above {service}: `journalctl -k`, `systemd-cgtop`"
            ),
        })
        .of_process(Some(dead.pid));
    linked(finding, link, at, case).yes()
}

/// `limit`: that of its memory cgroup, `Some(None)` where it has none.
fn memory(limit: Option<Option<u64>>, rss: Option<u64>) -> String {
    let limit = match limit {
        Some(Some(limit)) if reached(limit, rss) => format!("memory cgroup limit {}", text::size(limit)),
        Some(Some(limit)) => {
            let limit = text::size(limit);
            format!("its memory cgroup limit of {limit} was not reached by it alone: its cgroup, or the host, was full")
        }
        Some(None) => "no limit of its own, so the host or a cgroup above was out of memory".into(),
        None => "its limit is not known".into(),
    };
    match rss {
        Some(rss) => format!("{limit}, RSS {}", text::size(rss)),
        None => limit,
    }
}

/// Page cache and the kernel's own memory count as well: half of the limit is near enough.
fn reached(limit: u64, rss: Option<u64>) -> bool {
    rss.is_none_or(|rss| rss >= limit / 2)
}

/// Killed while the request was with one of the listener's processes, but which of them held it was not seen.
fn linked(finding: Finding, link: Link, at: Nanos, case: &Case<'_>) -> Finding {
    finding.proven_if(link != Link::Family || case.is_unix() || at >= case.began(), "which process held the connection")
}
