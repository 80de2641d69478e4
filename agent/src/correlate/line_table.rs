//! Lines that wait for their error and errors that wait for their lines, found by what they share.
//!
//! A flood of errors is a flood of lines: nobody looks at all of either. A line and an error that both have the path of
//! their request fit only if it is the same; of those that have it the ones next to each other in time come first.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::lines::{Known, Line, NEAR, Topic, alone, is_end, same_request, writer};
use super::tries::Tries;
use crate::logs::{Format, Hint};
use crate::model::{Cookie, Nanos};
use crate::wire::http;

/// A line that is read now may tell of an error of this long before it says at most.
const LONG_AGO: Nanos = 2 * NEAR;
/// Attempts of one request lie minutes apart at most.
const MEMORY: Nanos = 120 * crate::text::SECOND;
const LINES: usize = 4_096;
const ERRORS: usize = 8_192;

/// Where an error lies in time, and its number: two may have the same time.
type Moment = (Nanos, u64);

/// Whose log has told the end of an error first.
type Ended = Option<Format>;
const ENDED: [Ended; 6] = [
    None,
    Some(Format::Nginx),
    Some(Format::NginxAccess),
    Some(Format::Haproxy),
    Some(Format::Apache),
    Some(Format::Caddy),
];

#[derive(Debug, Default)]
pub struct Lines {
    /// In the order in which they were read.
    waiting: BTreeMap<u64, Line>,
    waiting_by: BTreeSet<(Topic, u64)>,
    known: BTreeMap<Moment, Box<Known>>,
    known_by: BTreeSet<(Ended, Topic, Moment)>,
    /// Those whose bytes could not be read.
    unread: BTreeSet<Moment>,
    /// Those that a log told first: hardly any, while each error asks for them.
    logged: BTreeSet<(Topic, Moment)>,
    number: u64,
    #[cfg(test)]
    pub looked_at: std::cell::Cell<u64>,
    /// Lines and errors forgotten because there were too many.
    pub overflow: u64,
}

impl Lines {
    /// The error that the line tells again. It will not be found for the same end twice.
    pub fn told_before(&mut self, line: &Line, tries: &Tries) -> Option<(Cookie, u32)> {
        let end = is_end(&line.error);
        let mut search = Search { line, tries, end, alone: OnceCell::new(), best: None };
        let here = (line.to, u64::MAX);
        let first = (line.from.saturating_sub(LONG_AGO), 0);
        let last = (Nanos::MAX, u64::MAX);
        match line.topic() {
            None => {
                search.walk(self, self.known.range(first..=here).rev().map(|(moment, _)| *moment));
                search.walk(self, self.known.range(here..).map(|(moment, _)| *moment));
            }
            topic => {
                for ended in ENDED.into_iter().filter(|ended| !end || *ended != Some(line.error.format)) {
                    for topic in [topic, None] {
                        let of = |from, to| self.known_by.range((ended, topic, from)..=(ended, topic, to));
                        search.walk(self, of(first, here).rev().map(|(_, _, moment)| *moment));
                        search.walk(self, of(here, last).map(|(_, _, moment)| *moment));
                    }
                }
            }
        }
        let (_, Reverse(moment)) = search.best?;
        self.change(moment, |known| known.learn(line));
        self.known.get(&moment).map(|known| known.key)
    }

    /// Whether the line tells the end of a request that is told otherwise, although nobody can say which one.
    pub fn covered(&mut self, line: &Line) -> bool {
        let error = &line.error;
        let near = (line.from.saturating_sub(NEAR), 0)..=(line.to.saturating_add(NEAR), u64::MAX);
        let unseen = || {
            let newest = self.unread.range(near.clone()).rev();
            newest.filter_map(|moment| Some((*moment, self.known.get(moment)?)))
        };
        match error.format {
            // After a failed attempt no other upstream was left: one error, in two lines of one connection.
            Format::Nginx if unseen().next().is_some() => {
                let same = |l: &&Line| l.error.pid == error.pid && l.error.connection == error.connection;
                let attempts: Vec<&Line> = self.waiting.values().filter(|l| !is_end(&l.error)).filter(same).collect();
                unseen().any(|(_, known)| attempts.iter().any(|attempt| known.tried(attempt)))
            }
            Format::NginxAccess => {
                let told = |l: &Line| l.error.format == Format::Nginx && is_end(&l.error) && l.request == line.request;
                if line.request.is_some() && self.like(line.topic()).any(told) {
                    return true;
                }
                let fits = |known: &Known| {
                    let ip = known.client.map(|client| client.ip());
                    ip == error.client && !known.ends.contains(&error.format)
                };
                let found = unseen().find(|(_, known)| fits(known)).map(|(moment, _)| moment);
                found.map(|moment| self.change(moment, |known| known.ends.push(error.format))).is_some()
            }
            Format::Nginx | Format::Haproxy | Format::Apache | Format::Caddy => false,
        }
    }

    /// The error that a log told before the wire did.
    pub fn logged_before(&mut self, error: &Known) -> bool {
        let agree = |known: &Known| match (&known.request, &error.request) {
            (Some(a), Some(b)) => same_request(a, b),
            _ => known.client.is_some() && known.client == error.client,
        };
        let same = |known: &Known| {
            self.count();
            known.kind == error.kind
                && (known.pid == error.pid || known.pid == 0)
                && !known.differs(known.status, error.status)
                && agree(known)
        };
        let (from, to) = ((error.at.saturating_sub(NEAR), 0), (error.at.saturating_add(NEAR), u64::MAX));
        let oldest = |topic: Topic| {
            let near = self.logged.range((topic, from)..=(topic, to));
            near.map(|(_, moment)| *moment).find(|moment| self.known.get(moment).is_some_and(|known| same(known)))
        };
        let found = match error.topic() {
            None => {
                let all = self.logged.iter().map(|(_, moment)| *moment).filter(|at| (from..=to).contains(at));
                all.filter(|moment| self.known.get(moment).is_some_and(|known| same(known))).min()
            }
            topic => oldest(topic).into_iter().chain(oldest(None)).min(),
        };
        let Some(moment) = found else { return false };
        let topic = self.known.get(&moment).and_then(|known| known.topic());
        self.logged.remove(&(topic, moment));
        true
    }

    pub fn remember(&mut self, known: Known) {
        if self.known.len() >= ERRORS {
            self.forget_first();
            self.overflow += 1;
        }
        self.number += 1;
        let moment = (known.at, self.number);
        if known.logged {
            self.logged.insert((known.topic(), moment));
        }
        if !known.readable {
            self.unread.insert(moment);
        }
        self.known_by.insert(place(&known, moment));
        self.known.insert(moment, Box::new(known));
    }

    pub fn wait(&mut self, line: Line) {
        if self.waiting.len() >= LINES
            && let Some((oldest, _)) = self.waiting.first_key_value()
        {
            let oldest = *oldest;
            self.take(oldest);
            self.overflow += 1;
        }
        self.waiting_by.insert((line.topic(), line.seq));
        self.waiting.insert(line.seq, line);
    }

    /// Takes the lines that tell of this error: all of its attempts, and its end once. The one that says most comes
    /// back.
    pub fn of(&mut self, known: &mut Known, tries: &Tries) -> Option<Line> {
        let (mut ends, mut attempts) = (Vec::new(), Vec::new());
        for line in self.concerning(known) {
            self.count();
            if is_end(&line.error) { ends.push(line.seq) } else { attempts.push(line.seq) }
        }
        let fit = |known: &Known, seq: &u64| known.fit(self.waiting.get(seq)?);
        let end = ends.iter().filter_map(|seq| Some((fit(known, seq)?, *seq))).max();
        let end = end.and_then(|(_, seq)| self.take(seq));
        if let Some(end) = &end {
            known.learn(end);
        }
        // An attempt that may be another request's is left for it: the client must agree.
        attempts.sort_unstable();
        let attempts = attempts.iter().filter_map(|seq| self.waiting.get(seq));
        let attempts = attempts.filter(|line| known.fit(line).is_some_and(|fit| fit > 1));
        let mut meant: Vec<&Line> = attempts.filter(|line| known.readable || alone(line, tries)).collect();
        // One connection of its client has one number.
        let likeliest = meant.iter().max_by_key(|line| known.asked_where(line));
        if let Some(connection) = likeliest.and_then(|line| line.error.connection) {
            meant.retain(|line| line.error.connection.is_none_or(|other| other == connection));
        }
        let meant: Vec<u64> = meant.iter().map(|line| line.seq).collect();
        let mut last = None;
        for line in meant.into_iter().filter_map(|seq| self.take(seq)) {
            known.learn(&line);
            last = Some(line);
        }
        match end {
            Some(end) if !matches!(end.error.hint, Hint::StatusOnly) => Some(end),
            end => last.or(end),
        }
    }

    /// The line whose time is up, if it speaks for itself. An access log says only that a request failed: what the
    /// error log said of its attempt comes with it.
    pub fn alone(&mut self, seq: u64) -> Option<Line> {
        self.waiting.get(&seq).filter(|line| is_end(&line.error))?;
        let line = self.take(seq)?;
        if line.error.hint != Hint::StatusOnly {
            return Some(line);
        }
        let path = |line: &Line| line.request.as_ref().map(|request: &http::Request| request.path().to_owned());
        let own = path(&line);
        let same = |other: &&Line| {
            own.is_some()
                && path(other) == own
                && writer(other.error.format) == writer(line.error.format)
                && other.error.client == line.error.client
                && other.from <= line.to
        };
        let attempt = self.like(line.topic()).filter(same).map(|other| other.seq).max();
        Some(match attempt.and_then(|seq| self.take(seq)) {
            Some(mut attempt) => {
                attempt.error.status = line.error.status;
                attempt
            }
            None => line,
        })
    }

    pub fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(MEMORY);
        while let Some((seq, _)) = self.waiting.first_key_value().filter(|(_, line)| line.read < before) {
            let seq = *seq;
            self.take(seq);
        }
        while self.known.first_key_value().is_some_and(|((at, _), _)| *at < before) {
            self.forget_first();
        }
    }

    /// Lines that may be about the same path.
    fn like(&self, topic: Topic) -> impl Iterator<Item = &Line> {
        let of = |topic: Topic| self.waiting_by.range((topic, 0)..=(topic, u64::MAX)).map(|(_, seq)| *seq);
        let alike = topic.map(|_| of(topic).chain(of(None)));
        let all = if topic.is_none() { Some(self.waiting.keys().copied()) } else { None };
        alike.into_iter().flatten().chain(all.into_iter().flatten()).filter_map(|seq| self.waiting.get(&seq))
    }

    /// Lines that may tell of this error.
    fn concerning(&self, known: &Known) -> impl Iterator<Item = &Line> {
        let (topic, earliest) = (known.topic(), known.earliest());
        // The last ones are all that may tell of what cannot be read.
        let late = topic.is_none() && !known.readable;
        let newest = late.then(|| self.waiting.values().rev().take_while(move |line| line.read >= earliest));
        let others = if late { None } else { Some(self.like(topic)) };
        newest.into_iter().flatten().chain(others.into_iter().flatten())
    }

    fn take(&mut self, seq: u64) -> Option<Line> {
        let line = self.waiting.remove(&seq)?;
        self.waiting_by.remove(&(line.topic(), seq));
        Some(line)
    }

    /// Changes what is known of an error, and by what it is found.
    fn change(&mut self, moment: Moment, change: impl FnOnce(&mut Known)) {
        let Some(known) = self.known.get_mut(&moment) else { return };
        let (before, topic) = (place(known, moment), known.topic());
        change(known);
        let after = place(known, moment);
        if before != after {
            self.known_by.remove(&before);
            self.known_by.insert(after);
        }
        if after.1 != topic && self.logged.remove(&(topic, moment)) {
            self.logged.insert((after.1, moment));
        }
    }

    fn forget_first(&mut self) {
        let Some((moment, known)) = self.known.pop_first() else { return };
        self.known_by.remove(&place(&known, moment));
        self.unread.remove(&moment);
        self.logged.remove(&(known.topic(), moment));
    }

    fn count(&self) {
        #[cfg(test)]
        self.looked_at.set(self.looked_at.get() + 1);
    }
}

fn place(known: &Known, moment: Moment) -> (Ended, Topic, Moment) {
    (known.ends.first().copied(), known.topic(), moment)
}

/// How well an error fits a line: by what agrees, by where it was tried, by nearness.
type Rank = (u32, bool, Reverse<Nanos>);

/// The search for the error that a line tells.
struct Search<'a> {
    line: &'a Line,
    tries: &'a Tries,
    end: bool,
    /// Whether the line can mean only one attempt.
    alone: OnceCell<bool>,
    best: Option<(Rank, Reverse<Moment>)>,
}

impl Search<'_> {
    /// Looks at these, the nearest first, until none can fit better.
    fn walk(&mut self, lines: &Lines, moments: impl Iterator<Item = Moment>) {
        for moment in moments {
            let distance = Reverse(moment.0.abs_diff(self.line.to));
            if self.best.is_some_and(|(best, _)| best > (self.line.most(), true, distance)) {
                return;
            }
            let Some(known) = lines.known.get(&moment) else { continue };
            lines.count();
            // The end of a request is told near it.
            if self.end && moment.0 > self.line.to.saturating_add(NEAR) {
                return;
            }
            if let Some(fit) = self.fit(known) {
                let found = ((fit, known.asked_where(self.line), distance), Reverse(moment));
                self.best = self.best.max(Some(found));
            }
        }
    }

    /// Of an attempt, something must agree: it may be another request's, whose error is still to come.
    fn fit(&self, known: &Known) -> Option<u32> {
        let fit = known.fit(self.line).filter(|fit| self.end || *fit > 1)?;
        let alone = || self.end || *self.alone.get_or_init(|| alone(self.line, self.tries));
        (known.readable || alone()).then_some(fit)
    }
}
