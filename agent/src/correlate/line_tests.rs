//! One error, seen on the wire, by its log, or only inferred: always one incident, named after its best source.

use proptest::prelude::*;

use super::fixture::*;
use super::*;
use crate::logs::{Format, Hint, LogError};
use crate::model::Confidence::{Certain, Likely};
use crate::model::*;

/// What nginx writes of the request that [`World::error`] is about. The clock of the fixture's host starts at this.
fn line(w: &World, hint: Hint) -> LogError {
    let wall = 1_795_230_000_000_000 + (w.now / 1_000) as i64;
    LogError {
        format: Format::Nginx,
        time_micros: Some(wall - wall % 1_000_000),
        coarse_micros: 1_000_000,
        pid: Some(PROXY.pid),
        tid: Some(PROXY.tid),
        connection: Some(1),
        client: Some("127.0.0.1".parse().unwrap()),
        client_port: None,
        method: Some("GET".into()),
        host: Some("shop.example".into()),
        path: Some("/api/cart".into()),
        upstream: Some(UPSTREAM.into()),
        upstream_local_port: None,
        status: Some(502),
        hint,
    }
}

fn refused_line(w: &World) -> LogError {
    line(w, Hint::Connect { errno: Some(libc::ECONNREFUSED) })
}

/// A line that is read when every deadline before it is over.
fn say(w: &mut World, line: &LogError) {
    w.engine.tick(w.now - 1, &mut w.host);
    w.engine.log(w.now, line, &mut w.host);
    w.notices.extend(w.engine.drain());
}

/// The answer that nobody could read, on the connection of [`World::error`].
fn unseen(w: &mut World) -> &mut World {
    let mut error = w.error(ClientOutcome::Unseen);
    error.conn.request_head = vec![0x16, 3, 1, 2, 0, 1];
    w.see(Fact::Client(error))
}

fn failed(w: &mut World) -> &mut World {
    let attempt = w.refused();
    w.tell(attempt).pass(80_000)
}

#[test]
fn an_error_on_the_wire_and_its_line_are_one_incident() {
    for line_first in [true, false] {
        let mut w = World::new("nginx");
        failed(&mut w);
        let line = refused_line(&w);
        if line_first {
            say(&mut w, &line);
            w.pass(MILLI).answered(502);
        } else {
            w.answered(502).pass(30 * MILLI);
            say(&mut w, &line);
        }
        w.pass(SECOND);
        let i = w.expect("no_listener", Certain);
        assert_eq!((i.seen, i.status), (Seen::Wire, Some(502)));
        assert_eq!(i.evidence.iter().any(|e| e.kind == "log"), line_first);
    }
}

#[test]
fn what_could_only_be_inferred_is_named_after_the_log_that_tells_it() {
    for line_first in [true, false] {
        let mut w = World::new("nginx");
        failed(&mut w);
        let line = refused_line(&w);
        if line_first {
            say(&mut w, &line);
            unseen(w.pass(MILLI));
        } else {
            unseen(&mut w).pass(30 * MILLI);
            say(&mut w, &line);
        }
        let i = w.expect("no_listener", Certain);
        assert_eq!((i.seen, i.status), (Seen::Log, Some(502)));
        assert_eq!(i.client.as_deref(), Some("127.0.0.1:51234"));
    }
}

#[test]
fn without_a_log_it_is_inferred_after_a_while() {
    let mut w = World::new("nginx");
    unseen(failed(&mut w));
    w.pass(pending::INFERRED - MILLI);
    let now = w.now;
    w.engine.tick(now, &mut w.host);
    assert!(w.engine.drain().iter().all(|n| !matches!(n, Notice::Incident(_))));
    let i = w.expect("no_listener", Certain);
    assert_eq!((i.seen, i.status, i.status_word().as_str()), (Seen::Inferred, None, "unknown"));
    // A line that comes late is the same error once more.
    let line = refused_line(&w);
    say(&mut w, &line);
    w.incident();
}

#[test]
fn what_was_inferred_of_a_request_that_a_retry_rescued_is_silent() {
    let mut w = World::new("envoy");
    unseen(failed(&mut w)).pass(100 * MILLI).see(Fact::Rescued { client: 7 });
    assert!(w.all().is_empty());
    assert_eq!(w.failures(), ["no_listener"]);
}

#[test]
fn an_answer_that_cannot_be_read_after_no_failure_is_no_error() {
    let mut w = World::new("nginx");
    unseen(&mut w).pass(SECOND);
    assert!(w.all().is_empty(), "no attempt");
    let mut w = World::new("nginx");
    let mut left = w.attempt();
    left.conn.closed_first = true;
    w.tell(left).pass(50_000);
    unseen(&mut w);
    assert!(w.all().is_empty(), "given up at once: its client may have left");
    let mut w = World::new("nginx");
    failed(&mut w);
    w.signal(PROXY.pid, libc::SIGTERM, proc(1, "systemd"));
    unseen(&mut w);
    assert!(w.all().is_empty(), "a proxy that is being stopped");
}

#[test]
fn a_line_about_an_attempt_alone_proves_no_error() {
    let mut w = World::new("nginx");
    failed(&mut w);
    let line = refused_line(&w);
    say(&mut w, &line);
    w.pass(10 * SECOND);
    assert!(w.all().is_empty(), "the next try may have gone well");
}

#[test]
fn the_end_of_a_request_that_only_the_log_tells_is_an_incident() {
    let mut w = World::new("nginx");
    let mut attempt = w.refused();
    attempt.bound = None;
    w.tell(attempt).pass(SECOND);
    let line = LogError { upstream: Some("shop".into()), ..line(&w, Hint::NoLiveUpstream) };
    say(&mut w, &line);
    w.pass(SECOND);
    let i = w.expect("no_live_upstream", Certain);
    assert_eq!((i.seen, i.status), (Seen::Log, Some(502)));
    assert_eq!(i.request.path.as_deref(), Some("/api/cart"));
    assert_eq!(i.client.as_deref(), Some("127.0.0.1"));
    assert!(i.evidence.iter().any(|e| e.kind == "log" && e.text.contains("no upstream was left")), "{i:#?}");
}

#[test]
fn a_name_that_did_not_resolve_is_told_from_the_log() {
    let mut w = World::new("nginx");
    let line = LogError { upstream: None, ..line(&w, Hint::Unresolved { name: "nx\x1b[2J.example".into() }) };
    say(&mut w, &line);
    let i = w.expect("dns_failure", Likely);
    assert!(serde_json::to_string(&i).unwrap().contains("nx\\\\x1b[2J.example"), "{i:#?}");
}

#[test]
fn the_attempt_that_a_line_means_is_found_by_process_upstream_and_time() {
    let mut w = World::new("caddy");
    let mut attempt = w.attempt();
    attempt.bound = None;
    attempt.conn.reset = Some(w.now - 1_000);
    attempt.conn.errno = Some(libc::ECONNRESET);
    attempt.peer = Some(w.closed_peer(SERVER));
    let port = attempt.conn.flow.unwrap().local.port();
    let mut other = attempt.clone();
    other.conn.cookie += 1;
    other.conn.flow.as_mut().unwrap().local.set_port(port + 1);
    other.conn.reset = None;
    other.conn.errno = None;
    other.conn.fin = Some(w.now - 1_000);
    w.tell(attempt).tell(other).pass(MILLI);
    let line = LogError {
        format: Format::Caddy,
        coarse_micros: 0,
        tid: None,
        client_port: Some(40_404),
        upstream_local_port: Some(port),
        ..line(&w, Hint::Receive { errno: Some(libc::ECONNRESET) })
    };
    say(&mut w, &line);
    let i = w.expect("upstream_reset", Certain);
    assert_eq!((i.seen, i.client.as_deref()), (Seen::Log, Some("127.0.0.1:40404")));
}

#[test]
fn a_line_that_nothing_explains_says_so() {
    let mut w = World::new("haproxy");
    let line = LogError {
        format: Format::Haproxy,
        coarse_micros: 2_000,
        upstream: Some("be/srv1".into()),
        client_port: Some(40_404),
        status: Some(503),
        ..line(&w, Hint::Connect { errno: None })
    };
    say(&mut w, &line);
    let i = w.expect("unattributed", Confidence::Unknown);
    assert_eq!((i.why.as_deref(), i.status), (Some("wire_not_visible"), Some(503)));
    assert!(i.summary.contains("haproxy's log says: connect() failed (be/srv1), 503"), "{}", i.summary);
}

#[test]
fn errors_of_several_clients_each_keep_their_own_line() {
    let mut w = World::new("haproxy");
    let say_for = |w: &mut World, port: u16| {
        let line = LogError {
            format: Format::Haproxy,
            coarse_micros: 2_000,
            client_port: Some(port),
            upstream: None,
            status: Some(503),
            ..line(w, Hint::NoLiveUpstream)
        };
        say(w, &line);
    };
    w.answered(503);
    // Of the wire's client, and of another one that nobody saw.
    say_for(&mut w, 51_234);
    say_for(&mut w, 40_404);
    let all = w.all();
    let mut seen: Vec<_> = all.iter().map(|i| (i.client.as_deref().unwrap(), i.seen)).collect();
    seen.sort_by_key(|(client, _)| *client);
    assert_eq!(seen, [("127.0.0.1:40404", Seen::Log), ("127.0.0.1:51234", Seen::Wire)]);
}

#[test]
fn a_log_in_another_time_zone_tells_the_same_moment() {
    for zone in [-5, 0, 9] {
        let mut w = World::new("nginx");
        failed(&mut w);
        let mut line = refused_line(&w);
        line.time_micros = line.time_micros.map(|t| t + zone * 3_600_000_000);
        w.answered(502);
        say(&mut w, &line);
        let nothing = LogError { hint: Hint::NoLiveUpstream, ..line };
        say(&mut w, &nothing);
        w.expect("no_listener", Certain);
    }
}

#[test]
fn the_two_logs_of_nginx_tell_one_error() {
    let mut w = World::new("nginx");
    let mut attempt = w.refused();
    attempt.bound = None;
    w.tell(attempt).pass(MILLI);
    let reason = refused_line(&w);
    say(&mut w, &reason);
    w.pass(5 * MILLI);
    let access = LogError {
        format: Format::NginxAccess,
        pid: None,
        tid: None,
        connection: None,
        host: None,
        upstream: None,
        status: Some(502),
        hint: Hint::StatusOnly,
        ..reason
    };
    say(&mut w, &access);
    let i = w.expect("no_listener", Certain);
    assert_eq!((i.seen, i.status, i.proxy.pid), (Seen::Log, Some(502), PROXY.pid));
}

#[test]
fn a_line_is_not_taken_for_that_of_another_client_of_the_same_worker() {
    let mut w = World::new("nginx");
    failed(&mut w);
    let attempt = refused_line(&w);
    say(&mut w, &attempt);
    unseen(w.pass(MILLI)).pass(20 * MILLI);
    let other = LogError { path: Some("/other".into()), upstream: None, ..line(&w, Hint::NoLiveUpstream) };
    say(&mut w, &other);
    let all = w.all();
    let told: Vec<_> = all.iter().map(|i| (i.cause.as_str(), i.request.path.as_deref())).collect();
    assert_eq!(told, [("no_listener", Some("/api/cart")), ("no_live_upstream", Some("/other"))]);
}

#[test]
fn the_line_of_a_request_that_was_rescued_is_not_taken_for_that_of_the_next_error() {
    let mut w = World::new("nginx");
    let mut other = w.refused();
    other.bound.as_mut().unwrap().client = 8;
    w.tell(other);
    let rescued = LogError { path: Some("/rescued".into()), ..refused_line(&w) };
    say(&mut w, &rescued);
    w.pass(300 * MILLI);
    failed(&mut w);
    unseen(&mut w).pass(MILLI);
    let own = refused_line(&w);
    say(&mut w, &own);
    let i = w.expect("no_listener", Certain);
    assert_eq!((i.seen, i.request.path.as_deref()), (Seen::Log, Some("/api/cart")));

    // At the same moment nobody can tell which is which.
    let mut w = World::new("nginx");
    let mut other = w.refused();
    other.bound.as_mut().unwrap().client = 8;
    failed(w.tell(other));
    for path in ["/a", "/b"] {
        let line = LogError { path: Some(path.into()), ..refused_line(&w) };
        say(&mut w, &line);
    }
    unseen(&mut w);
    let i = w.expect("no_listener", Certain);
    assert_eq!((i.seen, i.request.path), (Seen::Inferred, None));
}

#[test]
fn a_failed_attempt_after_which_no_upstream_was_left_is_one_error() {
    for line_first in [true, false] {
        let mut w = World::new("nginx");
        let mut other = w.refused();
        other.bound.as_mut().unwrap().client = 8;
        failed(w.tell(other));
        if !line_first {
            unseen(&mut w);
        }
        let attempt = refused_line(&w);
        say(&mut w, &attempt);
        let end = LogError { upstream: None, ..line(&w, Hint::NoLiveUpstream) };
        say(&mut w, &end);
        if line_first {
            unseen(w.pass(MILLI));
        }
        w.expect("no_listener", Certain);
    }
}

#[test]
fn an_end_without_an_attempt_is_another_error_than_the_one_that_was_inferred() {
    let mut w = World::new("nginx");
    let mut other = w.refused();
    other.bound.as_mut().unwrap().client = 8;
    failed(w.tell(other));
    unseen(&mut w).pass(MILLI);
    let end =
        LogError { upstream: None, connection: Some(2), path: Some("/b".into()), ..line(&w, Hint::NoLiveUpstream) };
    say(&mut w, &end);
    let all = w.all();
    let told: Vec<_> = all.iter().map(|i| (i.cause.as_str(), i.seen)).collect();
    assert_eq!(told, [("no_live_upstream", Seen::Log), ("no_listener", Seen::Inferred)]);
}

#[test]
fn a_flood_of_lines_is_bounded_and_counted() {
    let mut w = World::new("nginx");
    for n in 0..6_000 {
        let line = LogError { path: Some(format!("/{n}")), ..refused_line(&w) };
        say(w.pass(1_000), &line);
    }
    assert!(w.engine.counters().memory_overflow >= 1_000);
    assert_eq!(w.engine.counters().lines, 6_000);
    assert!(w.all().is_empty());
}

/// What happens to a request whose client cannot be read, in the order in which nginx does it.
#[derive(Clone, Copy)]
enum Step {
    Attempt,
    Line,
    Error,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A line may be read late, but the lines of a log are read in their order.
    #[test]
    fn no_interleaving_swaps_the_lines_of_two_requests(
        order in prop::collection::vec(any::<bool>(), 6),
        gaps in prop::collection::vec(1_000..30_000_000_u64, 6),
        late in any::<bool>(),
    ) {
        let mut w = World::new("nginx");
        let story = match late {
            false => [Step::Attempt, Step::Line, Step::Error],
            true => [Step::Attempt, Step::Error, Step::Line],
        };
        let mut at = [0, 0];
        for turn in 0..6 {
            let mut who = usize::from(order[turn]);
            if at[who] == 3 {
                who = 1 - who;
            }
            let client = [7, 8][who];
            w.pass(gaps[turn]);
            match story[at[who]] {
                Step::Attempt => {
                    let mut attempt = w.refused();
                    attempt.bound.as_mut().unwrap().client = client;
                    w.tell(attempt);
                }
                Step::Line => {
                    let line = LogError { path: Some(format!("/{client}")), ..refused_line(&w) };
                    say(&mut w, &line);
                }
                Step::Error => {
                    let mut error = w.error(ClientOutcome::Unseen);
                    error.conn.cookie = client;
                    error.conn.request_head = vec![0x16, 3, 1, 2];
                    error.conn.flow.as_mut().unwrap().remote.set_port(51_000 + client as u16);
                    w.see(Fact::Client(error));
                }
            }
            at[who] += 1;
        }
        let all = w.all();
        prop_assert_eq!(all.len(), 2);
        for incident in all {
            let client = incident.client.as_deref().unwrap().rsplit_once(":5100").unwrap().1.to_owned();
            let path = incident.request.path.clone();
            prop_assert!(path.is_none() || path == Some(format!("/{client}")), "{:#?}", incident);
        }
    }
}

/// One request of a path failed at its upstream, the next was refused by a limit; their lines are read together.
#[test]
fn lines_of_one_path_are_told_apart_by_their_connections_and_upstreams() {
    for lines_first in [true, false] {
        let mut w = World::new("nginx");
        let refused = refused_line(&w);
        let limit = Hint::Refused { rate: true };
        let limited = LogError { connection: Some(3), upstream: None, status: None, ..line(&w, limit) };
        failed(&mut w).answered(502);
        let mut error = w.pass(300_000).error(ClientOutcome::Status(503));
        error.conn.cookie = 8;
        let tell = |w: &mut World| {
            for line in [&refused, &limited] {
                w.engine.log(w.now + 50 * MILLI, line, &mut w.host);
            }
        };
        if lines_first {
            tell(&mut w);
            w.see(Fact::Client(error));
        } else {
            w.see(Fact::Client(error));
            tell(&mut w);
        }
        let all = w.pass(SECOND).all();
        let causes: Vec<&str> = all.iter().map(|i| i.cause.as_str()).collect();
        assert_eq!(causes, ["no_listener", "proxy_limit"], "{lines_first}: {all:#?}");
    }
}

/// Errors of a flood and a line for each, each of its own path or all of one; how often any was compared with a line.
fn looked_at(errors: u64, paths: u64, format: Format, line_first: bool) -> u64 {
    let mut w = World::new("nginx");
    for client in 1..=errors {
        let path = format!("/{}", client % paths);
        let mut attempt = w.refused();
        attempt.conn.cookie = 1_000_000 + client;
        attempt.bound.as_mut().unwrap().client = client;
        w.tell(attempt).pass(80_000);
        let hint = if format == Format::Nginx { Hint::Connect { errno: None } } else { Hint::StatusOnly };
        let own = LogError { format, connection: None, path: Some(path.clone()), ..line(&w, hint) };
        let mut error = w.error(ClientOutcome::Status(502));
        error.conn.cookie = client;
        error.conn.request_head = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n").into_bytes();
        if line_first {
            w.engine.log(w.now, &own, &mut w.host);
        }
        w.see(Fact::Client(error)).pass(20_000);
        if !line_first {
            w.engine.log(w.now, &own, &mut w.host);
        }
        w.notices.extend(w.engine.drain());
    }
    let looked_at = w.engine.lines.looked_at.get();
    assert_eq!(w.all().len() as u64, errors, "{paths} paths in {format:?}");
    looked_at
}

#[test]
fn a_line_costs_the_same_however_many_errors_there_are() {
    const FLOOD: u64 = 3_000;
    for format in [Format::Nginx, Format::NginxAccess] {
        for (paths, line_first) in [(1, true), (1, false), (FLOOD + 1, true), (FLOOD + 1, false)] {
            let looks = looked_at(FLOOD, paths, format, line_first);
            assert!(looks <= 6 * FLOOD, "{looks} looks for {FLOOD} lines of {paths} paths in {format:?}, {line_first}");
        }
    }
}
