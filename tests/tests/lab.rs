//! The three measures, asserted at the level reached. One table holds the levels; it may only be tightened.

use trace502_tests::cells::{self, Choice};
use trace502_tests::proxies::Kind;
use trace502_tests::truth::Verdict;
use trace502_tests::world::alone;
use trace502_tests::{exact, recordings, secure_silence, silence};

/// What a proxy must reach.
struct Level {
    kind: Kind,
    /// Cells that may be wrong twice.
    wrong_cells: usize,
    /// Of a thousand requests at once, how many must be right.
    exact: usize,
    /// Incidents in that measure that nobody asked for.
    strays: usize,
    /// Incidents that five thousand healthy requests may yield.
    alarms: usize,
}

const fn level(kind: Kind, wrong_cells: usize, exact: usize, strays: usize, alarms: usize) -> Level {
    Level { kind, wrong_cells, exact, strays, alarms }
}

const LEVELS: [Level; 6] = [
    level(Kind::Nginx, 1, 990, 3, 1),
    level(Kind::Haproxy, 2, 990, 5, 2),
    level(Kind::Apache, 2, 985, 5, 2),
    level(Kind::Caddy, 3, 965, 10, 5),
    level(Kind::Envoy, 2, 980, 5, 3),
    // Behind nginx: only its cells are its own.
    level(Kind::Fpm, 1, 0, 0, 0),
];

/// Incidents that nobody asked for, among 512 streams of Envoy.
const STREAMS_STRAYS: usize = 5;

#[test]
fn every_cause_has_a_cell() {
    let catalogue: Vec<String> = trace502::causes::CATALOGUE.iter().map(|cause| cause.id.to_owned()).collect();
    assert_eq!(cells::uncovered(&catalogue), Vec::<String>::new(), "causes without a fault that makes them");
    assert_eq!(cells::uncovered(&["nobodys".to_owned()]), ["nobodys"], "one that no cell makes is found");
}

#[test]
fn every_cause_a_cell_expects_is_in_the_catalogue() {
    for fault in trace502_tests::faults::all() {
        for cause in fault.causes {
            assert!(trace502::causes::by_id(cause).is_some(), "{} expects {cause}", fault.name);
        }
    }
}

#[test]
fn cells_name_their_causes() {
    // The measures want the machine for themselves.
    let Some(_alone) = alone() else { return };
    let proxies = Kind::ALL.to_vec();
    let choice = Choice { proxies, agent: true, workers: 24, ..Choice::default() };
    let mut report = cells::run(&choice).unwrap();
    println!("{}{}", report.table(), report.line());
    cells::once_more(&mut report, &choice).unwrap();
    cells::misled_alone(&mut report, &choice).unwrap();
    let failures: Vec<String> =
        report.outcomes.iter().filter(|cell| !cell.right()).map(|cell| format!("{cell} {:?}", cell.records)).collect();
    let list = failures.join("\n");
    let misled = report.outcomes.iter().filter(|cell| cell.misled).count();
    assert_eq!(misled, 0, "a wrong cause is worse than none:\n{list}");
    let not_made = report.outcomes.iter().filter(|cell| matches!(cell.verdict, Verdict::NotMade(_))).count();
    assert!(not_made <= cells::STRAY, "the lab could not make {not_made} faults:\n{list}");
    for level in LEVELS {
        let wrong = report.outcomes.iter().filter(|cell| cell.kind == level.kind && !cell.right()).count();
        assert!(wrong <= level.wrong_cells, "{}: {wrong} cells are wrong:\n{list}", level.kind.name());
    }
    assert!(report.false_alarms.len() <= cells::STRAY, "{:#?}", report.false_alarms);
    assert_eq!(report.complaints, Vec::<String>::new());
}

#[test]
fn causes_are_exact_under_concurrency() {
    // The measures want the machine for themselves.
    let Some(_alone) = alone() else { return };
    for level in LEVELS.iter().filter(|level| level.exact > 0) {
        let measure = || exact::run(level.kind, 1000, exact::Clients::Plain, true).unwrap();
        let mut result = measure();
        println!("{result}");
        if result.right < level.exact || result.false_alarms > level.strays {
            result = measure();
            println!("once more: {result}");
        }
        assert!(result.right >= level.exact, "{result}\n{:#?}", result.wrong);
        assert!(result.false_alarms <= level.strays, "{result}\n{:#?}", result.wrong);
    }
}

#[test]
fn streams_of_one_connection_each_have_their_cause() {
    // The measures want the machine for themselves.
    let Some(_alone) = alone() else { return };
    // 64 at a time, inside TLS.
    let measure = || exact::run(Kind::Nginx, 512, exact::Clients::Streams, true).unwrap();
    let mut result = measure();
    println!("{result}");
    if result.right * 1000 < result.requests * 980 || result.false_alarms > 0 {
        result = measure();
        println!("once more: {result}");
    }
    assert!(result.right * 1000 >= result.requests * 980, "{result}\n{:#?}", result.wrong);
    assert_eq!(result.false_alarms, 0, "{result}\n{:#?}", result.wrong);
}

#[test]
fn streams_of_envoy_have_their_own_cause_or_none() {
    // The measures want the machine for themselves.
    let Some(_alone) = alone() else { return };
    // What they fail by is proven where each began a connection, and likely where requests like them failed before.
    let measure = || exact::run(Kind::Envoy, 512, exact::Clients::Streams, true).unwrap();
    let few = |result: &exact::Exactness| result.right * 1000 < result.requests * 900;
    let many = |result: &exact::Exactness| result.mistaken * 100 > result.requests;
    let mut result = measure();
    println!("{result}");
    // Not even once: a second measure is for what a loaded machine leaves without a cause, or makes strays of.
    let none_wrong = |result: &exact::Exactness| {
        assert_eq!(result.mistaken_for_certain, 0, "{result}\n{:#?}", result.wrong);
    };
    none_wrong(&result);
    if few(&result) || many(&result) || result.false_alarms > STREAMS_STRAYS {
        result = measure();
        println!("once more: {result}");
        none_wrong(&result);
    }
    assert!(!few(&result) && !many(&result), "{result}\n{:#?}", result.wrong);
    assert!(result.false_alarms <= STREAMS_STRAYS, "{result}\n{:#?}", result.wrong);
}

#[test]
fn health_is_silent() {
    // The measures want the machine for themselves.
    let Some(_alone) = alone() else { return };
    for level in LEVELS.iter().filter(|level| level.exact > 0) {
        let result = silence::run(level.kind, 5000, true).unwrap();
        println!("{result}");
        assert!(result.alarms.len() <= level.alarms, "{result}\n{:#?}", result.alarms);
        // Nearly all of it must have been health.
        assert!(result.failed * 20 < result.requests, "{result}");
    }
}

#[test]
fn health_inside_tls_and_http2_is_silent() {
    // The measures want the machine for themselves.
    let Some(_alone) = alone() else { return };
    for kind in [Kind::Nginx, Kind::Haproxy, Kind::Apache, Kind::Caddy, Kind::Envoy] {
        let result = secure_silence::run(kind, 1000, true).unwrap();
        println!("{result}");
        assert!(result.failed * 20 < result.requests, "{result}");
        assert!(result.alarms.len() <= result.failed + 1, "{result}\n{:#?}", result.alarms);
    }
}

#[test]
fn a_replay_repeats_the_recorder_byte_for_byte() {
    // The measures want the machine for themselves.
    let Some(_alone) = alone() else { return };
    let dir = std::env::temp_dir().join(format!("trace502-replay-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (kind, faults) in [
        (Kind::Nginx, ["exit-in-flight", "half-head-reset", "certificate-expired"]),
        (Kind::Haproxy, ["wrong-family", "segv-before", "own-503"]),
    ] {
        let file = dir.join(kind.name());
        let (said, told) = recordings::record(kind, &faults, &file).unwrap();
        assert!(told.len() >= faults.len(), "{told:#?}");
        assert_eq!(recordings::replayed(&file).unwrap(), said);
    }
    std::fs::remove_dir_all(dir).unwrap();
}
