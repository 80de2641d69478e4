//! One case: an attempt that failed, or an error without one, and everything that may be asked about it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Scope;
use crate::correlate::{Counted, Owner, Past};
use crate::host::{self, Activity, Host, ListenerFacts, Listeners, MemoryFacts, PathFacts, ProcessFacts};
use crate::logs::{Hint, LogError};
use crate::model::{
    Attempt, ClientError, Connection, Endpoint, Flow, Handover, Handshake, ListenerSeen, Nanos, Packet, Peer, Phase,
    Tcp,
};
use crate::proxies::Protocol;
use crate::text;
use crate::wire::Looks;
use crate::wire::h2::{self, Carries};

/// What the host answered, so that a case is judged on one picture however often it is asked.
#[derive(Debug, Default)]
pub struct Answers {
    process: BTreeMap<u32, Option<ProcessFacts>>,
    siblings: BTreeMap<u32, Vec<ProcessFacts>>,
    activity: BTreeMap<u32, Option<Activity>>,
    memory: BTreeMap<u32, Option<MemoryFacts>>,
    descriptors: BTreeMap<u32, Option<Counted>>,
    listeners: BTreeMap<u32, Listeners>,
    netns: Option<Option<u32>>,
    path: Option<PathFacts>,
}

impl Answers {
    /// What was asked ahead of the case, because it would not hold.
    pub fn note_descriptors(&mut self, pid: u32, facts: Option<Counted>) {
        self.descriptors.insert(pid, facts);
    }
}

pub struct Case<'a> {
    pub attempt: Option<&'a Attempt>,
    /// connect() failed in the call itself.
    pub in_call: bool,
    /// Namespace of the proxy's socket.
    pub netns: u32,
    /// When the attempt ended or the error was written.
    pub at: Nanos,
    /// What sentences count from: the same, or the later error of the client.
    pub moment: Nanos,
    /// Up to when facts are known.
    pub now: Nanos,
    pub owner: &'a Owner,
    pub client: Option<&'a ClientError>,
    /// What the proxy's log says of it.
    pub line: Option<&'a LogError>,
    pub past: &'a Past,
    pub host: RefCell<&'a mut dyn Host>,
    pub answers: RefCell<&'a mut Answers>,
}

/// The listener that an attempt was meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerView {
    pub endpoint: Endpoint,
    pub pid: Option<u32>,
    pub queue: u32,
    pub limit: u32,
    /// The figures are of the moment of the failure, or of shortly before or after it.
    pub then: bool,
    /// They are the kernel's own of that very moment.
    pub exact: bool,
    /// Others listen on the same address and have room: the connection may have been meant for one of them.
    pub shared: bool,
    /// It is known to have listened when the attempt began.
    pub before: bool,
}

impl ListenerView {
    /// The kernel takes one more than the limit before it is full.
    pub fn full(&self) -> bool {
        self.queue > self.limit
    }
}

/// errnos that say "not yet", not "no".
fn pending(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::EINPROGRESS | libc::EALREADY | libc::EINTR)
}

/// Of the sockets that share an address, the one that speaks for them: if one overflowed, it is the fullest. `known`
/// listens there, too.
fn of_those<'a>(
    first: &'a ListenerFacts,
    others: impl Iterator<Item = &'a ListenerFacts>,
    known: Option<u32>,
) -> ListenerView {
    let full = |l: &ListenerFacts| l.queue > l.limit;
    let (mut fullest, mut all_full, mut one_owner, mut alone) = (first, full(first), true, true);
    for other in others {
        alone = false;
        all_full &= full(other);
        one_owner &= other.pid == first.pid;
        if i64::from(other.queue) - i64::from(other.limit) > i64::from(fullest.queue) - i64::from(fullest.limit) {
            fullest = other;
        }
    }
    let pid = match alone {
        true => known.or(first.pid),
        false => fullest.pid.filter(|_| one_owner || full(fullest)),
    };
    let (endpoint, queue, limit) = (first.endpoint.clone(), fullest.queue, fullest.limit);
    ListenerView { endpoint, pid, queue, limit, then: true, exact: false, shared: !alone && !all_full, before: false }
}

impl<'a> Case<'a> {
    /// What the proxy itself says went wrong, in its log.
    pub fn said(&self) -> Option<&'a Hint> {
        self.line.map(|line| &line.hint)
    }

    pub fn in_scope(&self, scope: Scope) -> bool {
        match scope {
            Scope::Attempt => self.attempt.is_some(),
            Scope::NoAttempt => self.attempt.is_none(),
            Scope::Both => true,
        }
    }

    // --- the attempt ---

    pub fn conn(&self) -> Option<&'a Connection> {
        self.attempt.map(|attempt| &attempt.conn)
    }

    pub fn tcp(&self) -> Option<Tcp> {
        self.attempt.and_then(|attempt| attempt.tcp)
    }

    pub fn peer(&self) -> Option<&'a Peer> {
        self.attempt.and_then(|attempt| attempt.peer.as_ref())
    }

    /// What the proxy's TLS library made of the handshake.
    pub fn handshake(&self) -> Option<Handshake> {
        self.attempt.and_then(|attempt| attempt.handshake)
    }

    pub fn endpoint(&self) -> Option<&'a Endpoint> {
        self.attempt.map(|attempt| &attempt.endpoint)
    }

    pub fn target(&self) -> Option<SocketAddr> {
        match self.endpoint()? {
            Endpoint::Tcp(addr) => Some(*addr),
            Endpoint::Unix(_) => None,
        }
    }

    pub fn is_unix(&self) -> bool {
        matches!(self.endpoint(), Some(Endpoint::Unix(_)))
    }

    /// The address, for a sentence.
    pub fn place(&self) -> String {
        self.endpoint().map_or_else(|| "the upstream".into(), |e| text::clipped(&e.to_string(), 140))
    }

    pub fn phase(&self) -> Option<Phase> {
        let conn = self.conn()?;
        match conn.phase {
            // Established, then ended before the owner noticed that it was connected.
            Phase::Connecting if conn.established.is_some() => Some(Phase::Open),
            phase => Some(phase),
        }
    }

    pub fn connecting(&self) -> bool {
        self.phase() == Some(Phase::Connecting)
    }

    /// The errno that says why it failed.
    pub fn errno(&self) -> Option<i32> {
        let conn = self.conn()?;
        let errno = conn.errno.filter(|e| *e > 0 && (!pending(*e) || (self.in_call && *e == libc::EAGAIN)))?;
        // Closing with SO_LINGER 0 leaves this on one's own socket: a reset that nobody sent.
        let own = errno == libc::ECONNRESET && !self.is_unix() && conn.reset.is_none();
        (!own).then_some(errno)
    }

    pub fn failed_with(&self, errnos: &[i32]) -> bool {
        self.errno().is_some_and(|e| errnos.contains(&e))
    }

    /// connect() was refused.
    pub fn refused(&self) -> bool {
        self.connecting()
            && (self.errno() == Some(libc::ECONNREFUSED)
                || (self.errno().is_none() && self.conn().is_some_and(|c| c.reset.is_some())))
    }

    /// connect() got no answer.
    pub fn unanswered(&self) -> bool {
        self.connecting()
            && !self.is_unix()
            && self.conn().is_some_and(|c| c.reset.is_none())
            && matches!(self.errno(), None | Some(libc::ETIMEDOUT))
    }

    pub fn was_reset(&self) -> bool {
        !self.connecting()
            && (self.conn().is_some_and(|c| c.reset.is_some())
                || self.failed_with(&[libc::ECONNRESET, libc::EPIPE]) && !self.ended_orderly())
    }

    fn ended_orderly(&self) -> bool {
        self.conn().is_some_and(|c| c.fin.is_some() && c.reset.is_none())
    }

    /// The upstream ended it without a reset. On a unix socket, where an end has no time of its own, a failure
    /// without errno that the proxy did not begin is one.
    pub fn was_closed(&self) -> bool {
        if self.connecting() || self.was_reset() {
            return false;
        }
        let Some(attempt) = self.attempt else { return false };
        attempt.conn.fin.is_some()
            || (self.is_unix() && self.errno().is_none() && !attempt.conn.closed_first && self.unix_end(attempt))
    }

    /// It failed by itself, or its other end was gone when it was looked at.
    fn unix_end(&self, attempt: &Attempt) -> bool {
        attempt.handover == Handover::Failed || attempt.peer.as_ref().is_some_and(|p| !p.live)
    }

    pub fn broken(&self) -> bool {
        self.was_reset() || self.was_closed()
    }

    /// Connected, nothing wrong on the wire: the proxy stopped waiting.
    pub fn gave_up(&self) -> bool {
        self.attempt.is_some()
            && !self.connecting()
            && !self.broken()
            && matches!(self.errno(), None | Some(libc::ETIMEDOUT))
    }

    /// No byte of an answer came.
    pub fn no_answer(&self) -> bool {
        // Inside TLS the head stays that of the handshake.
        self.conn().is_some_and(|c| c.reply_bytes == 0 && (c.reply_head.is_empty() || c.application))
    }

    pub fn reply(&self) -> &'a [u8] {
        self.conn().map_or(&[], |c| &c.reply_head)
    }

    pub fn sent(&self) -> Looks {
        let Some(conn) = self.conn() else { return Looks::Nothing };
        match Looks::of_request(&conn.request_head) {
            // Later requests of a connection begin without the preface.
            Looks::Binary if conn.reused && h2::begins_request(&conn.request_head) => Looks::Http2,
            looks => looks,
        }
    }

    pub fn answered(&self) -> Looks {
        match Looks::of_answer(self.reply()) {
            Looks::Binary | Looks::Named(_) if self.sent() == Looks::Http2 && h2::is_frame(self.reply()) => {
                Looks::Http2
            }
            looks => looks,
        }
    }

    /// Frames of HTTP/2 came, and as far as they were kept none of them answers a request: `true` where that is all
    /// that came.
    pub fn only_control(&self) -> Option<bool> {
        let conn = self.conn().filter(|_| self.sent() == Looks::Http2 && self.answered() == Looks::Http2)?;
        match h2::carries(&conn.reply_head, conn.reply_bytes) {
            Carries::Streams => None,
            came => Some(came == Carries::Control && !conn.blind),
        }
    }

    /// What the proxy speaks, so that its settings are named right.
    pub fn protocol(&self) -> Protocol {
        match self.sent() {
            Looks::FastCgi => Protocol::FastCgi,
            Looks::Http2 => Protocol::Grpc,
            Looks::Nothing => Protocol::Unknown,
            _ => Protocol::Http,
        }
    }

    /// When the attempt began: its request, or its connect where there was none.
    pub fn began(&self) -> Nanos {
        let Some(conn) = self.conn() else { return self.client.and_then(|c| c.conn.asked).unwrap_or(self.at) };
        conn.asked.or(conn.opened).unwrap_or(self.at)
    }

    /// How long nothing came: from the request, or from connect() while connecting.
    pub fn waited(&self) -> Nanos {
        let from = match self.conn() {
            Some(conn) if self.connecting() => conn.opened,
            Some(conn) => conn.asked.or(conn.established),
            None => None,
        };
        self.at.saturating_sub(from.unwrap_or(self.at))
    }

    pub fn flow(&self) -> Option<Flow> {
        self.conn()?.flow
    }

    /// Resets that the other end's stack sent on this flow.
    pub fn resets_received(&self) -> Vec<(Nanos, &'a Packet)> {
        let since = self.conn().and_then(|c| c.opened).unwrap_or_else(|| self.began());
        self.flow().map(|flow| self.past.flows.resets_to(&flow, since).collect()).unwrap_or_default()
    }

    /// Packets of this flow that this host dropped.
    pub fn drops(&self) -> Vec<(Nanos, &'a Packet)> {
        let since = self.conn().and_then(|c| c.opened).unwrap_or_else(|| self.began());
        self.flow().map(|flow| self.past.flows.drops(&flow, since).collect()).unwrap_or_default()
    }

    /// Whether the proxy's own answer says that it had no upstream left; `None` where that cannot be told.
    pub fn says_none_left(&self) -> Option<bool> {
        self.client?.conn.says(self.owner.kind.none_word?)
    }

    /// The proxy's own answer says that it tried an upstream.
    pub fn says_tried(&self) -> bool {
        let tried = self.owner.kind.pool.as_ref().zip(self.client).and_then(|(pool, c)| c.conn.says(pool.tried));
        tried == Some(true)
    }

    /// Records were lost while it went on: what was not seen proves nothing.
    pub fn lossy(&self) -> bool {
        // Why a listener is gone was to be seen when it went.
        let gone = super::death::lost_listener(self).and_then(|l| l.closed);
        let from = gone.unwrap_or(self.at).min(self.began());
        self.past.lossy(from, self.at)
    }

    // --- the other side ---

    /// The namespace of this host in which the target lives; `None`: another host, as far as is known.
    pub fn target_netns(&self) -> Option<u32> {
        let attempt = self.attempt?;
        let Endpoint::Tcp(addr) = &attempt.endpoint else { return Some(self.netns) };
        if let Some(peer) = attempt.peer.as_ref().filter(|p| p.netns != 0) {
            return Some(peer.netns);
        }
        let mut answers = self.answers.borrow_mut();
        let known = answers.netns.get_or_insert_with(|| self.host.borrow_mut().netns_of(addr.ip(), self.netns));
        // That no listener was found in the proxy's own namespace says nothing of where the target is.
        known.or_else(|| {
            let here = addr.ip().is_loopback()
                || matches!(attempt.listener, ListenerSeen::Present { .. } | ListenerSeen::Shared);
            here.then_some(self.netns)
        })
    }

    /// The target's address belongs to this host.
    pub fn is_local(&self) -> bool {
        self.target_netns().is_some()
    }

    pub fn listeners(&self) -> Listeners {
        let Some(netns) = self.target_netns() else { return Listeners::default() };
        let mut answers = self.answers.borrow_mut();
        answers.listeners.entry(netns).or_insert_with(|| self.host.borrow_mut().listeners(netns)).clone()
    }

    /// The listener that takes what this attempt dialled.
    pub fn listener(&self) -> Option<ListenerView> {
        let attempt = self.attempt?;
        let netns = self.target_netns()?;
        let known = self.past.history.open(&attempt.endpoint, Some(netns));
        let began = self.began();
        match attempt.listener {
            ListenerSeen::Absent if netns == self.netns => return None,
            ListenerSeen::Present { pid, queue, limit, .. } => {
                let endpoint = known.map_or_else(|| attempt.endpoint.clone(), |l| l.endpoint.clone());
                let before = known.is_none_or(|l| l.since <= began);
                // Of very many that shared the address, it may not be known who is left.
                let pid = Some(pid).filter(|pid| *pid != 0);
                return Some(ListenerView {
                    endpoint,
                    pid,
                    queue,
                    limit,
                    then: pid.is_some(),
                    exact: pid.is_some(),
                    shared: false,
                    before,
                });
            }
            ListenerSeen::Absent | ListenerSeen::Unknown | ListenerSeen::Shared => {}
        }
        let takes = |l: &ListenerFacts| match &attempt.endpoint {
            Endpoint::Tcp(addr) => host::takes(l, *addr),
            unix => l.endpoint == *unix,
        };
        let before = known.is_some_and(|l| l.since <= began);
        // Asked about when the attempt ended.
        let all = self.listeners();
        let mut takers = all.iter().filter(|l| takes(l));
        if let Some(first) = takers.next() {
            let endpoint = first.endpoint.clone();
            let known = known.map(|l| l.pid);
            let others = takers.filter(|l| l.endpoint == first.endpoint);
            return Some(ListenerView { endpoint, before, ..of_those(first, others, known) });
        }
        if attempt.listener == ListenerSeen::Shared {
            let endpoint = attempt.endpoint.clone();
            return Some(ListenerView {
                endpoint,
                pid: None,
                queue: 0,
                limit: 0,
                then: false,
                exact: false,
                shared: true,
                before,
            });
        }
        // What it had when it began to listen says nothing of later.
        let known = known?;
        let endpoint = known.endpoint.clone();
        let (pid, limit) = (Some(known.pid), known.limit);
        Some(ListenerView { endpoint, pid, queue: 0, limit, then: false, exact: false, shared: false, before })
    }

    /// The process that serves (or served) this upstream.
    pub fn server(&self) -> Option<u32> {
        let holder = self.peer().and_then(|p| p.read_by.or(p.closed_by)).filter(|pid| *pid != self.owner.pid);
        holder.or_else(|| self.listener().and_then(|l| l.pid))
    }

    // --- questions to the host ---

    pub fn process(&self, pid: u32) -> Option<ProcessFacts> {
        let mut answers = self.answers.borrow_mut();
        answers.process.entry(pid).or_insert_with(|| self.host.borrow_mut().process(pid)).clone()
    }

    pub fn siblings(&self, like: &ProcessFacts) -> Vec<ProcessFacts> {
        let mut answers = self.answers.borrow_mut();
        answers.siblings.entry(like.pid).or_insert_with(|| self.host.borrow_mut().siblings(like)).clone()
    }

    pub fn activity(&self, pid: u32) -> Option<Activity> {
        let mut answers = self.answers.borrow_mut();
        answers.activity.entry(pid).or_insert_with(|| self.host.borrow_mut().activity(pid)).clone()
    }

    pub fn memory(&self, pid: u32) -> Option<MemoryFacts> {
        let mut answers = self.answers.borrow_mut();
        answers.memory.entry(pid).or_insert_with(|| self.host.borrow_mut().memory(pid)).clone()
    }

    /// As they were when the error came; asked now they would be those of another moment.
    pub fn descriptors(&self, pid: u32) -> Option<Counted> {
        self.answers.borrow().descriptors.get(&pid).copied().flatten()
    }

    /// The unix socket's path as the proxy sees it.
    pub fn path(&self) -> Option<PathFacts> {
        let Some(Endpoint::Unix(path)) = self.endpoint() else { return None };
        let mut answers = self.answers.borrow_mut();
        let pid = self.owner.pid;
        Some(answers.path.get_or_insert_with(|| self.host.borrow_mut().path(pid, path)).clone())
    }

    pub fn symbol(&self, address: u64) -> Option<String> {
        self.host.borrow_mut().symbol(address).map(|s| text::clipped(&s, 60))
    }
}
