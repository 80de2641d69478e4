//! Two requests on one worker, in every order.

use super::*;

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

/// Two streams of one connection, read at once, whose connects failed each in its own way.
fn two_streams(proxy: &str) -> Vec<Incident> {
    let mut w = World::new(proxy);
    let bound = |request| Some(Bound { client: 7, request, choices: 2, retry: false, proven: false });
    let mut first = w.refused();
    first.bound = bound(1);
    let mut second = w.refused();
    second.bound = bound(3);
    second.endpoint = Endpoint::Tcp(addr(OTHER));
    second.conn.errno = Some(libc::ENETUNREACH);
    second.conn.reset = None;
    w.tell(first).pass(10_000).tell(second).pass(10_000);
    for request in [1, 3] {
        let mut e = error(&mut w, 7, "/a", ClientOutcome::Status(502));
        (e.conn.request, e.conn.stream, e.conn.asked) = (request, true, Some(w.now - 1_000_000));
        w.pass(1_000).see(Fact::Client(e));
    }
    w.all()
}

#[test]
fn streams_that_only_chance_tells_apart_get_no_cause() {
    let causes = |proxy| two_streams(proxy).into_iter().map(|i| (i.cause, i.confidence)).collect::<Vec<_>>();
    let likely = [("no_listener".to_owned(), Likely), ("network_unreachable".to_owned(), Likely)];
    assert_eq!(causes("nginx"), likely, "it serves them in the order in which it read them");
    assert!(causes("haproxy").iter().all(|(cause, _)| cause == "unattributed"), "{:?}", causes("haproxy"));
}

/// An upstream's own answer to a request for this path, that the kernel side bound to a stream.
fn own_answer(w: &mut World, status: u16, path: &str, request: u32) -> Attempt {
    let mut one = w.attempt();
    one.handover = Handover::Answered;
    one.bound = Some(Bound { client: 7, request, choices: 1, retry: false, proven: false });
    one.conn.phase = Phase::Answered;
    one.conn.status = Some(status);
    one.conn.request_head = get(path);
    one.conn.reply_head = format!("HTTP/1.1 {status} Own\r\n\r\n").into_bytes();
    one
}

fn stream_fails(w: &mut World, request: u32, path: &str, status: u16) {
    let mut e = error(w, 7, path, ClientOutcome::Status(status));
    (e.conn.request, e.conn.stream, e.conn.asked) = (request, true, Some(w.now - 1_000_000));
    w.pass(1_000).see(Fact::Client(e));
}

#[test]
fn what_was_sent_says_whose_an_attempt_is_and_not_to_which_stream_it_was_bound() {
    let mut w = World::new("haproxy");
    // Bound the wrong way round.
    for (status, path, bound) in [(504, "/late", 3), (502, "/broken", 1)] {
        let one = own_answer(&mut w, status, path, bound);
        w.tell(one).pass(10_000);
    }
    stream_fails(&mut w, 1, "/late", 504);
    stream_fails(&mut w, 3, "/broken", 502);
    stream_fails(&mut w, 5, "/elsewhere", 503);
    let told: Vec<_> =
        w.all().into_iter().map(|i| (i.status, i.cause, i.summary.contains("itself answered"))).collect();
    assert_eq!(told[0], (Some(504), "upstream_error".into(), true), "{told:?}");
    assert_eq!(told[1], (Some(502), "upstream_error".into(), true), "{told:?}");
    assert_eq!(told[2].1, "unattributed", "{told:?}");
}

#[test]
fn a_stream_is_not_blamed_on_the_answer_to_another_request() {
    for proxy in ["haproxy", "nginx"] {
        let mut w = World::new(proxy);
        let other = own_answer(&mut w, 504, "/late", 1);
        w.tell(other).pass(10_000);
        stream_fails(&mut w, 1, "/elsewhere", 503);
        let causes: Vec<_> = w.all().into_iter().map(|i| i.cause).collect();
        assert_eq!(causes, ["unattributed"], "{proxy}");
    }
}

/// A proxy that rewrites what it hands on is believed, but not without a doubt.
#[test]
fn a_stream_whose_request_was_rewritten_keeps_its_attempt() {
    let mut w = World::new("nginx");
    let one = own_answer(&mut w, 503, "/within", 1);
    w.tell(one).pass(10_000);
    stream_fails(&mut w, 1, "/outside", 503);
    w.expect("upstream_error", Likely);
}

#[test]
fn unavailable_of_grpc_is_the_proxys_word_only_where_an_attempt_failed() {
    let told = |fails: bool| {
        let mut w = World::new("envoy");
        let mut one = if fails { w.refused() } else { own_answer(&mut w, 200, "/a", 1) };
        one.handover = if fails { one.handover } else { Handover::Asked };
        one.bound = Some(Bound { client: 7, request: 1, choices: 1, retry: false, proven: false });
        w.tell(one).pass(10_000);
        let mut e = error(&mut w, 7, "/a", ClientOutcome::Status(503));
        (e.conn.request, e.conn.stream, e.conn.grpc) = (1, true, Some(14));
        w.pass(1_000).see(Fact::Client(e));
        w.all().into_iter().map(|i| (i.status, i.grpc_status, i.status_word(), i.cause)).collect::<Vec<_>>()
    };
    assert_eq!(told(true), [(Some(200), Some(14), "grpc".into(), "no_listener".into())]);
    assert_eq!(told(false), [], "the application said so itself");
}

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
    fn what_cannot_be_told_apart_is_never_certain(mut pair in pair(&[("caddy", false)]), hint in 0..4_u8) {
        pair.retries = (1, 1);
        // Dials that failed show no request, and the hints may be right or wrong, or name one request for both.
        let (_, all) = play(&pair, |w, client| {
            let hinted = [client, 15 - client, 7, 8][usize::from(hint)];
            let mut a = refused(w, hinted);
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
