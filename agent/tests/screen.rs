//! The full-screen view in a real terminal: tmux, whose screen is read back.
//!
//! Every wait is for something to appear; the deadline only ends a test that has failed.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use trace502::history::{Retention, Writer};
use trace502::status::Board;

const DEADLINE: Duration = Duration::from_secs(30);

/// One tmux server of its own, with the feed in its only pane and a shell around it.
struct Pane {
    socket: String,
    folder: tempfile::TempDir,
}

impl Pane {
    /// The feed with recorded incidents.
    fn new(size: (u16, u16), options: &str) -> Pane {
        Pane::running(size, &format!("{} {INCIDENTS} {options}", feed().display()))
    }

    fn running(size: (u16, u16), command: &str) -> Pane {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("tmux").display().to_string();
        // The shell tells the terminal's settings before and after, and stays.
        let script = format!("stty -g >before; {command}; echo \"status $?\"; stty -g >after; echo over; exec cat");
        let pane = Pane { socket, folder };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        let folder = pane.folder.path().display().to_string();
        let start = ["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, "-c", &folder, &script];
        let output = pane.tmux(&start);
        assert!(output.status.success(), "tmux: {}", String::from_utf8_lossy(&output.stderr));
        pane
    }

    fn tmux(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command
            .env("LC_ALL", "C.UTF-8")
            .env("SHELL", "/bin/sh")
            .env_remove("TMUX")
            .env("RUST_BACKTRACE", "0")
            .env_remove("NO_COLOR");
        command.arg("-S").arg(&self.socket).args(args);
        command.output().expect("tmux is needed for this test: apt-get install tmux")
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).unwrap()
    }

    /// The screen, once it holds all of these.
    fn wait_for(&self, parts: &[&str]) -> String {
        self.wait(|screen| parts.iter().all(|part| screen.contains(part)), &format!("{parts:?}"))
    }

    fn wait(&self, test: impl Fn(&str) -> bool, what: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let screen = self.screen();
            if test(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "waited in vain for {what}; the screen is\n{screen}");
            sleep(Duration::from_millis(20));
        }
    }

    fn format(&self, format: &str) -> String {
        String::from_utf8(self.tmux(&["display-message", "-p", format]).stdout).unwrap().trim().to_owned()
    }

    /// The feed's pid: the child of the pane's shell.
    fn feed(&self) -> String {
        let shell = self.format("#{pane_pid}");
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        children.trim().to_owned()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.feed()]).status().unwrap().success());
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    /// Files that the feed wrote, by their ending.
    fn written(&self, end: &str) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(end)).collect()
    }

    /// The shell is back in front, on the ordinary screen, with cursor and settings as they were.
    fn assert_given_back(&self) {
        self.wait_for(&["over"]);
        assert_eq!(self.format("#{alternate_on} #{cursor_flag}"), "0 1");
        assert_eq!(self.read("before"), self.read("after"));
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// An example, which cargo does not build for this test alone.
fn feed() -> &'static Path {
    static FEED: OnceLock<PathBuf> = OnceLock::new();
    FEED.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.parent().and_then(Path::parent).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "trace502", "--example", "screen_feed"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the example screen_feed does not build");
        folder.join("examples/screen_feed")
    })
}

const INCIDENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/incidents.jsonl");

const FIRST: &[&str] = &["trace502 live", "total 18", "no_listener", "upstream_oom_killed", "q quit"];

#[test]
fn from_the_first_error_to_its_cause_and_back_at_both_sizes() {
    for size in [(80, 24), (200, 50)] {
        let pane = Pane::new(size, "--lost 12");
        pane.wait_for(FIRST);
        pane.wait_for(&["LOST events: ring buffer 12"]);
        assert_eq!(pane.format("#{alternate_on} #{cursor_flag}"), "1 0");
        pane.keys(&["/"]);
        pane.keys(&["-l", "--", "--cause no_listener"]);
        pane.keys(&["Enter"]);
        pane.wait_for(&["7 of 18 match", "nothing listens on 127.0.0.1:9000"]);
        pane.keys(&["j", "Enter"]);
        let opened = pane.wait_for(&["Incident  2 of 7", "What to do", "Time line", "Evidence"]);
        assert!(opened.contains("refused") && opened.contains("-310 us connect: connect() to"), "{opened}");
        pane.keys(&["Left"]);
        pane.wait_for(&["Incident  1 of 7", "/search/6"]);
        pane.keys(&["Escape"]);
        pane.wait_for(&["7 of 18 match"]);
        pane.keys(&["Escape"]);
        pane.wait_for(&["newest first"]);
        pane.keys(&["s"]);
        pane.wait_for(&["only 502", "15 of 18 match"]);
        pane.keys(&["?"]);
        pane.wait_for(&["hold the lists still"]);
        pane.keys(&["q"]);
        pane.assert_given_back();
        pane.wait_for(&["trace502: 18 gateway errors", "status 0"]);
    }
}

#[test]
fn an_opened_incident_has_the_time_of_the_list_and_its_zone() {
    let pane = Pane::running((120, 40), &format!("TZ=AAA-5:30 {} {INCIDENTS} --past", feed().display()));
    pane.wait_for(&["08:30:", "newest first"]);
    pane.keys(&["j", "Enter"]);
    pane.wait_for(&["Incident  ", "  2026-11-21 08:3", " +05:30"]);
    pane.keys(&["q"]);
}

#[test]
fn a_larger_terminal_is_used_and_a_smaller_one_explained() {
    let pane = Pane::new((80, 24), "");
    pane.wait_for(FIRST);
    pane.tmux(&["resize-window", "-x", "200", "-y", "50"]);
    pane.wait_for(&["crashed 2 ms before: SIGSEGV, core dumped  → coredumpctl info 1201", "haproxy 811"]);
    pane.tmux(&["resize-window", "-x", "60", "-y", "12"]);
    pane.wait_for(&["trace502 needs 80x24, this terminal has 60x12."]);
    pane.keys(&["C-c"]);
    pane.assert_given_back();
}

#[test]
fn plain_text_stands_on_the_ordinary_screen_and_files_are_written() {
    let pane = Pane::new((80, 30), "");
    pane.wait_for(FIRST);
    pane.keys(&["/"]);
    pane.keys(&["-l", "--", "cause:keepalive_race"]);
    pane.keys(&["Enter"]);
    pane.wait_for(&["1 of 18 match"]);
    pane.keys(&["y"]);
    let text = pane.wait_for(&["cause:    keepalive_race (certain)", "any key goes back"]);
    assert_eq!(pane.format("#{alternate_on}"), "0");
    assert!(!text.contains(['│', '─', '┃']), "{text}");
    pane.keys(&["x"]);
    pane.wait_for(&["1 of 18 match", "trace502 live"]);
    pane.keys(&["w"]);
    pane.wait_for(&["incident written to"]);
    pane.keys(&["e"]);
    pane.wait_for(&["incidents written to"]);
    let (texts, lines) = (pane.written(".txt"), pane.written(".jsonl"));
    assert!(pane.read(&texts[0]).contains("set the upstream's keepalive timeout above the proxy's"));
    let record: trace502::model::Incident = serde_json::from_str(&pane.read(&lines[0])).unwrap();
    assert_eq!(record.cause, "keepalive_race");
    pane.keys(&["q"]);
    pane.assert_given_back();
}

#[test]
fn the_past_is_shown_the_same_way() {
    let pane = Pane::new((80, 24), "--past");
    let screen = pane.wait_for(&["trace502 history", "errors 18", "nothing listens on 127.0.0.1:9000"]);
    assert!(screen.contains("shop.service on 127.0.0.1:8000 was OOM-killed 3 times in 2 min"), "{screen}");
    pane.keys(&["G", "Enter"]);
    pane.wait_for(&["Incident  18 of 18", "uvicorn (pid 812) was OOM-killed"]);
    pane.keys(&["C-c"]);
    pane.assert_given_back();
}

#[test]
fn the_agents_history_is_shown_on_the_screen_and_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.db");
    let keep = Retention { age: Duration::from_secs(100 * 365 * 86_400), size: 1 << 40 };
    let (sink, writer) = Writer::new(file.clone(), keep, Board::default(), |_| ());
    for line in fs::read_to_string(INCIDENTS).unwrap().lines() {
        sink.put(serde_json::from_str(line).unwrap());
    }
    drop(sink);
    writer.run();
    let flags = format!("--history {} --since 2026-11-21T02:00:00Z --cause no_listener", file.display());
    let trace502 = env!("CARGO_BIN_EXE_trace502");
    let pane = Pane::running((80, 24), &format!("{trace502} history --tui {flags}"));
    pane.wait_for(&["trace502 history", "7 of 7 match  cause:no_listener", "nothing listens on 127.0.0.1:9000"]);
    pane.keys(&["q"]);
    pane.assert_given_back();
    pane.wait_for(&["trace502: 7 gateway errors", "status 0"]);
    let pane = Pane::running((80, 24), &format!("{trace502} history --tui {flags} | cat"));
    pane.wait_for(&["--tui needs a terminal"]);
    let page = folder.path().join("page.html").display().to_string();
    let mut report = Command::new(trace502);
    report.arg("report").args(flags.split(' ')).args(["-o", &page]);
    assert!(report.status().unwrap().success());
    assert!(fs::read_to_string(&page).unwrap().contains("7 requests failed"));
}

#[test]
fn silence_is_explained_and_an_error_offered() {
    let pane = Pane::new((80, 24), "--quiet");
    pane.wait(|s| s.contains("requests/s through nginx pid 7353 to 3 upstreams, all answered."), "what is seen");
    pane.wait_for(&["To see one on purpose", "nginx -c /tmp/t502.conf"]);
    pane.keys(&["q"]);
    pane.assert_given_back();
    pane.wait_for(&["no gateway error in"]);
}

#[test]
fn signals_and_a_panic_elsewhere_leave_the_terminal_as_it_was() {
    for (signal, told) in [("-TERM", "status 0"), ("-HUP", "status 0"), ("-INT", "status 0"), ("-USR1", "status 1")] {
        let pane = Pane::new((80, 24), "");
        pane.wait_for(FIRST);
        pane.signal(signal);
        pane.assert_given_back();
        let screen = pane.wait_for(&[told]);
        assert_eq!(screen.contains("asked to panic"), signal == "-USR1", "{screen}");
    }
}

#[test]
fn a_terminal_that_is_gone_ends_it() {
    let pane = Pane::new((80, 24), "--rate 1000");
    pane.wait(|s| s.contains("no_listener"), "the first error");
    let process = PathBuf::from(format!("/proc/{}", pane.feed()));
    assert!(process.exists());
    pane.tmux(&["kill-server"]);
    let end = Instant::now() + DEADLINE;
    while process.exists() {
        assert!(Instant::now() < end, "it still runs without a terminal");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn ten_thousand_errors_a_second_do_not_delay_keys_nor_get_lost() {
    let pane = Pane::new((80, 24), "--rate 10000");
    let total = |screen: &str| {
        let figure = screen.split("total ").nth(1).and_then(|rest| rest.split_whitespace().next());
        figure.and_then(|figure| figure.replace(',', "").parse::<u64>().ok()).unwrap_or(0)
    };
    pane.wait(|screen| total(screen) > 20_000, "twenty thousand errors");
    for _ in 0..5 {
        pane.keys(&["?"]);
        pane.wait_for(&["hold the lists still"]);
        pane.keys(&["Escape"]);
        pane.wait_for(&["newest first, the last 10,000"]);
    }
    pane.keys(&["p"]);
    let held = pane.wait_for(&["PAUSED"]);
    let later = pane.wait(|screen| total(screen) > total(&held) + 10_000, "errors counted on");
    assert!(!later.contains("LOST"), "{later}");
    let list = |screen: &str| screen.split("Incidents").nth(1).map(str::to_owned);
    assert_eq!(list(&held), list(&later));
    pane.keys(&["q"]);
    pane.assert_given_back();
}
