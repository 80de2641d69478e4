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

#[derive(Debug, Default)]
pub struct Tries {
    all: BTreeMap<u64, Try>,
    by_client: BTreeMap<(Cookie, u32), BTreeSet<u64>>,
    by_pid: BTreeMap<u32, BTreeSet<u64>>,
    by_conn: BTreeMap<(Cookie, u32), u64>,
    /// By thread: those that the kernel side bound to no request.
    unbound: BTreeMap<u32, BTreeSet<u64>>,
    /// By thread: those that failed in the call and had no socket's identity.
    nameless: BTreeMap<u32, BTreeSet<u64>>,
    /// Those that incidents have, in that order.
    used: VecDeque<u64>,
    /// Forgotten before their client's outcome was known, because there were too many.
    pub overflow: u64,
}

impl Tries {
    pub fn insert(&mut self, new: Try) {
        if let Some(key) = new.key() {
            self.by_client.entry(key).or_default().insert(new.seq);
        } else {
            self.unbound.entry(new.tid).or_default().insert(new.seq);
        }
        self.by_pid.entry(new.pid).or_default().insert(new.seq);
        if new.attempt.conn.cookie != 0 {
            self.by_conn.insert((new.attempt.conn.cookie, new.attempt.conn.request), new.seq);
        } else if new.in_call {
            self.nameless.entry(new.tid).or_default().insert(new.seq);
        }
        self.all.insert(new.seq, new);
    }

    /// Takes back one that an incident has now, with nothing that only its judgement needed.
    pub fn insert_used(&mut self, mut one: Try) {
        one.answers = Answers::default();
        if !std::mem::replace(&mut one.used, true) {
            self.used.push_back(one.seq);
        }
        self.insert(one);
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

    pub fn remove(&mut self, seq: u64) -> Option<Try> {
        let gone = self.all.remove(&seq)?;
        if let Some(key) = gone.key() {
            drop_from(&mut self.by_client, key, seq);
        }
        drop_from(&mut self.by_pid, gone.pid, seq);
        drop_from(&mut self.unbound, gone.tid, seq);
        drop_from(&mut self.nameless, gone.tid, seq);
        let conn = (gone.attempt.conn.cookie, gone.attempt.conn.request);
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
        self.all.get(&seq)
    }

    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Try> {
        self.all.get_mut(&seq)
    }

    /// Those bound to this client request at their birth.
    pub fn of_client(&self, key: (Cookie, u32)) -> impl Iterator<Item = &Try> {
        self.by_client.get(&key).into_iter().flatten().filter_map(|seq| self.all.get(seq))
    }

    /// The last ones of this process.
    pub fn of_process(&self, pid: u32) -> impl Iterator<Item = &Try> {
        let seqs = self.by_pid.get(&pid).into_iter().flatten().rev().take(LOOKED_AT);
        seqs.filter_map(|seq| self.all.get(seq))
    }

    /// The last ones of this thread that are bound to no request.
    pub fn unbound(&self, pid: u32, tid: u32) -> impl Iterator<Item = &Try> {
        let seqs = self.unbound.get(&tid).into_iter().flatten().rev().take(LOOKED_AT);
        seqs.filter_map(|seq| self.all.get(seq)).filter(move |t| t.pid == pid)
    }

    pub fn of_connection(&self, cookie: Cookie, request: u32) -> Option<u64> {
        self.by_conn.get(&(cookie, request)).copied().filter(|_| cookie != 0)
    }

    /// A failing connect() of this thread that had no socket's identity.
    pub fn nameless(&self, pid: u32, tid: u32, endpoint: &Endpoint, since: Nanos) -> Option<u64> {
        let seqs = self.nameless.get(&tid).into_iter().flatten().rev();
        let recent = seqs.filter_map(|seq| self.all.get(seq)).take_while(|t| t.at >= since);
        let mut same = recent.filter(|t| t.pid == pid && t.attempt.endpoint == *endpoint);
        same.next().map(|t| t.seq)
    }
}

fn drop_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<u64>>, key: K, seq: u64) {
    if let Some(seqs) = index.get_mut(&key) {
        seqs.remove(&seq);
        if seqs.is_empty() {
            index.remove(&key);
        }
    }
}
