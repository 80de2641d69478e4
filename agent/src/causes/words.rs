//! A case in words: names, addresses and moments as sentences and evidence show them.

use super::{Case, Note};
use crate::model::{Handover, Nanos};
use crate::proxies::Setting;
use crate::text::{self, sentence};

impl Case<'_> {
    /// `uvicorn (pid 812)`.
    pub fn who(&self, pid: u32) -> String {
        let name = self.name(pid).unwrap_or_else(|| "a process".into());
        format!("{name} (pid {pid})")
    }

    pub fn name(&self, pid: u32) -> Option<String> {
        let facts = self.process(pid);
        let name = facts.as_ref().map(|p| p.name.as_str()).or_else(|| self.past.history.comm_of(pid))?;
        Some(text::clipped(name, 40))
    }

    /// `uvicorn (pid 812)`, or `the upstream` where its process is not known.
    pub fn server_name(&self) -> String {
        self.server().map_or_else(|| "the upstream".into(), |pid| self.who(pid))
    }

    /// What an operator restarts: the unit, the container, or the process.
    pub fn service(&self, pid: u32) -> String {
        let facts = self.process(pid);
        let unit = facts.as_ref().and_then(|f| f.unit.as_deref()).map(|u| text::clipped(u, 60));
        let container = || {
            let facts = facts.as_ref()?;
            let label = facts.container_name.as_ref().or(facts.container.as_ref())?;
            Some(format!("container {}", text::clipped(label, 100)))
        };
        unit.or_else(container).unwrap_or_else(|| self.who(pid))
    }

    /// What lets the service of this process take more at once, where its kind is known.
    pub fn workers_of(&self, pid: Option<u32>) -> Option<String> {
        let name = pid.and_then(|pid| self.name(pid))?;
        let settings = match name.as_str() {
            fpm if fpm.starts_with("php-fpm") => "pm.max_children and listen.backlog of the pool that listens there",
            "gunicorn" => "--workers (or --threads) and --backlog",
            "uwsgi" => "--processes and --listen",
            _ => return None,
        };
        Some(format!("{name}: see {settings}"))
    }

    /// What this proxy calls a setting, in a sentence: `raise {}`.
    pub fn advise(&self, setting: Setting, sentence: &str) -> Option<String> {
        let name = (self.owner.kind.setting)(setting, self.protocol())?;
        let (before, after) = sentence.split_once("{}").unwrap_or((sentence, ""));
        Some([&self.owner.name, ": ", before, name, after].concat())
    }

    /// `41 ms before`.
    pub fn ago(&self, at: Nanos) -> String {
        match self.moment.checked_sub(at) {
            Some(gap) => format!("{} before", text::duration(gap)),
            None => format!("{} after", text::duration(at - self.moment)),
        }
    }

    /// What happened to the attempt itself, as it happened.
    pub fn timeline(&self) -> Vec<Note> {
        let (Some(attempt), Some(conn)) = (self.attempt, self.conn()) else { return Vec::new() };
        let mut notes = Vec::new();
        let mut note = |at: Option<Nanos>, kind, text: String| {
            if let Some(at) = at {
                notes.push(Note { at, kind, text });
            }
        };
        let name = &self.owner.name;
        let place = self.place();
        if !conn.reused {
            note(conn.opened, "connect", sentence(format_args!("{name} connects to {place}")));
            if let Some(established) = conn.established {
                let took = conn.opened.map(|opened| text::duration(established.saturating_sub(opened)));
                let took = took.unwrap_or_else(|| "a moment".into());
                note(Some(established), "connected", sentence(format_args!("connected after {took}")));
            }
        }
        if conn.asked.is_some() {
            let sent = text::count(conn.request_bytes, "byte");
            let reused = match conn.reused {
                true => format!(" as request {} on this connection", conn.request),
                false => String::new(),
            };
            let what = if self.sent_hello() { "TLS hello" } else { "request" };
            note(conn.asked, "request_sent", sentence(format_args!("{what} sent{reused} ({sent} so far)")));
        }
        note(conn.fin, "fin_received", "the upstream closed its side (FIN)".into());
        note(conn.reset, "rst_received", "the connection was reset (RST)".into());
        if let Some(peer) = &attempt.peer {
            let by = peer.closed_by.map_or_else(|| "its owner".into(), |pid| self.who(pid));
            let unread = match peer.unread {
                0 => String::new(),
                n => format!(" with {} unread", text::count(n.into(), "byte")),
            };
            note(peer.closed, "peer_closed", format!("{by} closed its end{unread}"));
        }
        if let Some(errno) = self.errno() {
            let call = if self.connecting() { "connect()" } else { "the socket" };
            note(Some(self.at), "errno", sentence(format_args!("{call} gave {name} {}", text::errno(errno))));
        } else if attempt.handover == Handover::Answered {
            // The answer was the news: the connection goes on.
        } else if self.unanswered() || (self.gave_up() && (self.no_answer() || self.only_control().is_some())) {
            note(
                Some(self.gone_on()),
                "gave_up",
                format!("{name} stopped waiting after {}", text::duration(self.waited())),
            );
        } else if self.gave_up() {
            note(Some(self.at), "closed", format!("{name} closed the connection"));
        }
        notes
    }
}
