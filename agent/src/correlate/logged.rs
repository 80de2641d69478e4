//! The door for lines of proxies' logs, and what becomes of errors that cannot be read on the wire.

use super::lines::{self, Known, Line};
use super::pending::Pending;
use super::{Engine, Timer};
use crate::causes::Answers;
use crate::host::Host;
use crate::logs::LogError;
use crate::model::{ClientError, ClientOutcome, Connection, Cookie, Flow, Nanos, Phase, Seen, Task};

/// Connections that nothing but a log told of are numbered from here; the kernel's cookies are small.
const NAMELESS: Cookie = 1 << 63;

impl Engine {
    /// A proxy's log told of an error. `error.pid` is a process of this host, as [`Host`] knows it.
    ///
    /// Deadlines stay as they are: the line was written some time before it was read, and may answer one of them.
    pub fn log(&mut self, at: Nanos, error: &LogError, host: &mut dyn Host) {
        self.counters.lines += 1;
        let seq = self.next_seq();
        let line = Line::new(seq, at, host.wall_micros(at), error.clone());
        let Some(key) = self.lines.told_before(&line, &self.tries) else {
            if self.lines.covered(&line) {
                self.counters.duplicates += 1;
                return;
            }
            self.timers.insert((at.saturating_add(lines::GRACE), Timer::Line(seq)));
            self.lines.wait(line);
            return;
        };
        // Told already: then it is the same error once more. Still open: the log may know more.
        if let Some(seq) = self.pending.seq_of(key) {
            if let Some(pending) = self.pending.get_mut(seq) {
                pending.attach(line.error);
            }
            self.resolve(seq, self.clock, host);
        }
    }

    /// Nothing else showed the error that this line tells.
    pub(super) fn line_alone(&mut self, seq: u64, now: Nanos, host: &mut dyn Host) {
        let Some(line) = self.lines.alone(seq) else { return };
        if self.lines.covered(&line) {
            self.counters.duplicates += 1;
            return;
        }
        self.counters.logged += 1;
        let at = line.to;
        let kind = lines::writer(line.error.format);
        let pid = line.error.pid.unwrap_or(0);
        let owner = self.owners.of(pid, kind, host);
        let task = Task { pid, tid: line.error.tid.unwrap_or(pid) };
        let error = told(&line, task, kind);
        let seq = self.next_seq();
        let lossy = self.past.lossy(at, at);
        let pending = Pending {
            seq,
            at,
            pid,
            tid: task.tid,
            error,
            seen: Seen::Log,
            owner,
            answers: Answers::default(),
            lossy,
            line: Some(Box::new(line.error)),
            logged: true,
        };
        if let Some(oldest) = self.pending.full() {
            self.counters.pending_overflow += 1;
            self.report(oldest, self.clock, host);
        }
        self.lines.remember(Known::new(&pending, &self.tries));
        self.done.insert(pending.key(), at);
        self.pending.insert(pending);
        self.resolve(seq, now, host);
    }

    /// An upstream answered after all: what was inferred of this client was none.
    pub(super) fn rescued(&mut self, client: Cookie) {
        for seq in self.pending.inferred(client) {
            self.pending.remove(seq);
            self.counters.dismissed += 1;
        }
    }
}

/// The error as the log tells it. What it does not say is not known.
fn told(line: &Line, owner: Task, comm: &str) -> ClientError {
    let nowhere = match line.client() {
        Some(client) if client.is_ipv6() => "[::]:0",
        _ => "0.0.0.0:0",
    };
    let flow = line.client().zip(nowhere.parse().ok()).map(|(remote, local)| Flow { local, remote, netns: 0 });
    let outcome = match line.error.status {
        Some(status) => ClientOutcome::Status(status),
        None => ClientOutcome::Unseen,
    };
    ClientError {
        outcome,
        conn: Connection {
            cookie: NAMELESS | line.seq,
            flow,
            blind: true,
            status: line.error.status,
            request_head: lines::head(&line.error),
            ..Connection::unseen(owner, comm, Phase::Answered)
        },
    }
}
