//! `cargo xtask test`: everything, from a fresh clone to one closing line.
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::tools::Group;
use crate::{build, setup, shell, vm};

/// Where tests find the program, on the host and in guests.
const PROGRAM: &str = "TRACE502_BIN";
/// The test binary that also runs in guests.
const KERNEL_TESTS: &str = "kernels";

/// What the runs said so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

pub fn run(series: &[String]) -> Result<ExitCode> {
    if !shell::is_root() {
        bail!(
            "the tests load programs into the kernel and need root: run `sudo -E env PATH=\"$PATH\" cargo xtask test`"
        );
    }
    setup::quietly(&[Group::Build, Group::Vm, Group::Tests])?;
    let program = build::trace502(true)?;
    let mut tally = Tally::default();
    tally.host(&program)?;
    let binary = kernel_tests()?;
    for series in series {
        // A kernel that cannot be had is a failure like another: the rest is still worth knowing.
        if let Err(error) = tally.guest(series, &program, binary.as_deref()) {
            eprintln!("error: {error:#}");
            tally.failed += 1;
        }
    }
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

    /// Doctor and the kernel tests on another kernel.
    fn guest(&mut self, series: &str, program: &Path, tests: Option<&Path>) -> Result<()> {
        let kernel = vm::Kernel::newest(series)?;
        println!("== kernel {}: trace502 doctor", kernel.release);
        let mut guest = vm::Guest::new(&kernel, &["trace502", "doctor"]);
        // What doctor finds must not hang on what another test would load.
        guest.modules.clear();
        let report = guest.file(program, vm::AGENT).run(&mut |line| println!("{line}"))?;
        let ready = report.status == 0 && !report.output.is_empty();
        self.check(ready, &format!("doctor on {} (exit status {})", kernel.release, report.status));

        // Where doctor says that nothing can run, each test would fail for the same reason, slowly.
        let Some(tests) = tests.filter(|_| ready) else { return Ok(()) };
        println!("== kernel {}: {KERNEL_TESTS}", kernel.release);
        let inside = Path::new("/tests").join(KERNEL_TESTS);
        let command = [inside.display().to_string(), "--test-threads=1".into()];
        let mut guest = vm::Guest::new(&kernel, &command);
        // The tests set up firewalls, and wires between namespaces.
        guest.file(program, vm::AGENT).file(tests, inside).program("nft")?.program("ip")?;
        guest.env.push((PROGRAM.into(), vm::AGENT.into()));
        guest.timeout = Duration::from_secs(900);
        let before = self.failed;
        let report = guest.run(&mut |line| println!("{line}"))?;
        report.output.lines().for_each(|line| self.count(line));
        if report.status != 0 && self.failed == before {
            self.check(false, &format!("{KERNEL_TESTS} on {} (exit status {})", kernel.release, report.status));
        }
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
