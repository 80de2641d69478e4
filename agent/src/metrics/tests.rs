//! What a scraper gets to see.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::model::*;
use crate::status::{HistoryStatus, Probe, Status, Watched};

pub fn incident(upstream: &str, cause: &str) -> Incident {
    Incident {
        v: RECORD_VERSION,
        id: "0198-7".into(),
        time: "2026-11-21T03:00:00.000000Z".into(),
        status: Some(502),
        grpc_status: None,
        seen: Seen::Wire,
        proxy: Process { name: "nginx".into(), pid: 7, ..Process::default() },
        client: None,
        request: Request::default(),
        upstream: Some(Upstream { addr: upstream.into(), process: None }),
        cause: cause.into(),
        group: Group::Connect,
        confidence: Confidence::Certain,
        summary: String::new(),
        evidence: vec![],
        fix: vec![],
        attempts: vec![AttemptSummary {
            upstream: upstream.into(),
            cause: cause.into(),
            reused: false,
            connect_us: Some(90),
            wait_us: None,
            bytes: 0,
        }],
        why: (cause == "unattributed").then(|| "started_later".into()),
    }
}

fn tell(metrics: &Metrics, notice: Notice) {
    let wall = when::parse_rfc3339("2026-11-21T03:00:00.002000Z").unwrap();
    metrics.notice(&notice, Instant::now(), wall);
}

/// Metrics in which everything there is has a value.
pub fn full(max_series: usize) -> Metrics {
    let board = Board::default();
    board.publish(
        Status {
            probes: vec![
                Probe { name: "tcp_reset".into(), provider: "tp_btf".into(), attached: true, required: true },
                Probe { name: "tcp_drop".into(), provider: "none".into(), attached: false, required: false },
            ],
            events: [("attempt".to_owned(), 12)].into(),
            lost: [("ring".to_owned(), 3), ("history".to_owned(), 1)].into(),
            proxies: vec![Watched { name: "nginx".into(), pid: 7 }, Watched { name: "nginx".into(), pid: 8 }],
        },
        Instant::now(),
    );
    board.lost("history", 4);
    board.history(HistoryStatus { on: true, written: 9, bytes: 4096, ..HistoryStatus::default() });
    board.running(String::new());
    let metrics = Metrics::new(max_series, Duration::from_secs(60), board);
    tell(&metrics, Notice::Incident(Box::new(incident("127.0.0.1:8000", "no_listener"))));
    tell(&metrics, Notice::Incident(Box::new(incident("127.0.0.1:8000", "unattributed"))));
    tell(
        &metrics,
        Notice::Failure(UpstreamFailure {
            proxy: "nginx".into(),
            upstream: "127.0.0.1:8000".into(),
            cause: "no_listener".into(),
        }),
    );
    tell(&metrics, Notice::Death(DeathNotice { name: "uvicorn".into(), how: "oom" }));
    tell(
        &metrics,
        Notice::Reset(ResetNotice {
            proxy: "nginx".into(),
            upstream: "127.0.0.1:8000".into(),
            side: "upstream",
            reason: "NO_SOCKET".into(),
        }),
    );
    // 20 and 50 microseconds, and three seconds.
    let mut times = Times { micros: 3_000_070, ..Times::default() };
    [5, 6, 22].iter().for_each(|power| times.counts[*power] = 1);
    metrics.connected("nginx", "127.0.0.1:8000", &times, Instant::now());
    metrics
}

fn lines(text: &str, start: &str) -> Vec<String> {
    text.lines().filter(|l| l.starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn every_metric_of_the_contract_is_there() {
    let text = full(100).render(Format::OpenMetrics);
    for line in [
        r#"trace502_gateway_errors_total{proxy="nginx",upstream="127.0.0.1:8000",status="502",cause="no_listener"} 1 # {incident="0198-7"} 1.0 1795230000.0"#,
        r#"trace502_unattributed_total{why="started_later"} 1"#,
        r#"trace502_resets_total{proxy="nginx",upstream="127.0.0.1:8000",side="upstream",reason="NO_SOCKET"} 1"#,
        r#"trace502_upstream_failures_total{proxy="nginx",upstream="127.0.0.1:8000",cause="no_listener"} 1"#,
        r#"trace502_upstream_connect_seconds_sum{proxy="nginx",upstream="127.0.0.1:8000"} 3.00007"#,
        r#"trace502_upstream_connect_seconds_count{proxy="nginx",upstream="127.0.0.1:8000"} 3"#,
        r#"trace502_upstream_connect_seconds_bucket{le="0.000032",proxy="nginx",upstream="127.0.0.1:8000"} 1"#,
        r#"trace502_upstream_connect_seconds_bucket{le="0.000064",proxy="nginx",upstream="127.0.0.1:8000"} 2"#,
        r#"trace502_upstream_connect_seconds_bucket{le="4.194304",proxy="nginx",upstream="127.0.0.1:8000"} 3"#,
        r#"trace502_upstream_connect_seconds_bucket{le="+Inf",proxy="nginx",upstream="127.0.0.1:8000"} 3"#,
        r#"trace502_process_deaths_total{name="uvicorn",how="oom"} 1"#,
        r#"trace502_attribution_seconds_bucket{le="0.0025"} 2"#,
        r#"trace502_events_total{kind="attempt"} 12"#,
        r#"trace502_events_lost_total{where="ring"} 3"#,
        r#"trace502_events_lost_total{where="history"} 5"#,
        r#"trace502_probe_attached{probe="tcp_reset",provider="tp_btf"} 1"#,
        r#"trace502_probe_attached{probe="tcp_drop",provider="none"} 0"#,
        r#"trace502_proxy_processes{proxy="nginx"} 2"#,
        r#"trace502_ready 1"#,
        r#"trace502_history_size_bytes 4096"#,
        r#"# UNIT trace502_attribution_seconds seconds"#,
        r#"# EOF"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nnot in\n{text}");
    }
    for start in
        ["trace502_build_info{", "process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "]
    {
        assert_eq!(lines(&text, start).len(), 1, "{start}\n{text}");
    }
}

#[test]
fn promtool_finds_nothing_to_complain() {
    let metrics = full(100);
    let hostile = incident("a\"b\\c\nd\u{1b}[31m\u{202e} # {x} é", "no_listener");
    tell(&metrics, Notice::Incident(Box::new(hostile)));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in Debian's package `prometheus`; cargo xtask setup installs it");
    promtool.stdin.take().unwrap().write_all(metrics.render(Format::Classic).as_bytes()).unwrap();
    let out = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn hostile_names_stay_inside_their_label() {
    let metrics = full(100);
    tell(&metrics, Notice::Incident(Box::new(incident("x\"} 1\nevil_total 5\u{1b}]0;\u{202e}", "no_listener"))));
    tell(&metrics, Notice::Incident(Box::new(incident(&"long".repeat(1000), "no_listener"))));
    let text = metrics.render(Format::OpenMetrics);
    assert!(lines(&text, "evil").is_empty(), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert!(lines(&text, "trace502_gateway_errors_total").iter().all(|l| l.len() < 400));
}

#[test]
fn past_the_cap_upstreams_are_counted_under_other() {
    let metrics = Metrics::new(10, Duration::from_secs(60), Board::default());
    for i in 0..50 {
        tell(&metrics, Notice::Incident(Box::new(incident(&format!("10.0.0.{i}:80"), "no_listener"))));
        let times = Times { micros: 1, counts: [1; _] };
        metrics.connected("nginx", &format!("10.0.0.{i}:80"), &times, Instant::now());
    }
    let text = metrics.render(Format::OpenMetrics);
    let errors = lines(&text, "trace502_gateway_errors_total");
    assert_eq!(errors.len(), 11, "{errors:?}");
    let other = errors.iter().find(|l| l.contains(r#"upstream="other""#)).unwrap();
    assert!(other.contains(r#"proxy="nginx""#) && other.contains("} 40 #"), "{other}");
    let connect = lines(&text, "trace502_upstream_connect_seconds_count");
    assert_eq!(connect.len(), 2, "a histogram has a tenth of the room: {connect:?}");
    // 40 errors and the connect times of 49 upstreams.
    assert!(text.contains(r#"trace502_label_overflow_total{label="upstream"} 89"#), "{text}");
}

#[test]
fn what_every_label_could_be_is_bounded() {
    let metrics = Metrics::new(20, Duration::from_secs(60), Board::default());
    for i in 0..200 {
        let mut odd = incident(&format!("10.0.0.{i}:80"), &format!("cause_{i}"));
        odd.proxy.name = format!("proxy-{i}");
        tell(&metrics, Notice::Incident(Box::new(odd)));
        tell(
            &metrics,
            Notice::Reset(ResetNotice {
                proxy: format!("p{i}"),
                upstream: format!("u{i}"),
                side: "proxy",
                reason: format!("R{i}"),
            }),
        );
        tell(&metrics, Notice::Death(DeathNotice { name: format!("d{i}"), how: "exit" }));
    }
    let text = metrics.render(Format::OpenMetrics);
    for name in ["gateway_errors", "resets", "process_deaths"] {
        let count = lines(&text, &format!("trace502_{name}_total{{")).len();
        assert!((20..=41).contains(&count), "{name}: {count}");
    }
}

#[test]
fn idle_series_go_and_come_back() {
    let metrics = full(100);
    metrics.expire(Instant::now());
    assert_eq!(lines(&metrics.render(Format::OpenMetrics), "trace502_gateway_errors_total").len(), 2);
    metrics.expire(Instant::now() + Duration::from_secs(61));
    let text = metrics.render(Format::OpenMetrics);
    assert!(lines(&text, "trace502_gateway_errors_total").is_empty());
    assert!(!text.contains("# TYPE trace502_gateway_errors"));
    tell(&metrics, Notice::Incident(Box::new(incident("127.0.0.1:8000", "no_listener"))));
    assert_eq!(lines(&metrics.render(Format::OpenMetrics), "trace502_gateway_errors_total").len(), 1);
}

#[test]
fn the_accept_header_chooses_the_format() {
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::of_accept(prometheus), Format::OpenMetrics);
    assert_eq!(Format::of_accept("text/plain; version=0.0.4"), Format::Classic);
    assert_eq!(Format::of_accept("*/*"), Format::Classic);
    assert_eq!(Format::of_accept(""), Format::Classic);
}

/// `cargo test --release -p trace502 --lib -- --ignored --nocapture cost_of_a_scrape`
#[test]
#[ignore = "prints figures"]
fn cost_of_a_scrape() {
    let most = 2000;
    let metrics = Metrics::new(most, Duration::from_secs(3600), Board::default());
    let count = 100_000;
    let start = Instant::now();
    for i in 0..count {
        tell(
            &metrics,
            Notice::Incident(Box::new(incident(&format!("10.0.{}.{}:80", i / 250 % 250, i % 250), "no_listener"))),
        );
    }
    let notice = start.elapsed() / count;
    for format in [Format::OpenMetrics, Format::Classic] {
        let start = Instant::now();
        let text = (0..10).map(|_| metrics.render(format)).last().unwrap();
        println!(
            "{format:?}: {:?} and {} KiB for {} lines",
            start.elapsed() / 10,
            text.len() / 1024,
            text.lines().count()
        );
    }
    println!("one incident counted, past {most} series: {notice:?}");
}
