//! Failed attempts that wait for the error of their client, or for a fact that settles their cause.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::owner::Owner;
use super::turns::Served;
use crate::causes::{Answers, Cause, Finding, Wait};
use crate::model::{Attempt, Cookie, Endpoint, Nanos};
use crate::text::SECOND;

/// Attempts of one request may lie minutes apart: timeouts add up.
const MEMORY: Nanos = 600 * SECOND;
const TRIES: usize = 32_768;
/// Those that an incident has are asked for only while their connection may still be heard of, or a line of their log
/// is on its way: a storm must not fill the memory with them.
const USED: usize = 4_096;
/// How many of a process's last attempts are looked at where only content can decide.
const LOOKED_AT: usize = 256;

/// A failed attempt.
#[derive(Debug)]
pub struct Try {
    pub seq: u64,
    pub at: Nanos,
    pub pid: u32,
    pub tid: u32,
    pub attempt: Attempt,
    /// connect() failed in the call itself.
    pub in_call: bool,
    pub netns: u32,
    pub owner: Owner,
    pub answers: Answers,
    pub state: State,
    pub end: End,
    /// It was counted as a failure, or is known to be none.
    pub settled: bool,
    /// An incident has it.
    pub used: bool,
    /// When the error that has it was told to its client.
    pub told: Option<Nanos>,
    /// Which request it served, where what was sent tells.
    pub served: Option<Served>,
}

#[derive(Debug)]
pub enum State {
    Waiting(Wait),
    Judged(Option<(&'static Cause, Box<Finding>)>),
}

/// Who ended the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It failed by itself: an error, a reset, a close by the other side, an answer that is none.
    Failed,
    /// The proxy stopped waiting.
    GivenUp,
    /// It looked well, as far as could be seen.
    Well,
}

impl Try {
    pub fn key(&self) -> Option<(Cookie, u32)> {
        self.attempt.bound.map(|b| (b.client, b.request))
    }

    pub fn cause(&self) -> Option<&'static str> {
        match &self.state {
            State::Judged(Some((cause, _))) => Some(cause.id),
            _ => None,
        }
    }

    /// When it began: its request, or its connect where there was none. (A connection may be opened ahead.)
    pub fn began(&self) -> Nanos {
        let conn = &self.attempt.conn;
        conn.asked.or(conn.opened).unwrap_or(self.at)
    }

    pub fn waits_until(&self) -> Option<Nanos> {
        match &self.state {
            State::Waiting(wait) => Some(wait.until),
            State::Judged(_) => None,
        }
    }
}

/// Attempts and what they are looked up by. The indices are flat, and no attempt lies in a tree itself: a flood adds and
/// takes away one with each error, and neither a tree of its own for each client nor moving its neighbours is free.
#[derive(Debug, Default)]
pub struct Tries {
    all: BTreeMap<u64, Box<Try>>,
    by_client: BTreeSet<(Cookie, u32, u64)>,
    by_pid: BTreeSet<(u32, u64)>,
    by_conn: BTreeMap<(Cookie, u32), u64>,
    /// By thread: those that the kernel side bound to no request.
    unbound: BTreeSet<(u32, u64)>,
    /// By thread: those that failed in the call and had no socket's identity.
    nameless: BTreeSet<(u32, u64)>,
    /// Those that incidents have, in that order.
    used: VecDeque<u64>,
    #[cfg(test)]
    pub looked_at: std::cell::Cell<u64>,
    /// Forgotten before their client's outcome was known, because there were too many.
    pub overflow: u64,
}

impl Tries {
    pub fn insert(&mut self, new: Try) {
        let seq = new.seq;
        if let Some((client, request)) = new.key() {
            self.by_client.insert((client, request, seq));
        } else {
            self.unbound.insert((new.tid, seq));
        }
        self.by_pid.insert((new.pid, seq));
        if new.attempt.conn.cookie != 0 {
            self.by_conn.insert((new.attempt.conn.cookie, new.attempt.conn.request), seq);
        } else if new.in_call {
            self.nameless.insert((new.tid, seq));
        }
        self.all.insert(seq, Box::new(new));
    }

    /// Lends one: what it is looked up by must not change, and it must come back.
    pub fn take(&mut self, seq: u64) -> Option<Box<Try>> {
        self.all.remove(&seq)
    }

    pub fn give_back(&mut self, one: Box<Try>) {
        self.all.insert(one.seq, one);
    }

    /// Takes back one that an incident has now, with nothing that only its judgement needed.
    pub fn give_back_used(&mut self, mut one: Box<Try>) {
        one.answers = Answers::default();
        if !std::mem::replace(&mut one.used, true) {
            self.used.push_back(one.seq);
        }
        self.give_back(one);
        if self.used.len() > USED
            && let Some(oldest) = self.used.pop_front()
        {
            self.remove(oldest);
        }
    }

    /// Makes room; the ones that go are the oldest.
    pub fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(MEMORY);
        while let Some((seq, first)) = self.all.first_key_value() {
            let full = self.all.len() > TRIES;
            if first.at >= before && !full {
                return;
            }
            self.overflow += u64::from(full && !first.used);
            let seq = *seq;
            self.remove(seq);
        }
    }

    pub fn remove(&mut self, seq: u64) -> Option<Box<Try>> {
        let gone = self.all.remove(&seq)?;
        if let Some((client, request)) = gone.key() {
            self.by_client.remove(&(client, request, seq));
        } else {
            self.unbound.remove(&(gone.tid, seq));
        }
        self.by_pid.remove(&(gone.pid, seq));
        let conn = (gone.attempt.conn.cookie, gone.attempt.conn.request);
        if conn.0 == 0 && gone.in_call {
            self.nameless.remove(&(gone.tid, seq));
        }
        if self.by_conn.get(&conn) == Some(&seq) {
            self.by_conn.remove(&conn);
        }
        Some(gone)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn get(&self, seq: u64) -> Option<&Try> {
        #[cfg(test)]
        self.looked_at.set(self.looked_at.get() + 1);
        self.all.get(&seq).map(Box::as_ref)
    }

    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Try> {
        self.all.get_mut(&seq).map(Box::as_mut)
    }

    /// Those bound to this client request at their birth.
    pub fn of_client(&self, (client, request): (Cookie, u32)) -> impl Iterator<Item = &Try> {
        let own = self.by_client.range((client, request, 0)..=(client, request, u64::MAX));
        own.filter_map(|(_, _, seq)| self.get(*seq))
    }

    /// The last ones of this process.
    pub fn of_process(&self, pid: u32) -> impl Iterator<Item = &Try> {
        newest(&self.by_pid, pid).take(LOOKED_AT).filter_map(|seq| self.get(seq))
    }

    /// The last ones of this thread that are bound to no request.
    pub fn unbound(&self, pid: u32, tid: u32) -> impl Iterator<Item = &Try> {
        let last = newest(&self.unbound, tid).take(LOOKED_AT);
        last.filter_map(|seq| self.get(seq)).filter(move |t| t.pid == pid)
    }

    pub fn of_connection(&self, cookie: Cookie, request: u32) -> Option<u64> {
        self.by_conn.get(&(cookie, request)).copied().filter(|_| cookie != 0)
    }

    /// A failing connect() of this thread that had no socket's identity.
    pub fn nameless(&self, pid: u32, tid: u32, endpoint: &Endpoint, since: Nanos) -> Option<u64> {
        let recent = newest(&self.nameless, tid).filter_map(|seq| self.get(seq)).take_while(|t| t.at >= since);
        let mut same = recent.filter(|t| t.pid == pid && t.attempt.endpoint == *endpoint);
        same.next().map(|t| t.seq)
    }
}

/// Attempts of one process or thread, from the last to the first.
fn newest(index: &BTreeSet<(u32, u64)>, id: u32) -> impl Iterator<Item = u64> {
    index.range((id, 0)..=(id, u64::MAX)).rev().map(|(_, seq)| *seq)
}
