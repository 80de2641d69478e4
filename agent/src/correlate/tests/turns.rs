//! Streams that Envoy reads together and begins connections for in the same order.

use std::num::NonZero;

use super::*;

const CLIENT: Cookie = 7;

/// What a stream's upstream is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    Unreachable,
    /// It takes the request, and resets.
    Resets,
    Well,
    /// Envoy answers it by itself.
    Own,
}

impl Fate {
    fn cause(self) -> &'static str {
        match self {
            Fate::Refused => "no_listener",
            Fate::Unreachable => "network_unreachable",
            Fate::Resets => "upstream_reset",
            Fate::Well | Fate::Own => "none",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    fate: Fate,
    /// There is a connection for it, or it needs none.
    begins: bool,
}

const fn stream(fate: Fate) -> Stream {
    Stream { fate, begins: !matches!(fate, Fate::Own) }
}

fn endpoint(fate: Fate) -> Endpoint {
    Endpoint::Tcp(addr(match fate {
        Fate::Refused => UPSTREAM,
        Fate::Unreachable => "192.0.2.1:8080",
        Fate::Resets => OTHER,
        Fate::Well | Fate::Own => "127.0.0.1:9001",
    }))
}

/// What is told of the connection that was begun for a stream, and carried the request of another if it carried any.
fn begun(w: &mut World, fate: Fate, bound: Bound, carried: &str) -> Option<Attempt> {
    let mut a = match fate {
        Fate::Well | Fate::Own => return None,
        Fate::Refused | Fate::Unreachable => w.refused(),
        Fate::Resets => closed_early(w, CLIENT, carried),
    };
    a.endpoint = endpoint(fate);
    if let Endpoint::Tcp(remote) = a.endpoint {
        a.conn.flow.as_mut().unwrap().remote = remote;
    }
    if fate == Fate::Unreachable {
        (a.conn.errno, a.conn.reset) = (Some(libc::ENETUNREACH), None);
    }
    if fate == Fate::Resets {
        (a.conn.fin, a.conn.reset) = (None, Some(w.now));
        a.conn.phase = Phase::Asked;
    }
    (a.bound, a.conn.in_turn) = (Some(bound), true);
    // In the order in which they were begun.
    a.conn.opened = Some(w.now - MILLI + u64::from(bound.request));
    a.conn.asked = a.conn.asked.map(|_| w.now - MILLI / 2);
    Some(a)
}

/// Streams that were read in one turn: what was begun is told first, and then the errors. Those of one upstream are
/// carried in the order of `turned`, counted from the last.
fn turn(w: &mut World, first: u32, streams: &[Stream], path: impl Fn(usize, Fate) -> String, turned: bool) {
    let number = |n: usize| first + 2 * n as u32;
    let begins: Vec<usize> = (0..streams.len()).filter(|n| streams[*n].begins).collect();
    let (read, count) = (streams.len(), begins.len());
    w.pass(10 * MILLI);
    let asked = w.now - 2 * MILLI;
    for (place, n) in begins.iter().enumerate() {
        let fate = streams[*n].fate;
        let alike: Vec<usize> = begins.iter().copied().filter(|other| streams[*other].fate == fate).collect();
        let own = alike.iter().position(|other| other == n).unwrap();
        let carried = if turned { alike[alike.len() - 1 - own] } else { *n };
        let choices = (read - place) as u8;
        let bound = Bound { client: CLIENT, request: number(place), choices, retry: false, proven: false };
        if let Some(a) = begun(w, fate, bound, &path(carried, fate)) {
            w.tell(a);
        }
    }
    w.pass(MILLI);
    for (n, one) in streams.iter().enumerate().filter(|(_, one)| one.fate != Fate::Well) {
        let mut e = error(w, CLIENT, &path(n, one.fate), ClientOutcome::Status(503));
        (e.conn.request, e.conn.stream, e.conn.asked) = (number(n), true, Some(asked + n as u64));
        e.conn.begun_for = NonZero::new((read - count + 1) as u8);
        w.pass(1_000).see(Fact::Client(e));
    }
    w.pass(40 * MILLI);
}

/// Paths that nothing is alike in.
fn apart(n: usize, _: Fate) -> String {
    format!("/{n}")
}

fn told(mut w: World) -> Vec<(String, Confidence)> {
    w.all().into_iter().map(|i| (i.cause, i.confidence)).collect()
}

fn tell(streams: &[Stream]) -> Vec<(String, Confidence)> {
    let mut w = World::new("envoy");
    turn(&mut w, 1, streams, apart, false);
    told(w)
}

const REFUSED: Stream = stream(Fate::Refused);
const UNREACHABLE: Stream = stream(Fate::Unreachable);
const RESETS: Stream = stream(Fate::Resets);
/// It takes a connection that is there.
const IDLE: Stream = Stream { fate: Fate::Well, begins: false };
const OWN: Stream = stream(Fate::Own);

#[test]
fn where_each_stream_began_a_connection_each_has_its_own() {
    let each = [("no_listener".to_owned(), Certain), ("network_unreachable".to_owned(), Certain)];
    assert_eq!(tell(&[REFUSED, stream(Fate::Well), UNREACHABLE]), each);
}

/// The first stream took a connection that was there: what was begun for the second is bound to it, and so on.
#[test]
fn one_that_begins_none_leaves_the_others_without_a_cause() {
    let all = tell(&[IDLE, REFUSED, UNREACHABLE]);
    assert!(all.len() == 2 && all.iter().all(|(cause, _)| cause == "unattributed"), "{all:?}");
}

#[test]
fn what_others_sent_tells_how_far_all_between_them_moved() {
    let all = tell(&[IDLE, RESETS, REFUSED, UNREACHABLE, RESETS]);
    let place = [("no_listener".to_owned(), Likely), ("network_unreachable".to_owned(), Likely)];
    assert_eq!(
        all.iter().filter(|(cause, _)| cause != "upstream_reset").cloned().collect::<Vec<_>>(),
        place,
        "{all:?}"
    );
}

#[test]
fn what_all_that_failed_have_in_common_is_likely() {
    let all = tell(&[IDLE, REFUSED, REFUSED]);
    assert_eq!(all, [("no_listener".to_owned(), Likely), ("no_listener".to_owned(), Likely)]);
}

#[test]
fn where_requests_like_it_went_before_is_likely_to_be_where_this_one_went() {
    let mut w = World::new("envoy");
    let by_fate = |_: usize, fate: Fate| format!("/{fate:?}");
    turn(&mut w, 1, &[REFUSED, UNREACHABLE], by_fate, false);
    turn(&mut w, 5, &[IDLE, UNREACHABLE, REFUSED], by_fate, false);
    let all = told(w);
    assert_eq!(all[2..], [("network_unreachable".to_owned(), Likely), ("no_listener".to_owned(), Likely)], "{all:?}");
}

#[test]
fn a_stream_that_began_nothing_is_not_blamed_on_what_another_met() {
    let mut w = World::new("envoy");
    turn(&mut w, 1, &[OWN], apart, false);
    w.pass(0);
    let mut e = error(&mut w, CLIENT, "/own", ClientOutcome::Status(503));
    (e.conn.request, e.conn.stream, e.conn.asked) = (3, true, Some(w.now - 20 * MILLI));
    e.conn.begun_for = NonZero::new(2);
    let mut other = w.refused();
    other.bound = Some(Bound { client: 8, request: 1, choices: 1, retry: false, proven: false });
    w.tell(other).pass(MILLI).see(Fact::Client(e));
    let all = told(w);
    assert!(all.len() == 2 && all.iter().all(|(cause, _)| cause == "unattributed"), "{all:?}");
}

/// More was begun than was read, or a stream was not seen: then the order is none.
#[test]
fn a_turn_in_disorder_proves_nothing() {
    let mut w = World::new("envoy");
    w.pass(10 * MILLI);
    for (request, fate) in [(1, Fate::Refused), (3, Fate::Unreachable)] {
        let bound = Bound { client: CLIENT, request, choices: 1, retry: false, proven: false };
        let a = begun(&mut w, fate, bound, "/").unwrap();
        w.tell(a);
    }
    for request in [1, 3] {
        let mut e = error(&mut w, CLIENT, "/a", ClientOutcome::Status(503));
        (e.conn.request, e.conn.stream, e.conn.asked) = (request, true, Some(w.now - 2 * MILLI));
        w.pass(1_000).see(Fact::Client(e));
    }
    let all = told(w);
    assert!(all.len() == 2 && all.iter().all(|(cause, _)| cause == "unattributed"), "{all:?}");
}

/// Two ask for the same: what one of them sent says nothing of the other, which was never connected.
#[test]
fn what_was_sent_is_not_taken_for_that_of_another_that_asked_the_same() {
    let mut w = World::new("envoy");
    turn(&mut w, 1, &[IDLE, REFUSED, RESETS], |_, _| "/same".to_owned(), false);
    let all = told(w);
    assert!(all[0].0 != "upstream_reset", "{all:?}");
    assert!(all.iter().all(|(_, confidence)| *confidence < Certain), "{all:?}");
}

/// A took a connection that was there, and its upstream answered. The refusal of Z was there before the thread slept, and
/// what was begun for Z again looks like what A began.
#[test]
fn another_try_is_not_taken_for_what_a_stream_of_the_turn_began() {
    for own_answer in [true, false] {
        let mut w = World::new("envoy");
        let began = w.now;
        let mut first = w.refused();
        first.bound = Some(Bound { client: 8, request: 1, choices: 1, retry: false, proven: false });
        first.conn.opened = Some(began);
        w.pass(MILLI).tell(first);
        let asked = w.now;
        w.pass(MILLI);
        let bound = Bound { client: CLIENT, request: 1, choices: 1, retry: false, proven: false };
        let again = begun(&mut w, Fate::Refused, bound, "").unwrap();
        w.pass(MILLI).tell(again);
        if own_answer {
            let mut answered = closed_early(&mut w, CLIENT, "/a");
            (answered.bound, answered.handover, answered.conn.status) = (None, Handover::Answered, Some(503));
            (answered.conn.asked, answered.conn.fin) = (Some(asked + MILLI), None);
            answered.conn.phase = Phase::Answered;
            w.tell(answered);
        }
        for (client, path) in [(CLIENT, "/a"), (8, "/z")] {
            let mut e = error(&mut w, client, path, ClientOutcome::Status(503));
            (e.conn.stream, e.conn.asked) = (true, Some(if client == 8 { began - MILLI } else { asked }));
            e.conn.begun_for = NonZero::new(1);
            w.pass(1_000).see(Fact::Client(e));
        }
        w.pass(40 * MILLI);
        let all = w.all();
        let a = of_client(&all, CLIENT);
        assert!(a.cause != "no_listener" || !own_answer && a.confidence < Certain, "{all:#?}");
        let z = of_client(&all, 8);
        assert_eq!(z.cause, "no_listener", "{all:#?}");
    }
}

/// An earlier failure whose client was told is tried no more.
#[test]
fn failures_that_were_told_leave_later_streams_their_own() {
    let mut w = World::new("envoy");
    turn(&mut w, 1, &[REFUSED], apart, false);
    turn(&mut w, 3, &[REFUSED], apart, false);
    assert_eq!(told(w), [("no_listener".to_owned(), Certain), ("no_listener".to_owned(), Certain)]);
}

fn any_stream() -> impl Strategy<Value = Stream> {
    let fate = prop::sample::select(vec![Fate::Refused, Fate::Unreachable, Fate::Resets, Fate::Well, Fate::Own]);
    // Only where an upstream is well, or was, is there a connection already.
    (fate, any::<bool>()).prop_map(|(fate, idle)| match fate {
        Fate::Well => Stream { fate, begins: !idle },
        fate => stream(fate),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever begins a connection and whatever does not, and whichever of several carries whose request.
    #[test]
    fn no_stream_is_told_for_certain_what_another_met(
        turns in prop::collection::vec((prop::collection::vec(any_stream(), 1..9), any::<bool>()), 1..5),
    ) {
        let mut w = World::new("envoy");
        let mut first = 1;
        let mut truth = Vec::new();
        for (streams, turned) in &turns {
            let path = |n: usize, fate: Fate| format!("/{fate:?}/{}", first + 2 * n as u32);
            turn(&mut w, first, streams, path, *turned);
            truth.extend(streams.iter().map(|one| one.fate).filter(|fate| *fate != Fate::Well));
            first += 2 * streams.len() as u32;
        }
        let all = w.all();
        prop_assert_eq!(all.len(), truth.len());
        for incident in &all {
            let path = incident.request.path.clone().unwrap_or_default();
            let fate = truth.iter().find(|fate| path.starts_with(&format!("/{fate:?}/"))).unwrap();
            prop_assert!(
                incident.confidence < Certain || incident.cause == fate.cause() || incident.cause == "unattributed",
                "{:#?}", incident
            );
        }
    }
}
