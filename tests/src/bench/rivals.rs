//! What else one would use to see the answers of a proxy: a script of bpftrace, strace, tcpdump. Each watches this
//! process for as long as its value lives.

use std::io::{BufRead as _, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::guard::{Kid, Launch, until};

/// The same knowledge as a person would ask bpftrace for it: the first bytes of what is sent, looked at for an error,
/// and the first bytes of what is received, kept until then. Only of this process.
fn script(pid: u32) -> String {
    format!(
        "BEGIN {{ printf(\"ready\\n\"); }}\n\
         tracepoint:syscalls:sys_enter_sendto /pid == {pid}/ {{\n\
           if (strncmp(str(args->buff, 48), \"HTTP/1.1 50\", 11) == 0) {{ printf(\"%s\\n\", @asked[tid]); }}\n\
         }}\n\
         tracepoint:syscalls:sys_enter_recvfrom /pid == {pid}/ {{ @to[tid] = args->ubuf; }}\n\
         tracepoint:syscalls:sys_exit_recvfrom /@to[tid]/ {{\n\
           if (args->ret > 0) {{ @asked[tid] = str(@to[tid], 48); }}\n\
           delete(@to[tid]);\n\
         }}\n"
    )
}

/// It finds tracepoints in a file system that is not mounted everywhere: mounted for it alone where it is missing.
const MOUNTED: &str = "test -d /sys/kernel/tracing/events || mount -t tracefs tracefs /sys/kernel/tracing
test -d /sys/kernel/debug/tracing/events || {
  mount -t debugfs debugfs /sys/kernel/debug; mount -t tracefs tracefs /sys/kernel/debug/tracing
}
exec bpftrace -q -e \"$0\"";

/// A tool at work.
pub struct Rival {
    _kid: Kid,
}

impl Rival {
    pub fn bpftrace() -> Result<Rival> {
        let mut launch = Launch::new("unshare").args(["--mount", "sh", "-c", MOUNTED, &script(std::process::id())]);
        launch.command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
        let kid = launch.start()?;
        told(kid.take_stdout().context("bpftrace has no output")?, "ready")?;
        // BEGIN runs before the last probes are in place.
        std::thread::sleep(Duration::from_millis(500));
        ensure!(kid.ended().is_none(), "bpftrace ended by itself");
        Ok(Rival { _kid: kid })
    }

    pub fn strace() -> Result<Rival> {
        let pid = std::process::id().to_string();
        let mut launch = Launch::new("strace").args(["-f", "-qq", "-s", "64", "-e", "trace=sendto,recvfrom"]);
        launch.command.args(["-o", "/dev/null", "-p", &pid]).stdout(Stdio::null()).stderr(Stdio::null());
        let kid = launch.start()?;
        until(Duration::from_secs(10), traced).context("strace did not attach")?;
        Ok(Rival { _kid: kid })
    }

    /// Headers and the first bytes of each packet of this port, thrown away.
    pub fn tcpdump(port: u16) -> Result<Rival> {
        let filter = format!("tcp port {port}");
        let mut launch =
            Launch::new("sh").args(["-c", "exec tcpdump -i lo -s 256 -U -w /dev/null \"$0\" 2>&1", &filter]);
        launch.command.stdout(Stdio::piped()).stdin(Stdio::null());
        let kid = launch.start()?;
        told(kid.take_stdout().context("tcpdump has no output")?, "listening on")?;
        Ok(Rival { _kid: kid })
    }
}

/// Whether somebody traces the calling thread.
fn traced() -> Option<()> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    (tracer.trim() != "0").then_some(())
}

/// Waits for a line with this in it. The rest of the output stays open.
fn told(out: impl Read + Send + 'static, word: &str) -> Result<()> {
    let mut lines = BufReader::new(out);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        if line.contains(word) {
            // The tool must not die of a closed pipe.
            std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
            return Ok(());
        }
        line.clear();
    }
    anyhow::bail!("it ended before it said {word:?}")
}
