//! `cargo xtask test`: everything, from a fresh clone to one closing line.
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::tools::Group;
use crate::{build, lab, setup, shell, vm};

/// Where tests find the program, on the host and in guests.
const PROGRAM: &str = "TRACE502_BIN";
/// The test binary that also runs in guests.
const KERNEL_TESTS: &str = "kernels";

/// Of the cells of nginx in a guest, how many must be right: on a machine that had five times as much to do as it can,
/// all but one were. No cell may tell a wrong cause.
const CELLS: u32 = 100;
/// Cells that would begin later than this after the start of the task are left out: a machine that has been so slow
/// until then would not end them in the time that a pipeline has.
const LATEST_CELLS: Duration = Duration::from_secs(26 * 60);

/// What the runs said so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// What is put into guests, and until when.
struct Built {
    program: PathBuf,
    kernel_tests: Option<PathBuf>,
    /// The folder of the lab.
    lab: PathBuf,
    /// When the whole task began.
    begun: Instant,
}

pub fn run(series: &[String]) -> Result<ExitCode> {
    let begun = Instant::now();
    if !shell::is_root() {
        bail!(
            "the tests load programs into the kernel and need root: run `sudo -E env PATH=\"$PATH\" cargo xtask test`"
        );
    }
    setup::quietly(&[Group::Build, Group::Vm, Group::Tests])?;
    let program = build::trace502(true)?;
    let mut tally = Tally::default();
    tally.host(&program)?;
    // The host's tests have built the lab.
    let built = Built { program, kernel_tests: kernel_tests()?, lab: shell::target()?.join("debug"), begun };
    tally.guests(series, &built);
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Tally {
    /// Unit tests, replayed recordings and the scenarios on this kernel.
    fn host(&mut self, program: &Path) -> Result<()> {
        let mut cargo = shell::cargo();
        cargo.args(["test", "--workspace", "--no-fail-fast"]).env(PROGRAM, program);
        println!("== this host: cargo test --workspace --no-fail-fast");
        let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
        let stdout = child.stdout.take().context("cargo has no output")?;
        let before = self.failed;
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read cargo's output")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            self.count(&line);
        }
        let status = child.wait().context("cannot wait for cargo")?;
        if !status.success() && self.failed == before {
            // It did not compile, or a test took its whole process down.
            eprintln!("error: cargo test failed ({status}) without naming a failed test");
            self.failed += 1;
        }
        Ok(())
    }

    /// All kernels at once: each emulated machine keeps hardly more than one processor busy.
    fn guests(&mut self, series: &[String], built: &Built) {
        // Not these: two downloads at once would be in each other's way.
        let kernels: Vec<_> = series.iter().map(|series| vm::Kernel::newest(series)).collect();
        let tallies = std::thread::scope(|scope| {
            let runs: Vec<_> =
                kernels.into_iter().map(|kernel| scope.spawn(|| Self::of_guest(kernel, built))).collect();
            runs.into_iter().map(|run| run.join().unwrap_or(Self { passed: 0, failed: 1 })).collect::<Vec<_>>()
        });
        for tally in tallies {
            self.passed += tally.passed;
            self.failed += tally.failed;
        }
    }

    /// A kernel that cannot be had is a failure like another: the rest is still worth knowing.
    fn of_guest(kernel: Result<vm::Kernel>, built: &Built) -> Self {
        let mut tally = Self::default();
        if let Err(error) = kernel.and_then(|kernel| tally.guest(&kernel, built)) {
            eprintln!("error: {error:#}");
            tally.failed += 1;
        }
        tally
    }

    /// Doctor, the kernel tests and the cells of nginx on another kernel.
    fn guest(&mut self, kernel: &vm::Kernel, built: &Built) -> Result<()> {
        let release = &kernel.release;
        let say = |line: &str| println!("{release}: {line}");
        say("== trace502 doctor");
        let mut guest = vm::Guest::new(kernel, &["trace502", "doctor"]);
        // What doctor finds must not hang on what another test would load.
        guest.modules.clear();
        // It takes seconds: two guests on a busy machine may make minutes of them.
        guest.timeout = Duration::from_secs(600);
        let report = guest.file(&built.program, vm::AGENT).run(&mut |line| say(line))?;
        let ready = report.status == 0 && !report.output.is_empty();
        self.check(ready, &format!("doctor on {release} (exit status {})", report.status));

        // Where doctor says that nothing can run, each test would fail for the same reason, slowly.
        let Some(tests) = built.kernel_tests.as_ref().filter(|_| ready) else { return Ok(()) };
        say(&format!("== {KERNEL_TESTS}"));
        let inside = Path::new("/tests").join(KERNEL_TESTS);
        let command = [inside.display().to_string(), "--test-threads=1".into()];
        let mut guest = vm::Guest::new(kernel, &command);
        // The tests set up firewalls, and wires between namespaces.
        guest.file(&built.program, vm::AGENT).file(tests, inside).program("nft")?.program("ip")?;
        guest.env.push((PROGRAM.into(), vm::AGENT.into()));
        // On a machine that had five times as much to do as it can, they were done after 13 minutes.
        guest.timeout = Duration::from_secs(1500);
        let before = self.failed;
        let report = guest.run(&mut |line| say(line))?;
        report.output.lines().for_each(|line| self.count(line));
        if report.status != 0 && self.failed == before {
            self.check(false, &format!("{KERNEL_TESTS} on {release} (exit status {})", report.status));
        }
        let elapsed = built.begun.elapsed();
        if elapsed > LATEST_CELLS {
            let (late, latest) = (elapsed.as_secs() / 60, LATEST_CELLS.as_secs() / 60);
            say(&format!(
                "== cells of nginx: SKIPPED, the task is in minute {late} and they begin until minute {latest}"
            ));
            return Ok(());
        }
        say("== cells of nginx");
        let mut guest = lab::guest(kernel, &built.program, &built.lab, &["--least".into(), CELLS.to_string()])?;
        guest.timeout = Duration::from_secs(1200);
        let report = guest.run(&mut |line| say(line))?;
        self.check(report.status == 0, &format!("cells of nginx on {release} (exit status {})", report.status));
        Ok(())
    }

    fn check(&mut self, good: bool, what: &str) {
        println!("test {what} ... {}", if good { "ok" } else { "FAILED" });
        if good { self.passed += 1 } else { self.failed += 1 }
    }

    /// Adds a closing line of a test binary.
    fn count(&mut self, line: &str) {
        let Some((passed, failed)) = closing(line) else { return };
        self.passed += passed;
        self.failed += failed;
    }
}

/// Reads `test result: ok. 12 passed; 0 failed; …`.
fn closing(line: &str) -> Option<(u64, u64)> {
    let numbers = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |what| numbers.split(';').find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok());
    Some((number("passed")?, number("failed")?))
}

/// The kernel tests' own binary, as cargo names it; `None` where there are no such tests.
fn kernel_tests() -> Result<Option<PathBuf>> {
    let place = shell::root().join("tests/tests").join(KERNEL_TESTS);
    if !place.with_extension("rs").is_file() && !place.join("main.rs").is_file() {
        return Ok(None);
    }
    let mut cargo = shell::cargo();
    // The whole workspace again: for one package, cargo would pick other features and compile everything anew.
    cargo.args(["test", "--workspace", "--test", KERNEL_TESTS, "--no-run", "--message-format=json"]);
    let messages = shell::capture(&mut cargo)?;
    let found = messages.lines().find_map(executable);
    found.map(Some).with_context(|| format!("cargo built no test named {KERNEL_TESTS}"))
}

/// From one of cargo's messages, the executable of the kernel tests.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    (message["target"]["name"] == KERNEL_TESTS).then(|| message["executable"].as_str().map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "test result of mine ... ok",
            "running 5 tests",
        ] {
            tally.count(line);
        }
        assert_eq!(tally, Tally { passed: 15, failed: 2 });
    }

    #[test]
    fn the_executable_is_the_one_of_the_kernel_tests() {
        let message = |name: &str| {
            format!(r#"{{"reason":"compiler-artifact","target":{{"name":"{name}"}},"executable":"/t/x"}}"#)
        };
        assert_eq!(executable(&message("kernels")), Some(PathBuf::from("/t/x")));
        assert_eq!(executable(&message("scenarios")), None);
        assert_eq!(executable(r#"{"target":{"name":"kernels"},"executable":null}"#), None);
        assert_eq!(executable("warning: text"), None);
    }
}
