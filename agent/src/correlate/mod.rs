//! From facts to incidents: the engine that joins each error of a client to the attempts that led to it.
//!
//! A single owner, fed one observation at a time. It reads no clock: time comes with the observations and with
//! [`Engine::tick`], and what a deadline leads to is judged at that deadline, so that a recording gives what the
//! live run gave. Everything it keeps is bounded; what did not fit is counted.

mod attempts;
mod content;
mod counters;
mod descriptors;
pub mod failures;
#[cfg(test)]
pub mod fixture;
pub mod flows;
mod hint;
pub mod history;
mod join;
mod judging;
mod late;
mod line_table;
#[cfg(test)]
mod line_tests;
mod lines;
mod logged;
pub mod names;
mod owner;
mod past;
mod pending;
mod pool;
mod recent;
mod report;
mod streams;
#[cfg(test)]
mod tests;
mod tries;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

pub use counters::Counters;
pub use descriptors::Counted;
pub use lines::writer as log_writer;
pub use owner::Owner;
pub use past::Past;

use self::attempts::in_call;
use self::descriptors::Descriptors;
use self::failures::Route;
use self::line_table::Lines;
use self::lines::Known as Told;
use self::owner::Owners;
use self::pending::{Pending, Pendings};
use self::recent::Recent;
use self::tries::{End, Tries, Try};
use crate::causes::Answers;
use crate::host::Host;
use crate::model::{
    Attempt, ClientError, ClientOutcome, Cookie, DeathNotice, Endpoint, ExitStatus, Fact, Handover, Nanos, Notice,
    Observation, ResetNotice, Seen, Task,
};
use crate::text::{self, MILLI, SECOND};

/// How long an attempt that the proxy gave up waits for the outcome of its client before it counts as a failure.
const OUTCOME: Nanos = SECOND;
/// A failing connect() and the close of its socket.
const SAME_CALL: Nanos = 50 * MILLI;
const DONE: usize = 65_536;
const DONE_MEMORY: Nanos = 60 * SECOND;

/// What is to be looked at again at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Try(u64),
    Pending(u64),
    Outcome(u64),
    Line(u64),
}

pub struct Engine {
    seq: u64,
    clock: Nanos,
    tries: Tries,
    pending: Pendings,
    past: Past,
    owners: Owners,
    /// Errors that were reported, so that none is twice.
    done: Recent<(Cookie, u32)>,
    lines: Lines,
    timers: BTreeSet<(Nanos, Timer)>,
    /// Attempts that wait for the exit of a process.
    exits: BTreeMap<u32, BTreeSet<u64>>,
    descriptors: Descriptors,
    out: Vec<Notice>,
    counters: Counters,
}

impl Default for Engine {
    fn default() -> Self {
        Engine::new()
    }
}

impl Engine {
    pub fn new() -> Self {
        Engine {
            seq: 0,
            clock: 0,
            tries: Tries::default(),
            pending: Pendings::default(),
            past: Past::new(),
            owners: Owners::default(),
            done: Recent::new(DONE),
            lines: Lines::default(),
            timers: BTreeSet::new(),
            exits: BTreeMap::new(),
            descriptors: Descriptors::default(),
            out: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes in what the kernel said. Deadlines that lie before it are seen to first.
    ///
    /// A record may carry a time before that of the one in front of it: what the kernel side had put aside.
    pub fn observe(&mut self, seen: Observation, host: &mut dyn Host) {
        self.past.at(seen.at);
        self.run_timers(seen.at.saturating_sub(1), host);
        self.clock = self.clock.max(seen.at);
        self.expire();
        let at = seen.at;
        match seen.fact {
            Fact::Client(error) => {
                let how = seen_as(&error);
                self.client_error(at, seen.task, error, how, host);
            }
            Fact::Attempt(attempt) => {
                let netns = attempt.conn.flow.map_or(0, |flow| flow.netns);
                if let Some(flow) = &attempt.conn.flow {
                    self.past.flows.own(at, flow);
                }
                // A unix connection is put aside when it is asked: its end shows only in the error of its client.
                let open_end = attempt.handover == Handover::Asked && attempt.conn.flow.is_none();
                let at = if open_end { self.clock } else { at };
                self.attempt(at, seen.task, *attempt, false, netns, host);
            }
            Fact::ConnectFailed(failed) => {
                if of_the_host(&failed.endpoint) {
                    return;
                }
                let task = seen.task.unwrap_or(Task { pid: 0, tid: 0 });
                let netns = failed.netns;
                self.attempt(at, seen.task, in_call(at, task, failed), true, netns, host);
            }
            Fact::ClientLeft { client, request } => {
                self.past.left.insert((client, request), at);
            }
            Fact::Rescued { client } => self.rescued(client),
            Fact::ResetSent(packet) => self.past.flows.reset(at, packet),
            Fact::Dropped(packet) => self.past.flows.dropped(at, packet),
            Fact::Listening(listening) if listening.unnamed() => {}
            Fact::Listening(listening) => self.past.history.listening(at, &listening),
            Fact::ListenerClosed(listening) => {
                self.past.history.listener_closed(at, &listening, seen.task.map(|t| t.pid));
            }
            Fact::Exec(proc) => {
                self.owners.forget(proc.pid);
                self.past.history.exec(at, &proc);
            }
            Fact::Became(proc) => self.owners.forget(proc.pid),
            Fact::Fork { parent, child } => {
                self.owners.forget(child.pid);
                self.past.history.fork(at, parent, &child);
            }
            Fact::Exit { proc, parent, status } => {
                self.death(at, &proc, parent, status);
                self.settle_exit(proc.pid, host);
                self.owners.forget(proc.pid);
            }
            Fact::Signal { target, signal, sender, from_kernel } => {
                self.past.history.signal(at, &target, signal, &sender, from_kernel);
            }
            Fact::OomKill { victim, rss_bytes } => self.past.history.oom(at, &victim, rss_bytes),
            Fact::DialFailed(dial) => {
                if let Some(task) = seen.task {
                    self.past.history.dial_failed(at, task.pid, dial);
                }
            }
            Fact::Dns(dns) => {
                if let Some(task) = seen.task {
                    self.past.names.seen(at, task.pid, &dns);
                }
            }
        }
    }

    /// Sees to the deadlines up to now. What was observed before now should have been given to `observe` first.
    pub fn tick(&mut self, now: Nanos, host: &mut dyn Host) {
        self.past.at(now);
        self.run_timers(now, host);
        self.clock = self.clock.max(now);
        self.expire();
    }

    /// Sees to every deadline there is: nothing more will come.
    pub fn finish(&mut self, host: &mut dyn Host) {
        self.finish_while(host, || true);
    }

    /// The same for as long as there is time; returns how many errors are left without an answer.
    pub fn finish_while(&mut self, host: &mut dyn Host, mut time: impl FnMut() -> bool) -> usize {
        while let Some((next, _)) = self.timers.first().copied()
            && time()
        {
            self.run_timers(next, host);
        }
        self.timers.clear();
        self.pending.len()
    }

    /// Up to when everything was taken in.
    pub fn clock(&self) -> Nanos {
        self.clock
    }

    /// When `tick` is wanted next.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What is to be told, in the order in which it was found.
    pub fn drain(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.out)
    }

    /// Kernel records were lost at about this time: for a while, what was not seen proves nothing.
    pub fn lost(&mut self, at: Nanos, records: u64) {
        self.counters.lost += records;
        self.past.lost(at);
    }

    pub fn counters(&self) -> Counters {
        Counters {
            attempts_overflow: self.tries.overflow,
            memory_overflow: self.past.overflow() + self.lines.overflow,
            done_overflow: self.done.overflow,
            ..self.counters.clone()
        }
    }

    /// An error of a client that the kernel side or a TLS library shows. One that was told before is not told again.
    pub fn client_error(&mut self, at: Nanos, task: Option<Task>, error: ClientError, seen: Seen, host: &mut dyn Host) {
        let key = (error.conn.cookie, error.conn.request);
        if !self.done.insert(key, at) && !error.conn.ahead {
            self.counters.duplicates += 1;
            return;
        }
        if let Some(oldest) = self.pending.full() {
            self.counters.pending_overflow += 1;
            self.report(oldest, self.clock, host);
        }
        // A close may be seen in the context of whoever runs just then.
        let reader = error.conn.owner;
        let task = task.filter(|t| t.pid == reader.pid || reader.pid == 0).unwrap_or(reader);
        let owner = self.owners.of(task.pid, &error.conn.comm, host).as_seen(&error.conn);
        let seq = self.next_seq();
        let lossy = self.past.lossy(error.conn.asked.unwrap_or(at), at);
        let line = None;
        let (pid, tid) = (task.pid, task.tid);
        let answers = Answers::default();
        let mut pending = Pending { seq, at, pid, tid, error, seen, owner, answers, lossy, line, logged: false };
        let mut told = Told::new(&pending, &self.tries);
        if self.lines.logged_before(&told) {
            self.counters.duplicates += 1;
            return;
        }
        if let Some(line) = self.lines.of(&mut told, &self.tries) {
            pending.attach(line.error);
        }
        self.lines.remember(told);
        // Without an attempt so far: the proxy may have none for want of descriptors, which it may soon have again.
        if self.tries.of_client(key).next().is_none() {
            let counted = self.descriptors.at(at, pending.asked(), pid, host);
            pending.answers.note_descriptors(pid, counted);
        }
        self.pending.insert(pending);
        self.resolve(seq, self.clock.max(at), host);
    }

    fn resets(&mut self, attempt: &Attempt, owner: &Owner, first: bool) {
        let Some(flow) = attempt.conn.flow.filter(|_| first) else { return };
        let since = attempt.conn.opened.unwrap_or(0);
        let mut tell = |side, reason: Option<&str>| {
            self.out.push(Notice::Reset(ResetNotice {
                proxy: owner.name.clone(),
                upstream: attempt.endpoint.place(),
                side,
                reason: reason.map_or_else(|| "unknown".into(), |r| text::clipped(r, 40)),
            }));
        };
        if attempt.conn.reset.is_some() {
            let sent = self.past.flows.resets_to(&flow, since).last().and_then(|(_, p)| p.reason.as_deref());
            tell("upstream", attempt.peer.as_ref().and_then(|p| p.reset_reason.as_deref()).or(sent));
        }
        if let Some((_, packet)) = self.past.flows.resets_from(&flow, since).last() {
            tell("proxy", packet.reason.as_deref());
        }
    }

    fn death(&mut self, at: Nanos, proc: &crate::model::Proc, parent: Option<u32>, status: ExitStatus) {
        let history = &mut self.past.history;
        let parent = history.parent_of(proc.pid).or(parent);
        let inherited = parent.and_then(|p| history.life_of(p)).is_some_and(|life| !life.listened.is_empty());
        let death = history.exit(at, proc, parent, status);
        if death.life.listened.is_empty() && !inherited {
            return;
        }
        let how = match (death.life.oom, status) {
            (Some(_), _) => "oom",
            (None, ExitStatus::Signal { .. }) => "signal",
            (None, ExitStatus::Code(_)) => "exit",
        };
        let name = text::clipped(&proc.comm, 32);
        self.out.push(Notice::Death(DeathNotice { name, how }));
    }

    /// Reports an error if everything is there that can come, or waits for it.
    fn resolve(&mut self, seq: u64, now: Nanos, host: &mut dyn Host) {
        let Some(pending) = self.pending.get(seq) else { return };
        let joined = join::join(pending, &self.tries, &self.pending, &self.past.failures);
        if let Err(at) = join::complete(pending, &joined, &self.tries, now) {
            self.timers.insert((at, Timer::Pending(seq)));
            return;
        }
        let waits = joined.own.iter().filter_map(|t| self.tries.get(*t)?.waits_until()).filter(|until| *until > now);
        if let Some(until) = waits.max() {
            self.timers.insert((until, Timer::Pending(seq)));
            return;
        }
        self.report(seq, now, host);
    }

    fn report(&mut self, seq: u64, now: Nanos, host: &mut dyn Host) {
        let Some(pending) = self.pending.get(seq) else { return };
        let mut joined = join::join(pending, &self.tries, &self.pending, &self.past.failures);
        joined.drop_checks(&self.tries, &self.past.failures);
        if joined.open {
            // Others may have the better right to them.
            joined.own.clear();
        }
        let Some(mut pending) = self.pending.remove(seq) else { return };
        let mut own: Vec<Box<Try>> = joined.own.iter().filter_map(|t| self.tries.take(*t)).collect();
        own.iter().for_each(|one| self.stop_waiting(one));
        let made = report::incident(&mut pending, &mut own, &joined, &self.past, now, host);
        let unserved = own.is_empty();
        for mut one in own {
            let seq = one.seq;
            one.told = Some(pending.at);
            one.served = joined.doubt.is_none().then(|| pending.served(&one.attempt)).flatten().or(one.served);
            // An error that the upstream made a client see is its failure, whoever ended the attempt.
            let failed = made.is_some() && (one.cause().is_some() || one.end != End::Well);
            let (group, endpoint) = (one.owner.group, one.attempt.endpoint.clone());
            self.tries.give_back_used(one);
            if failed {
                self.count_failure(seq);
                if let Some(route) = Route::of(&pending.error.conn.request_head) {
                    self.past.failures.concerned(group, &endpoint, &route, joined.doubt.is_none());
                }
            }
        }
        if unserved {
            self.pending.leave_unserved(&pending);
        }
        match made {
            Some(incident) => {
                self.counters.count(&incident);
                self.out.push(Notice::Incident(Box::new(incident)));
            }
            None => self.counters.dismissed += 1,
        }
    }

    fn run_timers(&mut self, now: Nanos, host: &mut dyn Host) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Try(seq) => self.look_again(seq, at, host),
                Timer::Pending(seq) => self.resolve(seq, at, host),
                Timer::Outcome(seq) => self.outcome(seq),
                Timer::Line(seq) => self.line_alone(seq, at, host),
            }
        }
    }

    fn expire(&mut self) {
        self.past.expire(self.clock);
        self.tries.expire(self.clock);
        self.lines.expire(self.clock);
        self.done.forget_before(self.clock.saturating_sub(DONE_MEMORY));
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }
}

fn seen_as(error: &ClientError) -> Seen {
    match error.outcome {
        ClientOutcome::Status(_) if error.conn.secured => Seen::Tls,
        ClientOutcome::Status(_) => Seen::Wire,
        ClientOutcome::Garbled => Seen::Garbled,
        ClientOutcome::Closed => Seen::Closed,
        ClientOutcome::Unseen => Seen::Inferred,
    }
}

/// Sockets of the host itself, which libraries dial on the way to something else: name cache, log, bus.
fn of_the_host(endpoint: &Endpoint) -> bool {
    const PLACES: [&str; 5] = ["/nscd/", "/dev/log", "/run/systemd/", "/run/dbus/", "/lib/sss/"];
    matches!(endpoint, Endpoint::Unix(path) if PLACES.iter().any(|place| path.contains(place)))
}
