//! One case: an attempt that failed, or an error without one, and everything that may be asked about it.

mod around;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Scope;
use crate::correlate::{Counted, Owner, Past};
use crate::host::{Activity, Host, Listeners, MemoryFacts, PathFacts, ProcessFacts};
use crate::logs::{Hint, LogError};
use crate::model::{
    Attempt, ClientError, Connection, Endpoint, Flow, Handover, Handshake, Nanos, Packet, Peer, Phase, Tcp,
};
use crate::proxies::Protocol;
use crate::wire::h2::{self, Carries, Refusal};
use crate::wire::{Looks, http, tls};

pub use around::ListenerView;

/// What the host answered, so that a case is judged on one picture however often it is asked.
#[derive(Debug, Default)]
pub struct Answers {
    process: Few<Option<Arc<ProcessFacts>>>,
    siblings: Few<Vec<ProcessFacts>>,
    activity: Few<Option<Activity>>,
    memory: Few<Option<MemoryFacts>>,
    descriptors: Few<Option<Counted>>,
    listeners: Few<Listeners>,
    netns: Option<Option<u32>>,
    path: Option<PathFacts>,
}

impl Answers {
    /// What was asked ahead of the case, because it would not hold.
    pub fn note_descriptors(&mut self, pid: u32, facts: Option<Counted>) {
        self.descriptors.of(pid, || facts);
    }
}

/// Answers about a few processes or namespaces: most errors ask about one or two.
#[derive(Debug)]
struct Few<T>(Vec<(u32, T)>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Few(Vec::new())
    }
}

impl<T> Few<T> {
    fn get(&self, id: u32) -> Option<&T> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, answer)| answer)
    }

    /// What was answered, else what is answered now.
    fn of(&mut self, id: u32, ask: impl FnOnce() -> T) -> &T {
        let at = match self.0.iter().position(|(known, _)| *known == id) {
            Some(at) => at,
            None => {
                self.0.push((id, ask()));
                self.0.len() - 1
            }
        };
        &self.0[at].1
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

/// errnos that say "not yet", not "no".
fn pending(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::EINPROGRESS | libc::EALREADY | libc::EINTR)
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
        self.endpoint().map_or_else(|| "the upstream".into(), Endpoint::place)
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

    /// It was asked in HTTP/2, and greeted as every server does, but said nothing of the request; whether that is certain.
    pub fn only_greeted(&self) -> Option<bool> {
        let conn = self.conn()?;
        self.only_control().filter(|_| h2::carries(&conn.request_head, conn.request_bytes) != Carries::Control)
    }

    /// How a server of HTTP/2 refused the request.
    pub fn refusal(&self) -> Option<Refusal> {
        let conn = self.conn().filter(|conn| !conn.blind)?;
        h2::refusal(&conn.request_head, &conn.reply_head)
    }

    /// What the proxy speaks, so that its settings are named right.
    pub fn protocol(&self) -> Protocol {
        match self.sent() {
            Looks::FastCgi => Protocol::FastCgi,
            Looks::Http2 => Protocol::Grpc,
            Looks::Tls if self.offers_http2() => Protocol::Grpc,
            Looks::Nothing => Protocol::Unknown,
            _ => Protocol::Http,
        }
    }

    /// Inside TLS the proxy means to speak HTTP/2: its hello says so, or the call of gRPC that it answered.
    fn offers_http2(&self) -> bool {
        self.conn().is_some_and(|c| tls::offers_http2(&c.request_head))
            || self.client.is_some_and(|client| client.conn.grpc.is_some())
    }

    /// When the attempt began: its request, or its connect where there was none.
    pub fn began(&self) -> Nanos {
        let Some(conn) = self.conn() else { return self.client.and_then(|c| c.conn.asked).unwrap_or(self.at) };
        conn.asked.or(conn.opened).unwrap_or(self.at)
    }

    /// How long nothing came: from the request, or from connect() while connecting.
    pub fn waited(&self) -> Nanos {
        self.gone_on().saturating_sub(self.waits_from().unwrap_or(self.at))
    }

    fn waits_from(&self) -> Option<Nanos> {
        match self.conn() {
            Some(conn) if self.connecting() => conn.opened,
            Some(conn) => conn.asked.or(conn.established),
            None => None,
        }
    }

    /// When the proxy no longer waited: some write their error first and close later.
    pub fn gone_on(&self) -> Nanos {
        match self.waits_from() {
            Some(from) if from < self.moment => self.at.min(self.moment),
            _ => self.at,
        }
    }

    /// Nothing but the beginning of a TLS handshake was sent, and no byte came back.
    pub fn mute_to_tls(&self) -> bool {
        self.sent_hello() && self.answered() == Looks::Nothing
    }

    /// All that was sent is of a TLS handshake.
    pub fn sent_hello(&self) -> bool {
        self.begins_with_hello() && self.conn().is_some_and(|c| !c.application && !c.reused)
    }

    pub fn begins_with_hello(&self) -> bool {
        self.conn().is_some_and(|c| tls::is_client_hello(http::after_proxy_header(&c.request_head)))
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
}
