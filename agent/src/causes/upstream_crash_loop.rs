//! `upstream_crash_loop`: the upstream starts and dies over and over.

use super::death::{self, How};
use super::{Case, Cause, Finding, Scope, Verdict};
use crate::correlate::history::Death;
use crate::model::{Group, Nanos};
use crate::text::{self, SECOND};

const WINDOW: Nanos = 120 * SECOND;
const TIMES: usize = 3;

pub static CAUSE: Cause = Cause {
    id: "upstream_crash_loop",
    group: Group::Process,
    scope: Scope::Attempt,
    absence: false,
    meaning: "The upstream was started and died at least three times within two minutes.",
    proof: "The deaths within two minutes, with the last exit status.",
    remedy: "Look at the log of the service for the first of these ends; a bad configuration or a missing dependency \
              is usual.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    let Some(lost) = death::lost_listener(case) else { return Verdict::No };
    let history = &case.past.history;
    let from = case.at.saturating_sub(WINDOW);
    let last_owner = history.death_of(lost.pid);
    let same = |d: &Death| {
        let listened = case.endpoint().is_some_and(|e| d.life.listened.contains(e));
        let kin = last_owner.is_some_and(|o| {
            let parent = o.life.parent.is_some_and(|p| p > 1) && o.life.parent == d.life.parent;
            let unit = o.life.cgroup > 1 && o.life.cgroup == d.life.cgroup;
            o.life.comm == d.life.comm && (parent || unit)
        });
        // A worker that its parent replaces is no start of the service.
        let parent = d.life.parent.and_then(|p| history.comm_of(p));
        (listened || kin) && parent != Some(d.life.comm.as_str())
    };
    let recent = history.deaths().filter(|d| d.at >= from && d.at <= case.at && same(d));
    let deaths: Vec<&Death> = recent.filter(|d| death::by_itself(case, d)).collect();
    if deaths.len() < TIMES {
        return Verdict::No;
    }
    let Some(last) = deaths.last() else { return Verdict::No };
    let how = how(case, last);
    let name = case.name(last.pid).unwrap_or_else(|| "the upstream".into());
    let span = deaths.first().map_or(0, |first| case.at.saturating_sub(first.at));
    Finding::new(format!(
        "{name} on {} died {} times in {}; last pid {} {how}, {}",
        case.place(),
        deaths.len(),
        text::duration(span),
        last.pid,
        case.ago(last.at)
    ))
    .notes(deaths.iter().rev().take(5).map(|d| super::Note {
        at: d.at,
        kind: "exit",
        text: format!("{name} (pid {}) {}", d.pid, self::how(case, d)),
    }))
    .fix(format!("look at the log of {} for the first of these ends", case.service(last.pid)))
    .of_process(Some(last.pid))
    .yes()
}

fn how(case: &Case<'_>, death: &Death) -> String {
    match death::how(case, death) {
        How::Oom { .. } => "was OOM-killed".into(),
        How::Crash { signal, .. } => format!("crashed with {}", text::signal(signal)),
        How::Killed { signal, .. } => format!("was killed with {}", text::signal(signal)),
        How::Exited(code) => format!("exited with status {code}"),
    }
}
