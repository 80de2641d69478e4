//! Errors of clients whose attempts are still being gathered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::content::{Content, compare};
use super::owner::Owner;
use super::turns::Served;
use crate::causes::Answers;
use crate::logs::LogError;
use crate::model::{Attempt, ClientError, ClientOutcome, Connection, Cookie, Nanos, Seen};
use crate::proxies::{Birth, Closes};
use crate::text::MILLI;

/// The kernel side hands over an attempt that looked well right after the error; this is how long that may take.
pub const HANDED_OVER: Nanos = MILLI;
/// The same where no attempt is known yet: the proxy's log may say why there is none.
pub const NOTHING: Nanos = 30 * MILLI;
/// Where it is not known whether a proxy closes or writes first.
pub const CLOSES_NEAR: Nanos = 40 * MILLI;
/// A proxy that writes first closes the upstream at once, unless it has to wait for a processor in between.
pub const CLOSES_AFTER: Nanos = 400 * MILLI;
/// Its failing connect() calls were before; a close may still come.
pub const IN_CALL: Nanos = 5 * MILLI;
/// What was inferred waits for the line of a log that tells it, and for an answer that shows it was none.
pub const INFERRED: Nanos = 300 * MILLI;
/// The same where the proxy waits for a second before it tries again.
pub const TRIED_AGAIN: Nanos = 1_200 * MILLI;
const PENDING: usize = 8_192;
const UNSERVED: usize = 256;

#[derive(Debug)]
pub struct Pending {
    pub seq: u64,
    pub at: Nanos,
    pub pid: u32,
    pub tid: u32,
    pub error: ClientError,
    pub seen: Seen,
    pub owner: Owner,
    pub answers: Answers,
    /// Kernel records were lost while it was gathered or before.
    pub lossy: bool,
    /// What the proxy's log says of it.
    pub line: Option<Box<LogError>>,
    /// Only the log told of it: nothing is known of its connection.
    pub logged: bool,
}

impl Pending {
    pub fn key(&self) -> (Cookie, u32) {
        (self.error.conn.cookie, self.error.conn.request)
    }

    /// This request as the one that an attempt served, if its bytes say so.
    pub fn served(&self, attempt: &Attempt) -> Option<Served> {
        let (client, request) = self.key();
        let same = compare(&self.error.conn, attempt) >= Content::Same;
        self.asked().filter(|_| same).map(|asked| Served { client, request, asked })
    }

    pub fn asked(&self) -> Option<Nanos> {
        self.error.conn.asked
    }

    /// The last moment at which an attempt of it may still be told.
    pub fn until(&self) -> Nanos {
        let window = match self.owner.kind.closes {
            _ if self.logged => 0,
            _ if self.seen == Seen::Inferred && self.owner.kind.retries_later => TRIED_AGAIN,
            _ if self.seen == Seen::Inferred => INFERRED,
            Closes::BeforeWrite => NOTHING,
            Closes::AfterWrite => CLOSES_AFTER,
            Closes::Either => CLOSES_NEAR,
        };
        self.at.saturating_add(window)
    }

    /// Something else says what was seen already: a line of the log, which knows more than the encrypted wire.
    pub fn attach(&mut self, line: LogError) {
        if self.error.outcome == ClientOutcome::Unseen {
            self.seen = Seen::Log;
            self.error.outcome = line.status.map_or(ClientOutcome::Unseen, ClientOutcome::Status);
        }
        if self.line.as_ref().is_none_or(|old| super::lines::is_end(&line) && !super::lines::is_end(old)) {
            self.line = Some(Box::new(line));
        }
    }

    /// The client's own bytes say nothing.
    pub fn unreadable(&self) -> bool {
        self.line.is_some() || self.seen == Seen::Inferred
    }

    /// Only attempts bound to its own connection, or to none, can belong to it.
    fn bound(&self) -> bool {
        self.exact() && !self.logged && !self.error.conn.stream && self.owner.kind.closes == Closes::BeforeWrite
    }

    pub fn exact(&self) -> bool {
        let moved = self.error.conn.stream && self.owner.kind.streams_move;
        self.owner.kind.birth == Birth::Exact && !moved
    }
}

#[derive(Debug, Default)]
pub struct Pendings {
    all: BTreeMap<u64, Box<Pending>>,
    by_client: BTreeMap<(Cookie, u32), u64>,
    by_pid: BTreeSet<(u32, u64)>,
    /// Those of a process that an attempt for another client may concern.
    loose: BTreeSet<(u32, u64)>,
    /// The last streams for which no attempt was found, with process and time: one that looks like theirs may be.
    unserved: VecDeque<(u32, Nanos, Connection)>,
}

impl Pendings {
    /// The oldest must go first when this says so.
    pub fn full(&self) -> Option<u64> {
        (self.all.len() >= PENDING).then(|| self.all.keys().next().copied()).flatten()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn insert(&mut self, pending: Pending) {
        self.by_client.insert(pending.key(), pending.seq);
        self.by_pid.insert((pending.pid, pending.seq));
        if !pending.bound() {
            self.loose.insert((pending.pid, pending.seq));
        }
        self.all.insert(pending.seq, Box::new(pending));
    }

    pub fn remove(&mut self, seq: u64) -> Option<Box<Pending>> {
        let gone = self.all.remove(&seq)?;
        if self.by_client.get(&gone.key()) == Some(&seq) {
            self.by_client.remove(&gone.key());
        }
        self.by_pid.remove(&(gone.pid, seq));
        self.loose.remove(&(gone.pid, seq));
        Some(gone)
    }

    /// It is told without an attempt.
    pub fn leave_unserved(&mut self, gone: &Pending) {
        if gone.error.conn.stream {
            self.unserved.push_back((gone.pid, gone.at, gone.error.conn.clone()));
        }
        if self.unserved.len() > UNSERVED {
            self.unserved.pop_front();
        }
    }

    /// Those of the same process that waited at the same time as this one.
    pub fn unserved(&self, pending: &Pending) -> impl Iterator<Item = &Connection> {
        let (pid, at, asked) = (pending.pid, pending.at, pending.asked().unwrap_or(pending.at));
        let together = move |gone: &&(u32, Nanos, Connection)| {
            gone.0 == pid && gone.1 >= asked && gone.2.asked.is_some_and(|since| since <= at)
        };
        self.unserved.iter().filter(together).map(|(_, _, conn)| conn)
    }

    pub fn get(&self, seq: u64) -> Option<&Pending> {
        self.all.get(&seq).map(Box::as_ref)
    }

    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Pending> {
        self.all.get_mut(&seq).map(Box::as_mut)
    }

    pub fn seq_of(&self, key: (Cookie, u32)) -> Option<u64> {
        self.by_client.get(&key).copied()
    }

    /// What was inferred of this client and is not told yet.
    pub fn inferred(&self, client: Cookie) -> Vec<u64> {
        let own = self.by_client.range((client, 0)..=(client, u32::MAX)).map(|(_, seq)| *seq);
        own.filter(|seq| self.get(*seq).is_some_and(|pending| pending.seen == Seen::Inferred)).collect()
    }

    /// Those of this process.
    pub fn of_process(&self, pid: u32) -> impl Iterator<Item = &Pending> {
        self.by_pid.range((pid, 0)..=(pid, u64::MAX)).filter_map(|(_, seq)| self.get(*seq))
    }

    pub fn of_client(&self, key: (Cookie, u32)) -> Option<&Pending> {
        self.by_client.get(&key).and_then(|seq| self.get(*seq))
    }

    /// Those that an attempt of this process, for this request, may settle: its own, its neighbours where requests are
    /// pipelined, and those that nothing binds.
    pub fn concerned(&self, pid: u32, key: Option<(Cookie, u32)>) -> Vec<u64> {
        let of = |index: &BTreeSet<(u32, u64)>| index.range((pid, 0)..=(pid, u64::MAX)).map(|(_, seq)| *seq).collect();
        let Some((client, request)) = key else { return of(&self.by_pid) };
        let own = self.by_client.range((client, request.saturating_sub(1))..=(client, request.saturating_add(1)));
        let mut found: Vec<u64> = of(&self.loose);
        found.extend(own.map(|(_, seq)| *seq));
        found.sort_unstable();
        found.dedup();
        found
    }
}
