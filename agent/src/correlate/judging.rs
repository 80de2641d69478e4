//! What an attempt came to: its cause once the causes can say it, and whether it was a failure of its upstream.

use std::cell::RefCell;

use super::tries::{End, State, Try};
use super::{Engine, OUTCOME, Timer};
use crate::causes::{self, Case, Opinion, Wait};
use crate::host::Host;
use crate::model::{Handover, Nanos, Notice, Phase, UpstreamFailure};

impl Engine {
    /// Asks the causes about an attempt, and sees to what follows from the answer.
    pub(super) fn judge(&mut self, seq: u64, now: Nanos, host: &mut dyn Host) {
        let Some(mut one) = self.tries.take(seq) else { return };
        self.stop_waiting(&one);
        let (opinion, end) = {
            let case = Case {
                attempt: Some(&one.attempt),
                in_call: one.in_call,
                netns: one.netns,
                at: one.at,
                moment: one.at,
                now,
                owner: &one.owner,
                client: None,
                line: None,
                past: &self.past,
                host: RefCell::new(host),
                answers: RefCell::new(&mut one.answers),
            };
            let end = ended(&case);
            (causes::judge(&case), end)
        };
        one.end = end;
        one.state = match opinion {
            Opinion::Found(cause, finding) => {
                if let ("upstream_starting", Some(pid)) = (cause.id, finding.process) {
                    self.past.starting(&one.attempt.endpoint, pid);
                }
                State::Judged(Some((cause, Box::new(finding))))
            }
            Opinion::None => State::Judged(None),
            Opinion::Wait(wait) => {
                self.timers.insert((wait.until, Timer::Try(seq)));
                if let Some(pid) = wait.exit_of {
                    self.exits.entry(pid).or_default().insert(seq);
                }
                State::Waiting(wait)
            }
        };
        let judged = matches!(one.state, State::Judged(_));
        self.tries.give_back(one);
        if judged {
            self.judged(seq);
        }
    }

    /// Most processes that are waited for live on.
    pub(super) fn stop_waiting(&mut self, one: &Try) {
        let State::Waiting(Wait { exit_of: Some(pid), .. }) = one.state else { return };
        if let Some(waiting) = self.exits.get_mut(&pid) {
            waiting.remove(&one.seq);
            if waiting.is_empty() {
                self.exits.remove(&pid);
            }
        }
    }

    /// Counts an attempt as a failure as soon as it is known to be one.
    pub(super) fn judged(&mut self, seq: u64) {
        let Some(one) = self.tries.get(seq) else { return };
        if one.settled {
            return;
        }
        match one.end {
            End::Failed => self.count_failure(seq),
            End::GivenUp => {
                self.timers.insert((one.at.saturating_add(OUTCOME), Timer::Outcome(seq)));
            }
            End::Well => {}
        }
    }

    /// The proxy gave it up, and no error of its client was seen: it was a failure unless the client had left, or
    /// it served nobody.
    pub(super) fn outcome(&mut self, seq: u64) {
        let Some(one) = self.tries.get_mut(seq) else { return };
        if one.settled {
            return;
        }
        let left = one.key().is_some_and(|key| self.past.left.get(&key).is_some_and(|at| at <= one.at));
        let stuck = one.attempt.conn.phase == Phase::Connecting && one.attempt.tcp.is_some_and(|t| t.retransmits > 0);
        if left || !(one.attempt.bound.is_some() || stuck) {
            one.settled = true;
            return;
        }
        self.count_failure(seq);
    }

    pub(super) fn count_failure(&mut self, seq: u64) {
        let Some(one) = self.tries.get_mut(seq) else { return };
        if std::mem::replace(&mut one.settled, true) {
            return;
        }
        let (cause, summary) = match &one.state {
            State::Judged(Some((cause, finding))) => (cause.id, finding.summary.as_str()),
            _ => ("unattributed", ""),
        };
        let checked = one.attempt.conn.check || one.attempt.bound.is_none();
        self.past.failures.add(one.at, one.owner.group, &one.attempt.endpoint, cause, summary, checked);
        if one.attempt.conn.errno.is_some() {
            self.past.failures.errored(one.at, one.owner.group, &one.attempt.endpoint);
        }
        self.counters.failures += 1;
        self.out.push(Notice::Failure(UpstreamFailure {
            proxy: one.owner.name.clone(),
            upstream: one.attempt.endpoint.place(),
            cause: cause.into(),
        }));
    }

    /// Attempts that waited for this exit are judged now.
    pub(super) fn settle_exit(&mut self, pid: u32, host: &mut dyn Host) {
        for seq in self.exits.remove(&pid).unwrap_or_default() {
            self.look_again(seq, self.clock, host);
        }
    }

    pub(super) fn look_again(&mut self, seq: u64, now: Nanos, host: &mut dyn Host) {
        let Some(one) = self.tries.get(seq) else { return };
        if one.waits_until().is_none() {
            return;
        }
        let (pid, key) = (one.pid, one.key());
        self.judge(seq, now, host);
        for pending in self.pending.concerned(pid, key) {
            self.resolve(pending, now, host);
        }
    }
}

fn ended(case: &Case<'_>) -> End {
    let handover = case.attempt.map(|a| a.handover);
    if handover == Some(Handover::Answered) || case.refused() {
        return End::Failed;
    }
    if case.unanswered() {
        return if case.errno().is_some() { End::Failed } else { End::GivenUp };
    }
    if case.broken() || case.errno().is_some() {
        return if handover == Some(Handover::Asked) { End::Well } else { End::Failed };
    }
    // A greeting of HTTP/2 is no answer.
    if handover == Some(Handover::Asked) && case.only_control().is_none() { End::Well } else { End::GivenUp }
}
