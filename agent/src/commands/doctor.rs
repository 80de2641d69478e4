//! `trace502 doctor`: what this kernel and these privileges allow, as a table or as JSON.
//!
//! It renders what preflight and the loader found, and tries nothing itself.

use super::doctor_tls::{self, ProxyTls};
use crate::kernel::findings::{Finding, Level};
use crate::kernel::offsets::Missing;
use crate::kernel::preflight::{self, Lockdown, Preflight, Trampolines};
use crate::kernel::report::ProbeReport;
use crate::kernel::tells::Tells;
use crate::kernel::{Kernel, Options};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// Columns of the table.
const WIDTH: usize = 80;
/// Last lines of the verifier's log: the reason is at its end.
const VERIFIER_TAIL: usize = 20;

/// Tell what this kernel and these privileges allow: each probe, whether it attaches, what is lost without it.
///
/// Exit status: 0 ready, 1 degraded, 2 cannot run.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Doctor {
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Also print the end of the verifier's log for each probe that it refused
    #[arg(long, short)]
    pub verbose: bool,
}

impl Doctor {
    /// Tries everything once: loads, attaches, and lets go again.
    pub fn run(self) -> anyhow::Result<u8> {
        let mut preflight = Preflight::read(Path::new("/"));
        // The sentence on what failed is part of the report.
        let _ = preflight::raise_memlock(&preflight);
        let options = Options { verbose: self.verbose, ..Options::default() };
        let (missing, probes, tells, refused) = match Kernel::load(&options) {
            Ok(kernel) => {
                preflight.trampolines = kernel.trampolines.clone();
                (kernel.missing.clone(), kernel.reports.clone(), Some(kernel.tells.clone()), None)
            }
            Err(error) => (Vec::new(), Vec::new(), None, Some(error.to_string())),
        };
        let proxies = doctor_tls::look();
        let report = Report {
            preflight: &preflight,
            missing: &missing,
            probes: &probes,
            proxies: &proxies,
            tells: tells.as_ref(),
            refused: refused.as_deref(),
        };
        let mut out = io::stdout().lock();
        let verdict = report.write(self, &mut out)?;
        out.flush()?;
        Ok(verdict.exit_code())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ready,
    Degraded,
    CannotRun,
}

impl Verdict {
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Ready => 0,
            Verdict::Degraded => 1,
            Verdict::CannotRun => 2,
        }
    }
}

/// Everything that was found out. `probes` is empty when none was tried.
pub struct Report<'a> {
    pub preflight: &'a Preflight,
    pub missing: &'a [Missing],
    pub probes: &'a [ProbeReport],
    /// Proxies that run.
    pub proxies: &'a [ProxyTls],
    /// What the kernel tells, where programs could be loaded.
    pub tells: Option<&'a Tells>,
    /// Why nothing could be loaded at all.
    pub refused: Option<&'a str>,
}

impl Report<'_> {
    pub fn verdict(&self) -> Verdict {
        let worst = self.preflight.findings().iter().map(|finding| finding.level).min();
        let lacks = |required| self.probes.iter().any(|probe| !probe.attached && probe.required == required);
        if worst == Some(Level::Fatal) || self.refused.is_some() || lacks(true) {
            Verdict::CannotRun
        } else if worst == Some(Level::Degraded) || lacks(false) {
            Verdict::Degraded
        } else {
            Verdict::Ready
        }
    }

    /// Writes what was asked for and says how it stands.
    pub fn write(&self, doctor: Doctor, out: &mut impl Write) -> io::Result<Verdict> {
        if doctor.json {
            self.write_json(out)?;
        } else {
            self.write_table(doctor.verbose, out)?;
        }
        Ok(self.verdict())
    }

    fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let missing: Vec<String> =
            self.missing.iter().map(|missing| format!("{}.{}", missing.strukt, missing.member)).collect();
        let report = serde_json::json!({
            "v": 1,
            "verdict": self.verdict(),
            "kernel": self.preflight,
            "findings": self.preflight.findings(),
            "missing_members": missing,
            "tells": self.tells,
            "probes": self.probes,
            "proxies": self.proxies,
            "error": self.refused,
        });
        writeln!(out, "{report}")
    }

    fn write_table(&self, verbose: bool, out: &mut impl Write) -> io::Result<()> {
        self.write_facts(out)?;
        self.write_probes(verbose, out)?;
        self.write_proxies(out)?;
        for finding in self.preflight.findings() {
            write_finding(&finding, out)?;
        }
        writeln!(out)?;
        paragraph(out, "", &self.conclusion())
    }

    fn write_facts(&self, out: &mut impl Write) -> io::Result<()> {
        let preflight = self.preflight;
        let privileges = match preflight.uid {
            Some(uid) => format!("uid {uid}; {}", self.capabilities()),
            None => self.capabilities(),
        };
        let mut facts = vec![
            ("Kernel", preflight.release.clone()),
            ("BTF", preflight.btf.as_ref().map_or_else(|_| "none".into(), |size| format!("{} KiB", size / 1024))),
            ("Lockdown", lockdown(preflight.lockdown).into()),
            ("Tracefs", preflight.tracefs.as_ref().map_or("not seen".into(), |path| path.display().to_string())),
            ("Compiler", switch(preflight.jit).into()),
            ("Trampolines", trampolines(&preflight.trampolines)),
            ("Symbols", if preflight.kernel_symbols { "readable" } else { "hidden" }.into()),
            ("Privileges", privileges),
        ];
        if preflight.counts_memlock() {
            let limit = preflight.memlock.map_or("unlimited".into(), |bytes| format!("{} KiB", bytes / 1024));
            facts.push(("Locked memory", limit));
        }
        if let Some((walked, name)) = self.probes.iter().filter_map(|probe| Some((probe.walked?, probe.name))).max() {
            let share = walked as f64 / 10_000.0;
            facts.push(("Verifier", format!("{share:.1} % of its limit taken at most, by {name}")));
        }
        facts.extend(self.tells.iter().flat_map(|tells| tells.rows()));
        if !self.missing.is_empty() {
            let names: Vec<String> =
                self.missing.iter().map(|missing| format!("{}.{}", missing.strukt, missing.member)).collect();
            facts.push(("Not in BTF", names.join(", ")));
        }
        for (name, value) in facts {
            paragraph(out, &format!("{name:<14}"), &value)?;
        }
        Ok(())
    }

    fn capabilities(&self) -> String {
        let held: Vec<&str> = self
            .preflight
            .capabilities
            .iter()
            .filter(|capability| capability.held)
            .map(|capability| capability.name)
            .collect();
        if held.is_empty() { "no capability that is of use".into() } else { held.join(" ") }
    }

    fn write_probes(&self, verbose: bool, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        if self.probes.is_empty() {
            return paragraph(out, "", "No probe was tried.");
        }
        let name = self.probes.iter().map(|probe| probe.name.len()).max().unwrap_or(0).clamp(5, 28);
        writeln!(out, "{:<name$}  {:<10}  {:<8}  HOOK", "PROBE", "PROVIDER", "STATE")?;
        for probe in self.probes {
            let provider = probe.provider.as_deref().unwrap_or("-");
            let state = match (probe.attached, probe.required) {
                (true, _) => "attached",
                (false, true) => "MISSING",
                (false, false) => "missing",
            };
            let row = format!("{:<name$}  {:<10}  {:<8}  ", probe.name, printable(provider), state);
            paragraph(out, &row, &probe.hook)?;
            if probe.attached {
                continue;
            }
            let need = if probe.required { "required" } else { "optional" };
            paragraph(out, "    lost: ", &format!("{} ({need})", probe.lost))?;
            if let Some(error) = &probe.error {
                paragraph(out, "    why:  ", error)?;
            }
            match &probe.verifier {
                Some(log) if verbose => write_verifier(log, out)?,
                Some(_) => paragraph(out, "    ", "the verifier refused it: --verbose shows its log")?,
                None => {}
            }
        }
        Ok(())
    }

    /// Where the clients that speak TLS to each proxy are read.
    fn write_proxies(&self, out: &mut impl Write) -> io::Result<()> {
        if !self.proxies.is_empty() {
            writeln!(out, "\nTLS OF CLIENTS AND UPSTREAMS")?;
        }
        for proxy in self.proxies {
            paragraph(out, "", &format!("{} ({}): {}", proxy.name, proxy.who(), proxy.says()))?;
        }
        Ok(())
    }

    fn conclusion(&self) -> String {
        let all = self.probes.len();
        let missing = self.probes.iter().filter(|probe| !probe.attached).count();
        let required = self.probes.iter().filter(|probe| !probe.attached && probe.required).count();
        match self.verdict() {
            Verdict::Ready => format!("Ready: {} attached.", counted(all, "probe")),
            Verdict::Degraded if missing == 0 => {
                format!("Degraded: {} attached, but see above what is lost.", counted(all, "probe"))
            }
            Verdict::Degraded => {
                format!("Degraded: {} of {} missing; what is lost is named above.", missing, counted(all, "probe"))
            }
            // Preflight says the same in more words where it knows why.
            Verdict::CannotRun if !self.preflight.hopeless() && self.refused.is_some() => {
                format!("Cannot run: {}.", self.refused.unwrap_or_default())
            }
            // With all privileges held, what refuses every program alike is a filter on the bpf() call itself.
            Verdict::CannotRun if missing == all && !self.preflight.hopeless() => {
                "Cannot run: no probe attached. In a container, allow the bpf and perf_event_open calls in its seccomp \
                 profile (docker, podman: --privileged)."
                    .into()
            }
            Verdict::CannotRun if required > 0 => {
                format!("Cannot run: {} missing.", counted(required, "required probe"))
            }
            Verdict::CannotRun => "Cannot run: see what to do above.".into(),
        }
    }
}

fn write_finding(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    let word = match finding.level {
        Level::Fatal => "FATAL     ",
        Level::Degraded => "DEGRADED  ",
        Level::Note => "NOTE      ",
    };
    paragraph(out, word, &finding.says)?;
    paragraph(out, "    to do: ", &finding.fix)?;
    for command in &finding.run {
        // Not wrapped: it is to be copied.
        writeln!(out, "           {}", printable(command))?;
    }
    Ok(())
}

fn write_verifier(log: &str, out: &mut impl Write) -> io::Result<()> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let skipped = lines.len().saturating_sub(VERIFIER_TAIL);
    if skipped > 0 {
        writeln!(out, "    | ({skipped} lines before)")?;
    }
    for line in &lines[skipped..] {
        // Not wrapped: the log is read as it is, or pasted into a report.
        writeln!(out, "    | {}", printable(line))?;
    }
    Ok(())
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn lockdown(lockdown: Lockdown) -> &'static str {
    match lockdown {
        Lockdown::None => "none",
        Lockdown::Integrity => "integrity",
        Lockdown::Confidentiality => "confidentiality",
        Lockdown::Unknown => "not known (securityfs is not mounted, or this kernel has none)",
    }
}

fn switch(jit: Option<bool>) -> &'static str {
    match jit {
        Some(true) => "on (programs run as machine code)",
        Some(false) => "off (programs are interpreted)",
        None => "not known",
    }
}

fn trampolines(trampolines: &Trampolines) -> String {
    match trampolines {
        Trampolines::NotTried => "not tried".into(),
        Trampolines::Available => "available (fentry, fexit)".into(),
        Trampolines::Refused(why) => format!("refused: {why}"),
    }
}

/// Text of the kernel or of a file, safe for a terminal.
fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => safe.push(' '),
            c if c.is_control() => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

/// `text` after `head`, wrapped at 80 columns and continued below its own beginning. A word that is longer than a line
/// (a path, a command) stays whole.
fn paragraph(out: &mut impl Write, head: &str, text: &str) -> io::Result<()> {
    let indent = head.chars().count();
    let mut line = head.to_string();
    let mut used = indent;
    for word in printable(text).split_whitespace() {
        let length = word.chars().count();
        let gap = usize::from(used > indent);
        if gap == 1 && used + gap + length > WIDTH {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(indent);
            used = indent;
        } else if gap == 1 {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
    }
    writeln!(out, "{}", line.trim_end())
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
