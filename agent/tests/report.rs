//! The page in headless Chromium, with records that try to break out of their place.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const INCIDENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/incidents.jsonl");

fn report(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trace502")).arg("report").args(args).output().unwrap()
}

fn page(args: &[&str]) -> String {
    let output = report(&[&["-o", "-"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the browser made of the page, and what it complained about.
fn browse(file: &Path) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"])
        .args(["--enable-logging=stderr", "--v=0", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("chromium is needed for this test: apt-get install chromium");
    assert!(output.status.success(), "chromium: {}", String::from_utf8_lossy(&output.stderr));
    let complaints = String::from_utf8_lossy(&output.stderr);
    let complaints = complaints.lines().filter(|line| line.contains("CONSOLE")).collect::<Vec<_>>().join("\n");
    (String::from_utf8(output.stdout).unwrap(), complaints)
}

/// Each tag with its attributes; text is escaped, so that every `<` begins one.
fn tags(html: &str) -> Vec<&str> {
    let body = html.split("</style>").nth(1).unwrap();
    body.split('<').skip(1).map(|tag| tag.split('>').next().unwrap()).collect()
}

#[test]
fn hostile_strings_stay_text_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("incident.html");
    fs::write(&file, page(&["--json", INCIDENTS])).unwrap();
    let (dom, complaints) = browse(&file);
    // A style whose hash is not the policy's would be refused here, too.
    assert_eq!(complaints, "");
    assert!(dom.contains("<title>Gateway errors, 2026-11-21 03:00:00 to 2026-11-21 03:02:45</title>"), "{dom}");
    let known = [
        "b",
        "body",
        "br",
        "code",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "g",
        "h1",
        "h2",
        "html",
        "li",
        "main",
        "ol",
        "p",
        "path",
        "rect",
        "span",
        "strong",
        "summary",
        "svg",
        "table",
        "tbody",
        "td",
        "text",
        "th",
        "thead",
        "title",
        "tr",
        "ul",
        "head",
    ];
    for tag in tags(&dom) {
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        assert!(known.contains(&name), "<{tag}> got into the page");
        assert!(!tag.contains(" on") && !tag.contains("href") && !tag.contains("src"), "<{tag}>");
    }
    assert!(dom.contains("&lt;script&gt;document.title='owned'"), "it is shown as what it is");
}

#[test]
fn the_page_is_whole_harmless_and_alone() {
    let html = page(&["--json", INCIDENTS]);
    assert!(html.chars().all(|c| c == '\n' || trace502::text::safe(&c.to_string()) == c.to_string()));
    assert!(html.contains("Content-Security-Policy") && html.contains("default-src 'none'"));
    for tag in tags(&html) {
        assert!(!tag.contains("src=") && !tag.contains("href=") && !tag.contains("style="), "<{tag}>");
    }
    for part in [
        "<strong>18 requests failed</strong>",
        "94.4 % are explained",
        "shop.service on 127.0.0.1:8000 was OOM-killed 3 times in 2 min",
        "point the proxy&#39;s upstream at 127.0.0.1:9001",
        "東京の店",
        "-41.21 ms",
        "unix:/run/php/php8.2-fpm.sock",
        "not seen",
        "@media print",
        "prefers-color-scheme: dark",
    ] {
        assert!(html.contains(part), "{part} is missing");
    }
    assert_eq!(html.matches("<details").count(), 18);
    assert_eq!(html.matches("<details open").count(), 9, "one of each cause and upstream is open");
}

#[test]
fn the_flags_choose_what_is_told() {
    let html = page(&["--json", INCIDENTS, "--cause", "no_listener"]);
    assert!(html.contains("7 requests failed") && html.contains("Only errors that match cause:no_listener."));
    let html = page(&["--json", INCIDENTS, "--since", "2026-11-21T03:01:00Z", "--until", "2026-11-21T03:02:00Z"]);
    assert!(html.contains("Gateway errors, 2026-11-21 03:01:00 to 2026-11-21 03:02:00"));
    assert!(html.contains("6 requests failed"), "{html}");
    assert!(page(&["--json", INCIDENTS, "--cause", "dns_failure"]).contains("No gateway error was seen"));
}

#[test]
fn a_flood_makes_a_page_of_bounded_size() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("many.jsonl");
    let one = fs::read_to_string(INCIDENTS).unwrap();
    fs::write(&file, one.repeat(500)).unwrap();
    let html = page(&["--json", file.to_str().unwrap()]);
    assert!(html.contains("9000 requests failed") && html.contains("90 of 9000: the first 10 of each"));
    assert!(html.len() < 1 << 20, "{} bytes", html.len());
}

#[test]
fn bad_input_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mixed.jsonl");
    let path = file.to_str().unwrap();
    let one = fs::read_to_string(INCIDENTS).unwrap();
    fs::write(&file, format!("{one}\n{{\"v\":1}}\nnonsense\n\u{fffd}\n")).unwrap();
    let html = page(&["--json", path]);
    assert!(html.contains("18 requests failed") && html.contains("3 records could not be read"));
    fs::write(&file, b"\xff\xfe\x00nonsense\n").unwrap();
    for (args, status, told) in [
        (&["--json", path, "-o", "-"][..], 1, "none of 1 lines is a record of trace502"),
        (&["--json", "/nonexistent", "-o", "-"], 1, "cannot open /nonexistent"),
        (&["--json", INCIDENTS, "-o", "/nonexistent/x"], 1, "cannot write /nonexistent/x"),
        (&["--json", INCIDENTS, "-o", "-", "--since", "soon"], 2, "--since"),
        (&["--json", INCIDENTS, "-o", "-", "--since", "1h", "--until", "2h"], 2, "--until is before --since"),
        (&["--history", "/nonexistent.db", "-o", "-"], 1, "/nonexistent.db"),
    ] {
        let output = report(args);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {message}");
        assert!(message.contains(told), "{args:?}: {message}");
        assert!(output.stdout.is_empty());
    }
}
