//! An attempt of a proxy as it comes in: which request it serves, and whether it was told before.

use std::collections::BTreeMap;

use super::tries::{End, State, Try};
use super::{Engine, SAME_CALL};
use crate::causes::Answers;
use crate::host::Host;
use crate::model::{Attempt, Bound, ConnectFailed, Connection, Endpoint, Flow, Handover, Nanos, Phase, Task};

impl Engine {
    pub(super) fn attempt(
        &mut self,
        at: Nanos,
        task: Option<Task>,
        attempt: Attempt,
        in_call: bool,
        netns: u32,
        host: &mut dyn Host,
    ) {
        let task = task.unwrap_or(attempt.conn.owner);
        let seq = match self.known(at, task, &attempt, in_call) {
            Known::New => self.next_seq(),
            Known::Better(seq) => seq,
            Known::Duplicate => {
                self.counters.duplicates += 1;
                return;
            }
        };
        // What begins after its client got the error serves somebody else, if anybody: a health check.
        let began = attempt.conn.asked.or(attempt.conn.opened);
        let mut attempt = attempt;
        let served = attempt.bound.and_then(|b| self.done.get(&(b.client, b.request)));
        if served.zip(began).is_some_and(|(error, began)| began > error) {
            attempt.bound = None;
        }
        let owner = self.owners.of(task.pid, &attempt.conn.comm, host).as_seen(&attempt.conn);
        let proven = attempt.bound.is_some_and(|b| b.proven);
        if owner.kind.retries_later && !proven && !in_call {
            self.rebind(task, &mut attempt, owner.group);
        }
        let old = self.tries.remove(seq);
        let in_call = in_call || old.as_ref().is_some_and(|old| old.in_call);
        if let Some(old) = &old {
            attempt.conn.errno = attempt.conn.errno.or(old.attempt.conn.errno);
            attempt.bound = attempt.bound.or(old.attempt.bound);
            attempt.conn.opened = attempt.conn.opened.or(old.attempt.conn.opened);
        }
        let (pid, tid) = (task.pid, task.tid);
        let key = attempt.bound.map(|b| (b.client, b.request));
        self.resets(&attempt, &owner, old.is_none());
        self.tries.insert(Try {
            seq,
            at,
            pid,
            tid,
            attempt,
            in_call,
            netns,
            owner,
            answers: Answers::default(),
            state: State::Judged(None),
            end: End::Well,
            settled: old.as_ref().is_some_and(|old| old.settled),
            used: false,
            told: None,
            served: None,
        });
        let now = self.clock.max(at);
        self.judge(seq, now, host);
        for pending in self.pending.concerned(pid, key) {
            self.resolve(pending, now, host);
        }
    }

    /// A proxy that tries again a second later has started other things in between: the thread's last failure is a
    /// poor guess at which request is tried again. One that failed on the same upstream is a better one.
    fn rebind(&self, task: Task, attempt: &mut Attempt, group: u32) {
        let Some(bound) = attempt.bound else { return };
        if !bound.retry {
            return;
        }
        let began = attempt.conn.asked.or(attempt.conn.opened).unwrap_or(0);
        let same = |t: &&Try| {
            t.tid == task.tid && !t.used && t.at <= began && t.attempt.endpoint == attempt.endpoint && t.key().is_some()
        };
        let mut last = BTreeMap::new();
        for t in self.tries.of_process(task.pid).filter(same) {
            let open = t.key().filter(|key| self.done.get(key).is_none_or(|error| error >= began));
            if let Some(key) = open {
                let at: &mut Nanos = last.entry(key).or_insert(t.at);
                *at = t.at.max(*at);
            }
        }
        if last.contains_key(&(bound.client, bound.request)) && last.len() == 1 {
            return;
        }
        // They are tried again in the order in which they failed.
        attempt.bound = match last.into_iter().min_by_key(|(_, at)| *at) {
            Some(((client, request), _)) => Some(Bound { client, request, ..bound }),
            // Another server of the backend, unless it is one whose health is checked.
            None if !self.past.failures.checks(group, &attempt.endpoint) => Some(bound),
            None => None,
        };
    }

    /// Whether this attempt was told before.
    fn known(&self, at: Nanos, task: Task, attempt: &Attempt, in_call: bool) -> Known {
        let conn = &attempt.conn;
        let same = self.tries.of_connection(conn.cookie, conn.request).or_else(|| {
            let failing = !in_call && conn.phase == Phase::Connecting;
            let since = at.saturating_sub(SAME_CALL);
            failing.then(|| self.tries.nameless(task.pid, task.tid, &attempt.endpoint, since)).flatten()
        });
        let Some(old) = same.and_then(|seq| self.tries.get(seq)) else { return Known::New };
        let closed_after_call = old.in_call && !in_call && conn.phase == Phase::Connecting;
        let ended_after_ask = old.attempt.handover == Handover::Asked && attempt.handover == Handover::Failed;
        let proven = |a: &Attempt| a.bound.is_some_and(|b| b.proven);
        let proven_now = proven(attempt) && !proven(&old.attempt);
        match !old.used && (closed_after_call || ended_after_ask || proven_now) {
            true => Known::Better(old.seq),
            false => Known::Duplicate,
        }
    }
}

enum Known {
    New,
    /// It says more than what was there.
    Better(u64),
    Duplicate,
}

/// A connect() that failed in the call, as an attempt.
pub(super) fn in_call(at: Nanos, task: Task, failed: ConnectFailed) -> Attempt {
    let flow = match &failed.endpoint {
        Endpoint::Tcp(remote) => {
            let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            any.parse().ok().map(|local| Flow { local, remote: *remote, netns: failed.netns })
        }
        Endpoint::Unix(_) => None,
    };
    Attempt {
        handover: Handover::Failed,
        endpoint: failed.endpoint,
        conn: Connection {
            cookie: failed.cookie.unwrap_or(0),
            flow,
            cgroup: failed.cgroup,
            errno: Some(failed.errno),
            in_turn: failed.in_turn,
            opened: Some(at),
            ..Connection::unseen(task, &failed.comm, Phase::Connecting)
        },
        bound: failed.bound,
        tcp: None,
        peer: None,
        listener: failed.listener,
        handshake: None,
        stream_head: Vec::new(),
    }
}
