//! The join under retries, concurrency and noise; what is no incident; what is the same however time passes.

use proptest::prelude::*;

use super::fixture::*;
use super::*;
use crate::model::Confidence::{Certain, Likely};
use crate::model::*;

const OTHER: &str = "127.0.0.1:9000";

/// An attempt of this client on this upstream that was closed without an answer.
fn closed_early(w: &mut World, client: Cookie, path: &str) -> Attempt {
    let mut a = w.attempt();
    a.endpoint = Endpoint::Tcp(addr(OTHER));
    a.conn.flow.as_mut().unwrap().remote = addr(OTHER);
    a.conn.fin = Some(w.now - 50_000);
    a.conn.request_head = get(path);
    a.peer = Some(w.closed_peer(SERVER));
    a.bound = Some(Bound { client, request: 1, choices: 2, retry: false, proven: false });
    a
}

fn refused(w: &mut World, client: Cookie) -> Attempt {
    let mut a = w.refused();
    a.bound = Some(Bound { client, request: 1, choices: 2, retry: false, proven: false });
    a
}

/// What HAProxy and lighttpd close right behind the error of this client.
fn ended(mut a: Attempt, client: Cookie) -> Attempt {
    a.bound = Some(Bound { client, request: 1, choices: 1, retry: false, proven: true });
    a
}

fn error(w: &mut World, client: Cookie, path: &str, outcome: ClientOutcome) -> ClientError {
    let mut e = w.error(outcome);
    e.conn.cookie = client;
    e.conn.request_head = get(path);
    e.conn.flow.as_mut().unwrap().remote = addr(&format!("127.0.0.1:{}", 51_000 + client));
    e
}

fn of_client(incidents: &[Incident], client: Cookie) -> &Incident {
    let at = format!("127.0.0.1:{}", 51_000 + client);
    incidents.iter().find(|i| i.client.as_deref() == Some(&at)).unwrap()
}

// --- retries ---

#[test]
fn retries_are_told_in_order_and_the_last_one_counts() {
    let mut w = World::new("nginx");
    let first = refused(&mut w, 7);
    w.tell(first).pass(3 * MILLI);
    let second = closed_early(&mut w, 7, "/api/cart");
    w.tell(second).pass(50_000).answered(502);
    let i = w.expect("upstream_closed_early", Certain);
    let causes: Vec<_> = i.attempts.iter().map(|a| (a.upstream.as_str(), a.cause.as_str())).collect();
    assert_eq!(causes, [(UPSTREAM, "no_listener"), (OTHER, "upstream_closed_early")]);
    assert_eq!(i.upstream.as_ref().unwrap().addr, OTHER);
    assert!(i.evidence.iter().any(|e| e.kind == "earlier_attempt" && e.text.contains("no_listener")));
    assert_eq!(w.failures(), ["no_listener", "upstream_closed_early"]);
}

#[test]
fn a_retry_that_looked_well_is_handed_over_after_the_error_and_wins() {
    let mut w = World::new("nginx");
    let first = refused(&mut w, 7);
    w.tell(first).pass(3 * MILLI);
    let mut last = closed_early(&mut w, 7, "/api/cart");
    last.handover = Handover::Asked;
    last.conn.phase = Phase::Answered;
    last.conn.reply_head = b"HTTP/1.1 200 OK\r\nConte".to_vec();
    last.conn.reply_bytes = 22;
    w.answered(502).pass(30_000).tell(last);
    w.expect("response_truncated", Certain);
}

#[test]
fn a_request_that_a_retry_rescued_is_a_failure_and_no_incident() {
    let mut w = World::new("nginx");
    let a = refused(&mut w, 7);
    w.tell(a).pass(SECOND);
    assert!(w.all().is_empty());
    assert_eq!(w.failures(), ["no_listener"]);
}

/// Of several requests whose connections failed in the call, each has those right before its error.
#[test]
fn what_failed_in_the_call_belongs_to_the_error_that_follows() {
    let mut w = World::new("haproxy");
    let fail = |w: &mut World, client: Cookie, endpoint: &str, errno: i32| {
        for _ in 0..2 {
            let bound = Some(Bound { client, request: 1, choices: 1, retry: false, proven: false });
            let a = w.attempt();
            w.pass(20_000).see(Fact::ConnectFailed(ConnectFailed {
                endpoint: Endpoint::Tcp(addr(endpoint)),
                netns: 7,
                comm: a.conn.comm,
                cgroup: 5,
                cookie: None,
                bound,
                errno,
                listener: ListenerSeen::Unknown,
            }));
        }
    };
    // Their births were taken for each other.
    for (client, endpoint, errno) in [(7, UPSTREAM, libc::ENETUNREACH), (8, OTHER, libc::EADDRNOTAVAIL)] {
        fail(&mut w, 15 - client, endpoint, errno);
        let mut e = error(&mut w, client, "/a", ClientOutcome::Status(503));
        e.conn.after_call = true;
        w.pass(20_000).see(Fact::Client(e));
    }
    let all = w.all();
    for (client, cause) in [(7, "network_unreachable"), (8, "port_exhaustion")] {
        let i = of_client(&all, client);
        assert_eq!((i.cause.as_str(), i.confidence, i.attempts.len()), (cause, Certain, 2), "{i:#?}");
    }
}

/// HAProxy's close was seen to follow the error of another request: whose it was taken for at birth says nothing.
#[test]
fn the_close_behind_an_error_overrules_the_birth() {
    let mut w = World::new("haproxy");
    let (refused, closed) = (refused(&mut w, 7), closed_early(&mut w, 8, "/b"));
    for (client, path, a) in [(7, "/b", closed), (8, "/a", refused)] {
        let e = error(&mut w, client, path, ClientOutcome::Status(503));
        w.see(Fact::Client(e)).pass(20_000).tell(ended(a, client)).pass(20_000);
    }
    let all = w.all();
    assert_eq!(of_client(&all, 7).cause, "upstream_closed_early");
    assert_eq!(of_client(&all, 8).cause, "no_listener");
}

/// An error behind which nothing was closed was made without an attempt, whatever failed at that time.
#[test]
fn haproxy_without_a_close_made_no_attempt() {
    let mut w = World::new("haproxy");
    let stranger = refused(&mut w, 7);
    w.tell(stranger).pass(50_000).answered(500).pass(SECOND);
    assert!(w.all().is_empty());
}

#[test]
fn a_health_check_between_two_tries_is_none_of_them() {
    let mut w = World::new("haproxy");
    let other = |a: &mut Attempt| {
        a.endpoint = Endpoint::Tcp(addr(OTHER));
        a.conn.flow.as_mut().unwrap().remote = addr(OTHER);
    };
    let mut checks = [w.refused(), w.refused()];
    for check in &mut checks {
        check.bound = None;
        check.conn.check = true;
        other(check);
    }
    let [one, two] = checks;
    w.tell(one).pass(SECOND);
    let first = refused(&mut w, 7);
    w.tell(first).pass(300 * MILLI);
    w.tell(two).pass(700 * MILLI);
    let last = ended(refused(&mut w, 7), 7);
    let mut e = error(&mut w, 7, "/a", ClientOutcome::Status(503));
    e.conn.asked = Some(w.now - 2 * SECOND);
    w.see(Fact::Client(e)).pass(50_000).tell(last);
    let i = w.expect("no_listener", Certain);
    assert_eq!(i.attempts.iter().map(|a| a.upstream.as_str()).collect::<Vec<_>>(), [UPSTREAM, UPSTREAM]);
}

#[test]
fn tries_a_second_later_go_to_the_request_that_failed_there() {
    let mut w = World::new("haproxy");
    let on = |w: &mut World, client: Cookie, endpoint: &str, retry: bool| {
        let mut a = refused(w, client);
        a.endpoint = Endpoint::Tcp(addr(endpoint));
        a.conn.flow.as_mut().unwrap().remote = addr(endpoint);
        a.bound.as_mut().unwrap().retry = retry;
        a
    };
    for (client, endpoint) in [(7, UPSTREAM), (8, OTHER)] {
        let first = on(&mut w, client, endpoint, false);
        w.tell(first).pass(100 * MILLI);
    }
    w.pass(800 * MILLI);
    // The thread failed for client 8 last, and takes both for it.
    for (client, endpoint) in [(7, UPSTREAM), (8, OTHER)] {
        let last = ended(on(&mut w, 8, endpoint, true), client);
        let mut e = error(&mut w, client, "/a", ClientOutcome::Status(503));
        e.conn.asked = Some(w.now - 2 * SECOND);
        w.see(Fact::Client(e)).pass(50_000).tell(last).pass(100 * MILLI);
    }
    let all = w.all();
    for (client, endpoint) in [(7, UPSTREAM), (8, OTHER)] {
        let tried: Vec<_> = of_client(&all, client).attempts.iter().map(|a| a.upstream.as_str()).collect();
        assert_eq!(tried, [endpoint, endpoint]);
    }
}

#[test]
fn an_attempt_after_the_error_is_a_health_check() {
    let mut w = World::new("haproxy");
    let first = ended(refused(&mut w, 7), 7);
    w.answered(503).tell(first).pass(SECOND);
    let mut check = refused(&mut w, 7);
    check.bound.as_mut().unwrap().retry = true;
    w.tell(check).pass(SECOND);
    let mut e = error(&mut w, 8, "/other", ClientOutcome::Status(503));
    e.conn.asked = Some(w.now - MILLI);
    w.see(Fact::Client(e));
    let all = w.all();
    assert_eq!(all[0].attempts.len(), 1);
    assert_eq!(of_client(&all, 8).cause, "no_live_upstream");
}

#[test]
fn a_reset_that_the_proxy_sent_by_itself_is_its_own_giving_up() {
    let mut w = World::new("haproxy");
    let mut a = w.attempt();
    a.conn.errno = Some(libc::ECONNRESET);
    a.conn.asked = Some(w.now - SECOND);
    a.conn.closed_first = true;
    a.peer = Some(w.peer());
    let mut e = error(&mut w, 7, "/api/cart", ClientOutcome::Status(504));
    e.conn.asked = Some(w.now - SECOND - MILLI);
    w.see(Fact::Client(e)).pass(60_000).tell(a);
    w.expect("response_timeout", Certain);
}

// --- what is no incident ---

#[test]
fn a_client_that_left_first_is_nobodys_fault() {
    let mut w = World::new("nginx");
    w.see(Fact::ClientLeft { client: 7, request: 1 }).pass(50_000);
    let mut a = w.attempt();
    a.conn.closed_first = true;
    a.conn.asked = Some(w.now - 3 * SECOND);
    w.tell(a).pass(2 * SECOND);
    assert!(w.all().is_empty());
    assert!(w.failures().is_empty());
}

#[test]
fn a_timeout_that_a_retry_rescued_counts_as_a_failure() {
    let mut w = World::new("nginx");
    let mut a = w.attempt();
    a.conn.closed_first = true;
    a.conn.asked = Some(w.now - 3 * SECOND);
    a.peer = Some(w.peer());
    w.tell(a);
    assert_eq!(w.failures(), ["response_timeout"]);
}

#[test]
fn a_health_check_is_no_attempt_of_a_request() {
    let mut w = World::new("nginx");
    let mut check = closed_early(&mut w, 7, "/health");
    check.bound = None;
    w.tell(check).pass(50_000).answered(503);
    let i = w.incident();
    assert_eq!(i.why.as_deref(), Some("no_attempt"));
    assert!(i.attempts.is_empty());
    assert_eq!(w.failures(), ["upstream_closed_early"]);
}

#[test]
fn an_unbound_attempt_with_the_same_request_is_found_by_its_content() {
    let mut w = World::new("nginx");
    let mut a = closed_early(&mut w, 7, "/api/cart");
    a.bound = None;
    w.tell(a).pass(50_000).answered(502);
    w.expect("upstream_closed_early", Certain);
}

#[test]
fn an_unbound_attempt_that_shows_nothing_is_likely() {
    let mut w = World::new("nginx");
    let mut a = w.refused();
    a.bound = None;
    w.tell(a).pass(50_000).answered(502);
    let i = w.expect("no_listener", Likely);
    assert!(i.evidence.iter().any(|e| e.kind == "missing" && e.text.contains("could only be told by its time")));
}

#[test]
fn a_500_counts_only_when_the_proxy_made_it() {
    let mut w = World::new("lighttpd");
    let a = closed_early(&mut w, 7, "/api/cart");
    w.answered(500).pass(100_000).tell(a);
    w.expect("upstream_closed_early", Certain);

    let mut w = World::new("nginx");
    let mut own = w.attempt();
    own.handover = Handover::Asked;
    own.conn.phase = Phase::Answered;
    own.conn.status = Some(500);
    own.conn.reply_head = b"HTTP/1.1 500 Internal Server Error\r\n\r\n".to_vec();
    own.conn.reply_bytes = 38;
    w.answered(500).tell(own);
    assert!(w.all().is_empty());

    let mut w = World::new("nginx");
    w.answered(500);
    assert!(w.all().is_empty(), "the proxy's own 500 without an attempt");
}

#[test]
fn closed_without_an_answer_needs_a_failed_attempt_and_a_whole_request() {
    let closed = |change: &dyn Fn(&mut World, &mut ClientError, &mut Attempt)| {
        let mut w = World::new("haproxy");
        let mut a = closed_early(&mut w, 7, "/api/cart");
        let mut e = error(&mut w, 7, "/api/cart", ClientOutcome::Closed);
        change(&mut w, &mut e, &mut a);
        w.see(Fact::Client(e)).pass(60_000).tell(a);
        w.all()
    };
    let all = closed(&|_, _, _| {});
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].status, all[0].seen, all[0].cause.as_str()), (None, Seen::Closed, "upstream_closed_early"));
    assert_eq!(all[0].status_word(), "closed");

    let part = b"GET /api/cart HTT".to_vec();
    assert!(
        closed(&|_, e, _| (e.conn.request_head, e.conn.request_bytes) = (part.clone(), 17)).is_empty(),
        "half a request"
    );
    assert!(closed(&|_, _, a| a.conn.request_head = get("/other")).is_empty(), "another's attempt");
    let stop = |w: &mut World, _: &mut ClientError, _: &mut Attempt| {
        w.signal(PROXY.pid, libc::SIGTERM, proc(1, "systemd"));
    };
    assert!(closed(&stop).is_empty(), "a proxy that is being stopped closes everything");
}

#[test]
fn garbage_that_was_passed_on_needs_an_upstream_that_sent_it() {
    let mut w = World::new("nginx");
    let mut a = w.attempt();
    a.handover = Handover::Answered;
    a.conn.reply_head = b"SSH-2.0-x\r\n".to_vec();
    a.conn.reply_bytes = 11;
    let e = error(&mut w, 7, "/api/cart", ClientOutcome::Garbled);
    w.tell(a).pass(50_000).see(Fact::Client(e));
    let i = w.expect("invalid_response", Certain);
    assert_eq!((i.status_word().as_str(), i.seen), ("garbled", Seen::Garbled));

    let mut w = World::new("nginx");
    let e = error(&mut w, 7, "/api/cart", ClientOutcome::Garbled);
    w.see(Fact::Client(e));
    assert!(w.all().is_empty());
}

#[test]
fn one_error_told_twice_is_one_incident() {
    let mut w = World::new("nginx");
    let a = refused(&mut w, 7);
    w.tell(a).pass(50_000).answered(502).pass(MILLI).answered(502);
    w.expect("no_listener", Certain);
    assert_eq!(w.engine.counters().duplicates, 1);
}

#[test]
fn a_failing_connect_and_its_close_are_one_attempt() {
    let mut w = World::new("haproxy");
    w.connect_failed(Endpoint::Tcp(addr(UPSTREAM)), libc::ENETUNREACH).pass(20_000);
    let mut a = w.refused();
    a.conn.errno = None;
    a.conn.reset = None;
    w.tell(a).pass(50_000);
    let mut e = w.error(ClientOutcome::Status(503));
    e.conn.after_call = true;
    w.see(Fact::Client(e));
    let i = w.expect("network_unreachable", Certain);
    assert_eq!(i.attempts.len(), 1);
}

#[test]
fn lost_records_leave_an_error_without_attempt_unexplained() {
    let mut w = World::new("nginx");
    let at = w.now;
    w.engine.lost(at, 1);
    w.answered(502);
    assert_eq!(w.incident().why.as_deref(), Some("events_lost"));
}

#[test]
fn a_connection_from_before_the_agent_says_so() {
    let mut w = World::new("nginx");
    let mut e = w.error(ClientOutcome::Status(502));
    e.conn.old = true;
    e.conn.asked = None;
    w.see(Fact::Client(e));
    assert_eq!(w.incident().why.as_deref(), Some("agent_started_later"));
}

// --- time ---

#[test]
fn an_error_is_out_within_fifty_milliseconds() {
    for (comm, status) in [("nginx", 502), ("haproxy", 503), ("envoy", 503), ("caddy", 502), ("squid", 503)] {
        let mut w = World::new(comm);
        let a = refused(&mut w, 7);
        if comm == "haproxy" {
            w.answered(status).pass(50_000).tell(ended(a, 7));
        } else {
            w.tell(a).pass(50_000).answered(status);
        }
        let late = w.now + 50 * MILLI;
        w.engine.tick(late, &mut w.host);
        w.notices.extend(w.engine.drain());
        assert!(w.notices.iter().any(|n| matches!(n, Notice::Incident(_))), "{comm}");
        // The time by which HAProxy's close had to come stays, for nothing.
        assert!(w.engine.next_deadline().is_none() || comm == "haproxy", "{comm}");
    }
}

#[test]
fn haproxy_is_told_at_once_when_its_close_came() {
    let mut w = World::new("haproxy");
    let a = closed_early(&mut w, 7, "/api/cart");
    w.answered(502);
    assert!(w.notices.is_empty());
    w.host.processes.get_mut(&SERVER).unwrap().alive = true;
    w.pass(60_000).tell(ended(a, 7)).pass(11 * MILLI);
    let now = w.now;
    w.engine.tick(now, &mut w.host);
    assert!(w.engine.drain().iter().any(|n| matches!(n, Notice::Incident(_))));
}

#[test]
fn a_process_that_lives_on_is_not_waited_for_for_ever() {
    let mut w = World::new("nginx");
    for client in 0..100 {
        let broken = closed_early(&mut w, client, "/");
        w.tell(broken).pass(SECOND);
    }
    w.all();
    assert!(w.engine.exits.is_empty(), "{:?}", w.engine.exits);
}

#[test]
fn a_flood_of_losses_does_not_make_the_earlier_ones_forgotten() {
    let mut w = World::new("nginx");
    let first = w.now;
    w.engine.lost(first, 1);
    for batch in 1..2_000 {
        w.engine.lost(first + 60 * SECOND + batch * MILLI, 100);
    }
    assert!(w.engine.past.lossy(first, first));
    assert!(w.engine.past.lossy(first + 61 * SECOND, first + 61 * SECOND));
    assert!(!w.engine.past.lossy(first + 30 * SECOND, first + 31 * SECOND));
}

#[test]
fn everything_is_bounded_and_counted() {
    let mut w = World::new("nginx");
    for client in 0..40_000 {
        let mut a = refused(&mut w, client);
        a.conn.cookie = 100_000 + client;
        w.pass(10_000).tell(a);
        w.notices.clear();
    }
    assert!(w.engine.counters().attempts_overflow >= 7_000);
    w.answered(502);
    assert_eq!(w.all().len(), 1);
}

// --- concurrency ---

/// Two requests of one worker, each with its own story.
#[derive(Clone, Debug)]
struct Pair {
    comm: &'static str,
    after: bool,
    order: Vec<bool>,
    gaps: Vec<u64>,
    retries: (usize, usize),
}

fn pair(kinds: &'static [(&'static str, bool)]) -> impl Strategy<Value = Pair> {
    (
        0..kinds.len(),
        prop::collection::vec(any::<bool>(), 8),
        prop::collection::vec(1_000..300_000_u64, 8),
        (1..3_usize, 1..3_usize),
    )
        .prop_map(|(kind, order, gaps, retries)| Pair {
            comm: kinds[kind].0,
            after: kinds[kind].1,
            order,
            gaps,
            retries,
        })
}

/// What happens to one request, in the order in which its proxy does it.
#[derive(Clone, Copy)]
enum Step {
    Attempt,
    Error,
}

fn steps(after: bool, attempts: usize) -> Vec<Step> {
    let mut steps = vec![Step::Attempt; attempts];
    // The last close comes after the write where the proxy writes first.
    steps.insert(if after { attempts - 1 } else { attempts }, Step::Error);
    steps
}

fn play(pair: &Pair, mut attempt: impl FnMut(&mut World, Cookie) -> Attempt) -> (World, Vec<Incident>) {
    let mut w = World::new(pair.comm);
    let mut stories = [
        steps(pair.after, pair.retries.0).into_iter().peekable(),
        steps(pair.after, pair.retries.1).into_iter().peekable(),
    ];
    let mut turn = 0;
    // HAProxy ends the attempt in the same breath as it writes the error.
    let mut breath = None;
    let mut told = [None, None];
    while stories.iter_mut().any(|s| s.peek().is_some()) {
        let mut who = usize::from(pair.order[turn % pair.order.len()]);
        if stories[who].peek().is_none() {
            who = 1 - who;
        }
        who = breath.take().unwrap_or(who);
        let client = [7, 8][who];
        w.pass(pair.gaps[turn % pair.gaps.len()]);
        match stories[who].next().unwrap() {
            Step::Attempt => {
                let mut a = attempt(&mut w, client);
                // What is closed after the error began before it.
                if let Some(error) = told[who] {
                    a.conn.opened = a.conn.opened.map(|at| at.min(error - 200_000));
                    a.conn.asked = a.conn.asked.map(|at| at.min(error - 100_000));
                    a = ended(a, client);
                }
                w.tell(a);
            }
            Step::Error => {
                let path = if client == 7 { "/a" } else { "/b" };
                let e = error(&mut w, client, path, ClientOutcome::Status(503));
                told[who] = Some(w.now);
                breath = (pair.comm == "haproxy").then_some(who);
                w.see(Fact::Client(e));
            }
        }
        turn += 1;
    }
    let all = w.all();
    (w, all)
}

fn own_story(w: &mut World, client: Cookie) -> Attempt {
    if client == 7 { refused(w, 7) } else { closed_early(w, 8, "/b") }
}

const EXACT: &[(&str, bool)] =
    &[("nginx", false), ("haproxy", true), ("envoy", false), ("apache2", false), ("lighttpd", true)];

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_interleaving_swaps_the_causes_of_two_requests(pair in pair(EXACT)) {
        let (_, all) = play(&pair, own_story);
        prop_assert_eq!(all.len(), 2);
        let (a, b) = (of_client(&all, 7), of_client(&all, 8));
        prop_assert_eq!((a.cause.as_str(), a.confidence), ("no_listener", Certain));
        prop_assert_eq!((b.cause.as_str(), b.confidence), ("upstream_closed_early", Certain));
        prop_assert_eq!((a.attempts.len(), b.attempts.len()), (pair.retries.0, pair.retries.1));
        prop_assert!(a.attempts.iter().all(|t| t.upstream == UPSTREAM));
    }

    #[test]
    fn content_corrects_a_wrong_hint(mut pair in pair(&[("caddy", false), ("traefik", false)])) {
        pair.retries = (1, 1);
        let (_, all) = play(&pair, |w, client| {
            let mut a = closed_early(w, 15 - client, if client == 7 { "/a" } else { "/b" });
            if client == 7 {
                a.conn.fin = None;
                a.conn.reset = Some(w.now - 40_000);
            }
            a
        });
        prop_assert_eq!(all.len(), 2);
        prop_assert_eq!(of_client(&all, 7).cause.as_str(), "upstream_reset");
        prop_assert_eq!(of_client(&all, 8).cause.as_str(), "upstream_closed_early");
    }

    #[test]
    fn what_cannot_be_told_apart_is_never_certain(mut pair in pair(&[("caddy", false)]), swap in any::<bool>()) {
        pair.retries = (1, 1);
        // Dials that failed show no request, and the hints may be right or wrong.
        let (_, all) = play(&pair, |w, client| {
            let mut a = refused(w, if swap { 15 - client } else { client });
            if client == 8 {
                a.conn.errno = Some(libc::ENETUNREACH);
                a.conn.reset = None;
            }
            a
        });
        for (client, truth) in [(7, "no_listener"), (8, "network_unreachable")] {
            let incident = of_client(&all, client);
            prop_assert!(incident.cause == truth || incident.confidence < Certain, "{:#?}", incident);
        }
    }

    #[test]
    fn ticks_change_nothing(pair in pair(EXACT), ticks in prop::collection::vec(0..3_000_000_u64, 8)) {
        let (_, still) = play(&pair, own_story);
        let mut n = 0;
        let (_, ticked) = play(&pair, |w, client| {
            let a = own_story(w, client);
            let at = w.now.saturating_sub(ticks[n % ticks.len()]);
            n += 1;
            w.engine.tick(at, &mut w.host);
            a
        });
        let line = |all: &[Incident]| all.iter().map(|i| serde_json::to_string(i).unwrap()).collect::<Vec<_>>();
        prop_assert_eq!(line(&still), line(&ticked));
    }
}
