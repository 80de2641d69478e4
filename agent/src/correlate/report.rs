//! Makes the record of an error and its attempts, or finds that it is no incident.

use std::cell::RefCell;
use std::sync::Arc;

use super::Past;
use super::failures::Route;
use super::join::Joined;
use super::lines;
use super::pending::Pending;
use super::tries::{End, State, Try};
use crate::causes::death::STOPS;
use crate::causes::{self, Case, Cause, Finding, Opinion, Verdict};
use crate::host::{Host, ProcessFacts};
use crate::logs::{Hint, LogError};
use crate::model::{
    AttemptSummary, ClientOutcome, Confidence, Evidence, Group, Handover, Incident, Nanos, Process, RECORD_VERSION,
    Request, Upstream,
};
use crate::proxies::Birth;
use crate::text::{self, Address, MILLI, SECOND, sentence};
use crate::wire::{Looks, http};

/// A proxy that gives up sooner did not wait for an answer.
const WAITED: Nanos = 250 * MILLI;
/// A proxy that was told to stop this long ago may be closing everything.
const STOPPING: Nanos = 5 * SECOND;

/// What was found of the last attempt, or of an error without one.
struct Judgement {
    cause: Option<(&'static Cause, Finding)>,
    timeline: Vec<causes::Note>,
    server: Option<Process>,
    why: Option<(&'static str, String)>,
}

pub fn incident(
    pending: &mut Pending,
    own: &mut [Box<Try>],
    joined: &Joined,
    past: &Past,
    now: Nanos,
    host: &mut dyn Host,
) -> Option<Incident> {
    pending.lossy |= past.lossy(pending.asked().unwrap_or(pending.at), pending.at);
    let judgement = match own.last_mut() {
        Some(last) => of_attempt(pending, last, past, now, host),
        None if joined.open => of_several(pending),
        None => of_nothing(pending, past, now, host),
    };
    if !counts(pending, own, joined, &judgement, past) {
        return None;
    }
    Some(compose(pending, own, joined, judgement, host))
}

fn of_attempt(pending: &Pending, last: &mut Try, past: &Past, now: Nanos, host: &mut dyn Host) -> Judgement {
    let known = match &last.state {
        State::Judged(Some((cause, finding))) => Some((*cause, finding)),
        _ => None,
    };
    let case = Case {
        attempt: Some(&last.attempt),
        in_call: last.in_call,
        netns: last.netns,
        at: last.at,
        moment: pending.at,
        now,
        owner: &last.owner,
        client: Some(&pending.error),
        line: pending.line.as_deref(),
        past,
        host: RefCell::new(host),
        answers: RefCell::new(&mut last.answers),
    };
    // Asked again, so that its sentences count from the error that the client saw.
    let cause = match known {
        Some((cause, finding)) => match cause.ask(&case) {
            Verdict::Yes(finding) => Some((cause, *finding)),
            Verdict::No | Verdict::NotYet(_) => Some((cause, (**finding).clone())),
        },
        None => match causes::judge(&case) {
            Opinion::Found(cause, finding) => Some((cause, finding)),
            Opinion::Wait(_) | Opinion::None => None,
        },
    };
    let server = cause.as_ref().and_then(|(_, f)| f.process).or_else(|| case.server());
    let server = server.map(|pid| process(&case, pid));
    let why = cause.is_none().then(|| unexplained(&case, pending.lossy));
    let timeline = case.timeline();
    if let (State::Judged(None) | State::Waiting(_), Some((cause, finding))) = (&last.state, &cause) {
        last.state = State::Judged(Some((cause, Box::new(finding.clone()))));
    }
    Judgement { cause, timeline, server, why }
}

/// Attempts of the same moment failed in different ways, and nothing tells which was this request's.
fn of_several(pending: &Pending) -> Judgement {
    let name = &pending.owner.name;
    let at_once = match (pending.error.conn.stream, &pending.owner.kind.pool) {
        (true, None) => "served several requests of the connection at once, on other threads",
        (_, Some(_)) => "lets requests wait for connections that it began for others",
        (false, None) => "served several requests at once, and its threads pass them around",
    };
    let why = format!("{name} {at_once}: which attempt was this one's cannot be told");
    Judgement { cause: None, timeline: Vec::new(), server: None, why: Some(("ambiguous", why)) }
}

fn of_nothing(pending: &mut Pending, past: &Past, now: Nanos, host: &mut dyn Host) -> Judgement {
    let case = Case {
        attempt: None,
        in_call: false,
        netns: pending.error.conn.flow.map_or(0, |f| f.netns),
        at: pending.at,
        moment: pending.at,
        now,
        owner: &pending.owner,
        client: Some(&pending.error),
        line: pending.line.as_deref(),
        past,
        host: RefCell::new(host),
        answers: RefCell::new(&mut pending.answers),
    };
    let conn = &pending.error.conn;
    let blind = if conn.old && conn.asked.is_none() {
        Some(("agent_started_later", "the request was under way when trace502 started".to_owned()))
    } else if pending.lossy {
        Some(("events_lost", "kernel records were lost while this request was under way".to_owned()))
    } else {
        None
    };
    let cause = match (&blind, causes::judge(&case)) {
        (None, Opinion::Found(cause, finding)) => Some((cause, finding)),
        _ => None,
    };
    let name = &pending.owner.name;
    let why = cause.is_none().then(|| match blind {
        Some(why) => why,
        None if let Some(line) = &pending.line => {
            ("wire_not_visible", format!("{}; what led to it was not seen", said(name, line)))
        }
        None if conn.blind => ("wire_not_visible", format!("part of what {name} does is not visible to the probes")),
        None if conn.old => {
            ("agent_started_later", format!("the connection is older than trace502, and no attempt of {name} was seen"))
        }
        None if is_own(pending, past) => {
            ("own_answer", format!("{name} answered by itself: it asked no upstream, and none had failed like that"))
        }
        None => {
            ("no_attempt", format!("{name} answered by itself: no attempt on an upstream was seen for this request"))
        }
    });
    Judgement { cause, timeline: Vec::new(), server: None, why }
}

/// Whether the error can only be the proxy's own (a `return 503`, a rate limit): its attempts are joined to their
/// requests without fail, none was made, and none like it failed for as long as a proxy leaves an upstream alone.
fn is_own(pending: &Pending, past: &Past) -> bool {
    let (owner, conn) = (&pending.owner, &pending.error.conn);
    let exact = owner.kind.birth == Birth::Exact && !(conn.stream && owner.kind.streams_move);
    let answered = matches!(pending.error.outcome, ClientOutcome::Status(_)) && conn.asked.is_some();
    let route = Route::of(&conn.request_head);
    let failed = past.failures.ever(owner.group).any(|failed| failed.concerned(route.as_ref()));
    let tried = owner.kind.pool.as_ref().is_some_and(|pool| conn.says(pool.tried) == Some(true));
    exact && answered && !tried && route.is_some() && !failed && past.long(pending.at)
}

/// Why there is no cause although there is an attempt.
fn unexplained(case: &Case<'_>, lossy: bool) -> (&'static str, String) {
    let place = case.place();
    let name = &case.owner.name;
    let (old, blind) = case.conn().map_or((false, false), |c| (c.old, c.blind));
    if lossy || case.lossy() {
        return ("events_lost", format!("kernel records were lost while {name} asked {place}"));
    }
    if case.sent() == Looks::Tls || blind {
        return ("wire_not_visible", format!("what {name} and {place} said is encrypted or not visible to the probes"));
    }
    let well = case.attempt.is_some_and(|a| a.handover == Handover::Asked)
        && http::response(case.reply()).is_some_and(|r| r.complete);
    if well {
        let status = case.conn().and_then(|c| c.status).map_or_else(String::new, |s| format!(" with {s}"));
        return ("answered_well", format!("{place} answered{status} in good order; {name} made the error by itself"));
    }
    if old {
        return ("agent_started_later", format!("the connection to {place} is older than trace502"));
    }
    if !case.is_local() {
        return ("remote_upstream", format!("{place} is another host, and what was seen from here proves no cause"));
    }
    ("not_understood", format!("the attempt on {place} failed in a way that proves no cause"))
}

/// Whether it is an incident at all.
fn counts(pending: &Pending, own: &[Box<Try>], joined: &Joined, judgement: &Judgement, past: &Past) -> bool {
    let cause = judgement.cause.as_ref().map(|(cause, _)| cause.id);
    let last = own.last();
    if pending.logged {
        return true;
    }
    // The client went first, and the proxy merely put the pieces away. Who says that nothing more will come and waits
    // looks the same at first: a proxy that goes on and writes an error long after has given up by itself.
    let left = past.left.get(&pending.key()).filter(|at| *at <= pending.at);
    let written = matches!(pending.error.outcome, ClientOutcome::Status(_));
    let at_once = |at: Nanos| !written || pending.at - at < WAITED;
    if left.is_some_and(at_once) && last.is_some_and(|t| t.end != End::Failed) {
        return false;
    }
    match pending.error.outcome {
        // An application says so, too: it is the proxy's word after an attempt that failed, or where its log has it.
        // That no attempt is known proves nothing: one that went well on a connection of HTTP/2 is never told.
        ClientOutcome::Status(_) if pending.error.conn.grpc.is_some() => {
            let own = last.map_or(pending.line.is_some(), |t| t.end != End::Well);
            cause.is_some() && own
        }
        ClientOutcome::Status(502..=504) => true,
        // The application's own 500 is its own affair, also when another upstream had failed before it.
        ClientOutcome::Status(_) => {
            let kind = pending.owner.kind;
            // The thread of a stream that gets nothing to answer says so in its own words.
            let stream = pending.error.conn.stream && kind.streams_move;
            let made = |cause: &Cause| cause.id == "proxy_limit" || stream || (kind.own_500)(cause.group, cause.id);
            let answered = last.is_some_and(|t| t.attempt.conn.status == Some(500));
            !answered && judgement.cause.as_ref().is_some_and(|(cause, _)| made(cause))
        }
        ClientOutcome::Unseen => {
            let Some(last) = last else { return false };
            let waited = last.at.saturating_sub(last.began()) >= WAITED;
            // A retry that rescued, a health check, a client that left: what cannot be told apart is left out.
            let failed = last.end == End::Failed || (last.end == End::GivenUp && waited);
            failed && joined.doubt.is_none() && !stopping(pending, past)
        }
        ClientOutcome::Garbled => matches!(cause, Some("invalid_response" | "tls_mismatch" | "h2_mismatch")),
        ClientOutcome::Closed => {
            let Some(last) = last else { return false };
            let waited = last.at.saturating_sub(last.began()) >= WAITED;
            let failed = match last.end {
                End::Failed => true,
                End::GivenUp => waited,
                // Its answer had begun, and its end was seen.
                End::Well => cause.is_some(),
            };
            failed && joined.doubt.is_none() && cause.is_some() && asked(pending) && !stopping(pending, past)
        }
    }
}

/// The client's request was there to its end, as far as it was kept.
fn asked(pending: &Pending) -> bool {
    let conn = &pending.error.conn;
    let kept = conn.request_head.len() as u64;
    http::request(&conn.request_head).is_some_and(|r| r.complete || (kept > 0 && conn.request_bytes > kept))
        || conn.request_head.len() >= trace502_ebpf::HEAD
}

/// The proxy itself is ending, and closes everything.
fn stopping(pending: &Pending, past: &Past) -> bool {
    let near = |at: Nanos| at.abs_diff(pending.at) <= STOPPING;
    let dead = past.history.death_of(pending.pid).is_some_and(|d| near(d.at));
    let told = past
        .history
        .life_of(pending.pid)
        .is_some_and(|l| l.signals.iter().any(|s| near(s.at) && STOPS.contains(&s.signal)));
    dead || told
}

fn compose(
    pending: &Pending,
    own: &[Box<Try>],
    joined: &Joined,
    judgement: Judgement,
    host: &mut dyn Host,
) -> Incident {
    let Judgement { cause, timeline, server, why } = judgement;
    let t_us = |at: Nanos| micros(at, pending.at);
    let mut evidence: Vec<Evidence> =
        timeline.into_iter().map(|n| Evidence { t_us: t_us(n.at), kind: n.kind.into(), text: n.text }).collect();
    for earlier in own.iter().rev().skip(1) {
        let text = match &earlier.state {
            State::Judged(Some((cause, f))) => {
                format!("earlier attempt on {}: {}: {}", place(earlier), cause.id, f.summary)
            }
            _ => format!("earlier attempt on {}, for an unknown cause", place(earlier)),
        };
        evidence.push(Evidence { t_us: t_us(earlier.at), kind: "earlier_attempt".into(), text });
    }
    let mut confidence = Confidence::Unknown;
    let mut fix = Vec::new();
    let mut missing = Vec::new();
    let (id, group, summary) = match cause {
        Some((cause, finding)) => {
            confidence = finding.confidence();
            evidence.extend(finding.notes.into_iter().map(|n| Evidence {
                t_us: t_us(n.at),
                kind: n.kind.into(),
                text: n.text,
            }));
            fix = finding.fix;
            missing = finding.missing;
            (cause.id, cause.group, finding.summary)
        }
        None => ("unattributed", Group::None, why.as_ref().map_or_else(String::new, |(_, text)| text.clone())),
    };
    if pending.lossy && confidence == Confidence::Certain {
        confidence = Confidence::Likely;
        missing.push("that this was its last attempt: kernel records were lost at that time".into());
    }
    if let (Some(doubt), true) = (joined.doubt, id != "unattributed") {
        confidence = confidence.min(Confidence::Likely);
        missing.push(format!("which attempt was this request's: {doubt}"));
    }
    if let Some(line) = &pending.line {
        evidence.push(Evidence { t_us: 0, kind: "log".into(), text: said(&pending.owner.name, line) });
    }
    evidence.push(Evidence { t_us: 0, kind: outcome_kind(pending).into(), text: outcome(pending) });
    evidence.sort_by_key(|e| e.t_us);
    evidence.extend(missing.into_iter().map(|text| Evidence {
        t_us: 0,
        kind: "missing".into(),
        text: format!("not seen: {text}"),
    }));
    let wall = host.wall_micros(pending.at);
    let conn = &pending.error.conn;
    let upstream = own.last().map(|last| Upstream { addr: place(last), process: server });
    Incident {
        v: RECORD_VERSION,
        id: sentence(format_args!("{wall:x}-{:x}-{}", conn.cookie, conn.request)),
        time: text::rfc3339(wall),
        grpc_status: conn.grpc,
        status: match pending.error.outcome {
            ClientOutcome::Status(_) if conn.grpc.is_some() => Some(200),
            ClientOutcome::Status(status) => Some(status),
            ClientOutcome::Garbled | ClientOutcome::Closed | ClientOutcome::Unseen => None,
        },
        seen: pending.seen,
        proxy: proxy(pending, host),
        client: conn
            .flow
            .map(|f| if f.remote.port() == 0 { f.remote.ip().to_string() } else { Address(&f.remote).to_string() }),
        request: request(pending, own.last().map(Box::as_ref)),
        upstream,
        cause: id.into(),
        group,
        confidence,
        summary,
        evidence,
        fix,
        attempts: own.iter().map(|one| summary_of(one)).collect(),
        why: why.map(|(word, _)| word.into()),
    }
}

fn micros(at: Nanos, moment: Nanos) -> i64 {
    let gap = i64::try_from(at.abs_diff(moment) / 1_000).unwrap_or(i64::MAX);
    if at < moment { -gap } else { gap }
}

fn place(one: &Try) -> String {
    one.attempt.endpoint.place()
}

fn outcome_kind(pending: &Pending) -> &'static str {
    match pending.error.outcome {
        ClientOutcome::Status(_) => "error_sent",
        ClientOutcome::Garbled => "garbled_sent",
        ClientOutcome::Closed => "closed_unanswered",
        ClientOutcome::Unseen => "answer_unseen",
    }
}

fn outcome(pending: &Pending) -> String {
    let name = &pending.owner.name;
    match pending.error.outcome {
        ClientOutcome::Status(_) if pending.error.conn.grpc.is_some() => {
            format!("{name} answered the client with grpc-status 14 (UNAVAILABLE)")
        }
        ClientOutcome::Status(status) => sentence(format_args!("{name} answered the client with {status}")),
        ClientOutcome::Garbled => format!("{name} handed the client bytes that are no HTTP"),
        ClientOutcome::Closed => format!("{name} closed the client's connection with its request unanswered"),
        ClientOutcome::Unseen => format!("{name} answered the client with something that cannot be read"),
    }
}

/// Where the client's bytes cannot be read, the log knows, or what went to the upstream is all there is to tell it by.
fn request(pending: &Pending, last: Option<&Try>) -> Request {
    let sent = || http::request(&last.filter(|_| pending.unreadable())?.attempt.conn.request_head);
    let said = || http::request(&lines::head(pending.line.as_deref()?));
    match http::request(&pending.error.conn.request_head).or_else(said).or_else(sent) {
        Some(head) => Request {
            path: Some(text::clipped(head.path(), 256)),
            method: Some(head.method),
            host: head.host.map(|h| text::clipped(&h, text::LONGEST)),
        },
        None => Request::default(),
    }
}

/// What the proxy's log says, in words of ours: a line is foreign text.
fn said(name: &str, line: &LogError) -> String {
    let errno = |errno: &Option<i32>| errno.map_or_else(String::new, |errno| format!(" with {}", text::errno(errno)));
    let what = match &line.hint {
        Hint::Connect { errno: number } => format!("connect() failed{}", errno(number)),
        Hint::ConnectTimeout => "connecting took too long".into(),
        Hint::ClosedEarly => "the upstream closed too early".into(),
        Hint::Receive { errno: number } => format!("the answer broke off{}", errno(number)),
        Hint::Send { errno: number } => format!("sending the request failed{}", errno(number)),
        Hint::SendTimeout => "sending the request took too long".into(),
        Hint::ResponseTimeout => "the answer took too long".into(),
        Hint::InvalidResponse => "the answer is not valid".into(),
        Hint::HeaderTooBig => "the header of the answer is too big".into(),
        Hint::NoLiveUpstream => "no upstream was left to try".into(),
        Hint::Unresolved { name } => format!("{} did not resolve", text::clipped(name, 100)),
        Hint::NoResolver { name } => format!("no resolver is defined to resolve {}", text::clipped(name, 100)),
        Hint::TlsHandshake => "the TLS handshake with the upstream failed".into(),
        Hint::TlsTimeout => "the TLS handshake with the upstream took too long".into(),
        Hint::TlsVerify => "the upstream's certificate was not accepted".into(),
        Hint::Rejected => "the upstream refused the request inside its connection".into(),
        Hint::QueueTimeout => "the request waited too long for a free connection".into(),
        Hint::ProxyLimit => "the proxy reached a limit of its own".into(),
        Hint::Refused { rate: true } => "a limit on the rate of requests was reached".into(),
        Hint::Refused { rate: false } => "a limit on the number of connections was reached".into(),
        Hint::PassedOn => "the upstream answered this status itself".into(),
        Hint::StatusOnly => "the request failed".into(),
        Hint::Other => "the upstream failed".into(),
    };
    let at = line.upstream.as_ref().map_or_else(String::new, |at| format!(" ({})", text::clipped(at, 140)));
    let status = line.status.map_or_else(String::new, |status| format!(", {status}"));
    format!("{name}'s log says: {what}{at}{status}")
}

fn proxy(pending: &Pending, host: &mut dyn Host) -> Process {
    let tid = Some(pending.tid);
    known(
        Process { name: pending.owner.name.clone(), pid: pending.pid, tid, ..Process::default() },
        host.process(pending.pid),
    )
}

fn process(case: &Case<'_>, pid: u32) -> Process {
    known(Process { name: case.name(pid).unwrap_or_default(), pid, ..Process::default() }, case.process(pid))
}

/// With what the host knows of it.
fn known(process: Process, facts: Option<Arc<ProcessFacts>>) -> Process {
    let Some(facts) = facts else { return process };
    let clip = |s: &Option<String>| s.as_ref().map(|s| text::clipped(s, 200));
    Process {
        exe: clip(&facts.exe),
        unit: clip(&facts.unit),
        container: clip(&facts.container),
        container_name: clip(&facts.container_name),
        cgroup: facts.cgroup.clone(),
        ..process
    }
}

fn summary_of(one: &Try) -> AttemptSummary {
    let conn = &one.attempt.conn;
    let gap = |from: Option<Nanos>, to: Nanos| from.map(|from| to.saturating_sub(from) / 1_000);
    AttemptSummary {
        upstream: place(one),
        cause: one.cause().unwrap_or("unattributed").into(),
        reused: conn.reused,
        connect_us: if conn.reused { None } else { conn.established.and_then(|up| gap(conn.opened, up)) },
        wait_us: gap(conn.asked, one.at),
        bytes: conn.reply_bytes,
    }
}
