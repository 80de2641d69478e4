//! The emulated machine: starts it, reads its lines, and ends it.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::serial::{self, Marker, Step};
use super::{Guest, Report};

/// Lines of the console that a failure shows.
const TAIL: usize = 30;

pub fn run(
    guest: &Guest,
    initramfs: &Path,
    folder: &Path,
    marker: &Marker,
    on_line: &mut dyn FnMut(&str),
) -> Result<Report> {
    if !cfg!(target_arch = "x86_64") {
        bail!("guests are x86_64 machines, and so are the programs put into them: run this on x86_64");
    }
    let console = folder.join("console");
    let errors = folder.join("errors");
    let mut machine = start(guest, initramfs, &console, &errors)?;
    let lines = lines(&mut machine.0)?;
    let start = Instant::now();
    let mut output = String::new();
    let mut begun = false;
    let failure = loop {
        let left = guest.timeout.saturating_sub(start.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => match serial::read(&line, marker) {
                Step::Begin => begun = true,
                Step::Output(text) => {
                    on_line(&text);
                    output.push_str(&text);
                    output.push('\n');
                }
                Step::End { rest, status } => {
                    if !rest.is_empty() {
                        on_line(&rest);
                        output.push_str(&rest);
                    }
                    return Ok(Report { output, status, took: start.elapsed() });
                }
            },
            Err(RecvTimeoutError::Timeout) => break format!("was not done after {} s", guest.timeout.as_secs()),
            Err(RecvTimeoutError::Disconnected) => break "stopped by itself".to_owned(),
        }
    };
    drop(machine);
    let during = if begun { "while the command ran" } else { "before the command was started" };
    let errors = fs::read_to_string(&errors).unwrap_or_default();
    let console = fs::read(&console).unwrap_or_default();
    bail!(
        "the guest with kernel {} {failure}, {during}.{}\nThe end of its console:\n{}",
        guest.kernel.release,
        if errors.trim().is_empty() { String::new() } else { format!("\nThe emulator says: {}", errors.trim()) },
        tail(&String::from_utf8_lossy(&console))
    )
}

/// Ends the machine, however this run ends.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(guest: &Guest, initramfs: &Path, console: &Path, errors: &Path) -> Result<Machine> {
    let errors = fs::File::create(errors).with_context(|| format!("cannot write {}", errors.display()))?;
    // A panic ends the machine at once, and with it the wait for it. On a busy host the timer may come too late for the
    // kernel's check of it, which would be one.
    let words = format!(
        "console=ttyS0 loglevel=5 panic=-1 mitigations=off random.trust_cpu=on no_timer_check {}",
        guest.kernel_args
    );
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2"]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    qemu.arg("-m").arg(guest.memory_mib.to_string());
    qemu.arg("-kernel").arg(&guest.kernel.image).arg("-initrd").arg(initramfs).args(["-append", words.trim()]);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    let child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
    child.map(Machine).context("cannot run qemu-system-x86_64")
}

/// Lines as they come, from a thread that ends with the machine.
fn lines(machine: &mut Child) -> Result<Receiver<Vec<u8>>> {
    let stdout = machine.stdout.take().context("the emulator has no output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// The last lines, without what would move a terminal's cursor.
fn tail(console: &str) -> String {
    let clean: String = console.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect();
    let lines: Vec<&str> = clean.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(TAIL);
    lines[from..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_short_and_harmless() {
        let console: String = (0..100).map(|n| format!("line {n}\r\n\n")).collect();
        let tail = tail(&(console + "\x1b[2J[end]"));
        assert_eq!(tail.lines().count(), TAIL);
        assert!(tail.ends_with("[2J[end]\n") && !tail.contains('\x1b'));
    }
}
