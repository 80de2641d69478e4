//! The two hosts of a recording: one writes down what another answers, one answers what was written down.

use std::collections::VecDeque;
use std::io::{Read, Seek};
use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

use super::{Answer, Entry, Exchange, Question, Reader, RecordingError, Tape};
use crate::host::{Activity, DescriptorFacts, Host, Listeners, MemoryFacts, PathFacts, ProcessFacts};
use crate::model::Nanos;

/// Answers that may wait to be asked for, so that a hostile file does not fill the memory.
const WAITING: usize = 4096;

/// Asks another host and writes down what it says, if there is a tape to write on.
pub struct RecordingHost<H> {
    inner: H,
    tape: Option<Tape>,
}

impl<H> RecordingHost<H> {
    pub fn new(inner: H, tape: Option<Tape>) -> Self {
        Self { inner, tape }
    }

    pub fn inner(&mut self) -> &mut H {
        &mut self.inner
    }

    fn note<T: Clone>(&self, question: impl FnOnce() -> Question, answer: T, wrap: fn(T) -> Answer) -> T {
        if let Some(tape) = &self.tape {
            tape.asked(Exchange { question: question(), answer: wrap(answer.clone()) });
        }
        answer
    }
}

impl<H: Host> Host for RecordingHost<H> {
    fn wall_micros(&mut self, at: Nanos) -> i64 {
        let answer = self.inner.wall_micros(at);
        self.note(|| Question::WallMicros(at), answer, Answer::WallMicros)
    }

    fn process(&mut self, pid: u32) -> Option<Arc<ProcessFacts>> {
        let answer = self.inner.process(pid);
        self.note(|| Question::Process(pid), answer, |facts| Answer::Process(facts.map(Arc::unwrap_or_clone)))
    }

    fn siblings(&mut self, like: &ProcessFacts) -> Vec<ProcessFacts> {
        let answer = self.inner.siblings(like);
        self.note(|| Question::Siblings(like.pid), answer, Answer::Siblings)
    }

    fn activity(&mut self, pid: u32) -> Option<Activity> {
        let answer = self.inner.activity(pid);
        self.note(|| Question::Activity(pid), answer, Answer::Activity)
    }

    fn memory(&mut self, pid: u32) -> Option<MemoryFacts> {
        let answer = self.inner.memory(pid);
        self.note(|| Question::Memory(pid), answer, Answer::Memory)
    }

    fn descriptors(&mut self, pid: u32) -> Option<DescriptorFacts> {
        let answer = self.inner.descriptors(pid);
        self.note(|| Question::Descriptors(pid), answer, Answer::Descriptors)
    }

    fn listeners(&mut self, netns: u32) -> Listeners {
        let answer = self.inner.listeners(netns);
        self.note(|| Question::Listeners(netns), answer, |listeners| Answer::Listeners(listeners.to_vec()))
    }

    fn netns_of(&mut self, addr: IpAddr, prefer: u32) -> Option<u32> {
        let answer = self.inner.netns_of(addr, prefer);
        self.note(|| Question::NetnsOf(addr, prefer), answer, Answer::NetnsOf)
    }

    fn path(&mut self, pid: u32, path: &str) -> PathFacts {
        let answer = self.inner.path(pid, path);
        self.note(|| Question::Path(pid, path.to_owned()), answer, Answer::Path)
    }

    fn symbol(&mut self, address: u64) -> Option<String> {
        let answer = self.inner.symbol(address);
        self.note(|| Question::Symbol(address), answer, Answer::Symbol)
    }
}

/// A question that the recording does not answer where it was asked: the rules changed since, or entries were lost.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    #[error("after entry {step} the recording has no answer to {asked:?}")]
    NoAnswer { step: u64, asked: Question },
    #[error("after entry {step} {asked:?} was asked before {recorded:?}, which came first in the recording")]
    Order { step: u64, asked: Question, recorded: Question },
    #[error("after entry {step} {count} recorded answers were not asked for, {first:?} first")]
    Unasked { step: u64, count: usize, first: Question },
}

/// Plays a recording: hands out what happened, and answers with what the host said then.
///
/// What the recording does not answer is not known. The first mismatch is kept, the others are counted.
pub struct Replay<R> {
    reader: Reader<R>,
    /// The next thing that happened, read ahead while its predecessor's answers were collected.
    ahead: Option<Entry>,
    answers: VecDeque<Exchange>,
    step: u64,
    mismatch: Option<Mismatch>,
    mismatches: u64,
}

impl<R: Read + Seek> Replay<R> {
    pub fn new(reader: Reader<R>) -> Self {
        Self { reader, ahead: None, answers: VecDeque::new(), step: 0, mismatch: None, mismatches: 0 }
    }

    pub fn reader(&self) -> &Reader<R> {
        &self.reader
    }

    /// The next thing that happened; what was asked after it can be asked of `self` until the next call.
    pub fn next_step(&mut self) -> Result<Option<Entry>, RecordingError> {
        if let Some(first) = self.answers.front() {
            let unasked =
                Mismatch::Unasked { step: self.step, count: self.answers.len(), first: first.question.clone() };
            self.differs(unasked);
            self.answers.clear();
        }
        let step = loop {
            let entry = match self.ahead.take() {
                Some(entry) => Some(entry),
                None => self.reader.next_entry()?,
            };
            match entry {
                // Asked before anything happened, or more than could wait.
                Some(Entry::Asked(_)) => self.mismatches += 1,
                other => break other,
            }
        };
        self.step += 1;
        while step.is_some() && self.answers.len() < WAITING {
            match self.reader.next_entry()? {
                Some(Entry::Asked(exchange)) => self.answers.push_back(*exchange),
                other => {
                    self.ahead = other;
                    break;
                }
            }
        }
        Ok(step)
    }

    pub fn mismatch(&self) -> Option<&Mismatch> {
        self.mismatch.as_ref()
    }

    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }

    fn differs(&mut self, mismatch: Mismatch) {
        self.mismatches += 1;
        self.mismatch.get_or_insert(mismatch);
    }

    fn answer(&mut self, asked: Question) -> Option<Answer> {
        let Some(at) = self.answers.iter().position(|exchange| exchange.question == asked) else {
            self.differs(Mismatch::NoAnswer { step: self.step, asked });
            return None;
        };
        if let Some(first) = self.answers.front().filter(|_| at > 0) {
            let recorded = first.question.clone();
            self.differs(Mismatch::Order { step: self.step, asked, recorded });
        }
        self.answers.remove(at).map(|exchange| exchange.answer)
    }
}

/// The answer of the right kind, else what stands for "not known".
macro_rules! answered {
    ($self:ident, $kind:ident, $question:expr, $unknown:expr) => {
        match $self.answer($question) {
            Some(Answer::$kind(answer)) => answer,
            _ => $unknown,
        }
    };
}

impl<R: Read + Seek> Host for Replay<R> {
    fn wall_micros(&mut self, at: Nanos) -> i64 {
        let header = self.reader.header();
        let since = (i128::from(at) - i128::from(header.started)) / 1000;
        let reckoned = i64::try_from(i128::from(header.started_wall_micros) + since).unwrap_or(i64::MAX);
        answered!(self, WallMicros, Question::WallMicros(at), reckoned)
    }

    fn process(&mut self, pid: u32) -> Option<Arc<ProcessFacts>> {
        answered!(self, Process, Question::Process(pid), None).map(Arc::new)
    }

    fn siblings(&mut self, like: &ProcessFacts) -> Vec<ProcessFacts> {
        answered!(self, Siblings, Question::Siblings(like.pid), Vec::new())
    }

    fn activity(&mut self, pid: u32) -> Option<Activity> {
        answered!(self, Activity, Question::Activity(pid), None)
    }

    fn memory(&mut self, pid: u32) -> Option<MemoryFacts> {
        answered!(self, Memory, Question::Memory(pid), None)
    }

    fn descriptors(&mut self, pid: u32) -> Option<DescriptorFacts> {
        answered!(self, Descriptors, Question::Descriptors(pid), None)
    }

    fn listeners(&mut self, netns: u32) -> Listeners {
        let listeners = answered!(self, Listeners, Question::Listeners(netns), Vec::new());
        listeners.into()
    }

    fn netns_of(&mut self, addr: IpAddr, prefer: u32) -> Option<u32> {
        answered!(self, NetnsOf, Question::NetnsOf(addr, prefer), None)
    }

    fn path(&mut self, pid: u32, path: &str) -> PathFacts {
        answered!(self, Path, Question::Path(pid, path.to_owned()), PathFacts::default())
    }

    fn symbol(&mut self, address: u64) -> Option<String> {
        answered!(self, Symbol, Question::Symbol(address), None)
    }
}
