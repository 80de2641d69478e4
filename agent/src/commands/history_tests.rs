//! What `trace502 history` prints.

use clap::Parser;

use super::*;
use crate::history::{Retention, Writer};
use crate::metrics::tests::incident;
use crate::model::Evidence;
use crate::status::Board;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    history: History,
}

const NOW: &str = "2026-11-21T04:00:00.000000Z";

/// A history with this many errors a minute apart before [`NOW`], the last one told in full.
fn history(count: i64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let keep = Retention { age: std::time::Duration::from_secs(1 << 40), size: 1 << 40 };
    let (sink, writer) = Writer::new(path.clone(), keep, Board::default(), |_| ());
    let now = when::parse_rfc3339(NOW).unwrap();
    for i in (0..count).rev() {
        let mut one = incident("127.0.0.1:8000", if i % 4 == 3 { "unattributed" } else { "no_listener" });
        one.time = when::rfc3339(now - i * 60_000_000);
        one.id = format!("id-{i}");
        one.summary = format!("nothing listens on 127.0.0.1:8000 \u{1b}[31m({i})");
        one.request.method = Some("GET".into());
        one.request.path = Some(format!("/p/{i}"));
        one.evidence = vec![Evidence { t_us: -1500, kind: "refused".into(), text: "connect() refused".into() }];
        one.fix = vec!["start it".into()];
        sink.put(Box::new(one));
    }
    drop(sink);
    writer.run();
    (dir, path)
}

fn print(path: &std::path::Path, args: &[&str]) -> anyhow::Result<String> {
    let file = format!("--history={}", path.display());
    let args = ["history", &file].into_iter().chain(args.iter().copied());
    let cli = Cli::try_parse_from(args)?;
    let mut out = Vec::new();
    run(&cli.history, when::parse_rfc3339(NOW).unwrap(), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn the_summary_comes_first_and_then_the_last_incidents() {
    let (_dir, path) = history(100);
    let text = print(&path, &["--since", "2h"]).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("100 gateway errors from "), "{text}");
    assert!(lines[0].ends_with("the cause of 75.0 % is known"), "{text}");
    assert!(lines[2].contains('█'), "{text}");
    let row = |name: &str| text.lines().find(|l| l.trim_start().starts_with(name)).unwrap_or_default();
    assert!(row("no_listener").contains("       75  "), "{text}");
    assert!(row("127.0.0.1:8000").contains("      100  "), "{text}");
    assert_eq!(text.matches("  to do     start it").count(), 20, "{text}");
    assert!(text.contains("the last 20") && text.ends_with("  id        id-0\n\n"), "{text}");
    assert!(text.contains("connect() refused") && text.contains("\n2026-11-21\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "nothing steers the terminal");
}

#[test]
fn a_mistyped_file_is_said_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let error = print(&dir.path().join("hstory/history.db"), &[]).unwrap_err().to_string();
    assert!(error.contains("hstory/history.db: no history there"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_asked_for_is_what_comes() {
    let (_dir, path) = history(100);
    let count = |args: &[&str]| print(&path, args).unwrap().matches("  id        id-").count();
    assert_eq!(count(&["--count", "3"]), 3);
    assert_eq!(count(&["--count", "0"]), 0);
    assert_eq!(count(&["--summary"]), 0);
    assert_eq!(count(&["--since", "5m"]), 6);
    assert_eq!(count(&["--since", "2026-11-21 03:50Z", "--until", "2026-11-21 03:52Z"]), 3);
    assert_eq!(count(&["--path", "/p/7", "--count", "99"]), 11);
    assert!(print(&path, &["--proxy", "haproxy"]).unwrap().starts_with("no gateway errors from"));
    let one = print(&path, &["--id", "id-42"]).unwrap();
    assert!(one.contains("/p/42") && !one.contains("gateway errors"), "{one}");
}

#[test]
fn json_is_the_record_line_by_line() {
    let (_dir, path) = history(50);
    let lines = print(&path, &["--json", "--cause", "unattributed"]).unwrap();
    let all: Vec<Incident> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(all.len(), 12);
    assert_eq!(all.last().unwrap().id, "id-3");
    assert!(!lines.contains('\u{1b}'));
    let summary: serde_json::Value = serde_json::from_str(&print(&path, &["--json", "--summary"]).unwrap()).unwrap();
    assert_eq!(summary["by_cause"]["no_listener"]["count"], 38);
    assert_eq!(print(&path, &["--json", "--count", "2"]).unwrap().lines().count(), 2);
}

#[test]
fn what_cannot_be_is_said() {
    let (dir, path) = history(1);
    let said = |args: &[&str]| print(&path, args).unwrap_err().to_string();
    assert!(said(&["--since", "soon"]).contains("`soon` is no time"));
    assert!(said(&["--since", "1h", "--until", "2h"]).contains("--until is before --since"));
    assert!(said(&["--cause", "no_listner"]).contains("did you mean no_listener?"));
    assert!(said(&["--id", "x"]).contains("no incident x"));
    let none = print(&dir.path().join("none.db"), &[]).unwrap_err().to_string();
    assert!(none.contains("is `trace502 agent` running"), "{none}");
}

#[test]
fn a_reader_that_left_is_no_failure() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_dir, path) = history(5);
    for more in [&["--json"][..], &[], &["--summary"]] {
        let file = format!("--history={}", path.display());
        let cli = Cli::try_parse_from(["history", &file].into_iter().chain(more.iter().copied())).unwrap();
        run(&cli.history, when::parse_rfc3339(NOW).unwrap(), &mut Gone).unwrap();
    }
}

#[test]
fn numbers_are_grouped() {
    assert_eq!((grouped(7), grouped(1234), grouped(123_456)), ("7".into(), "1,234".into(), "123,456".into()));
}
