//! Loads each program and attaches each probe: every provider in the order of preference, and what came of it.

use std::sync::{Mutex, PoisonError};

use aya::Ebpf;
use aya::programs::{BtfTracePoint, FExit, Iter, Program, ProgramError, UProbe};

use super::load::Options;
use super::many::Many;
use super::offsets::Missing;
use super::preflight::Trampolines;
use super::probes::{Hook, PROBES, Probe};
use super::program_info;
use super::report::ProbeReport;

/// What loading needs beside the programs.
pub(super) struct Means<'a> {
    pub types: &'a aya::Btf,
    pub many: Option<Many>,
}

/// Takes back that a probe is attached.
pub(super) fn detach(reports: &mut [ProbeReport], probe: &str, why: &str) {
    for report in reports.iter_mut().filter(|report| report.name == probe && report.attached) {
        report.attached = false;
        report.provider = None;
        report.error = Some(why.into());
    }
}

/// One program that waits to be verified.
struct Job<'a> {
    /// Its probe in the table, and by which preference.
    place: usize,
    preference: usize,
    name: &'a str,
    program: &'a mut Program,
    hook: Hook,
}

/// Verification is most of a start, and each program is verified by itself: side by side, on what CPUs there are.
/// What is refused here is tried again, and told, where its probe is attached; what takes its place is verified here too.
pub(super) fn verify(bpf: &mut Ebpf, means: &Means, missing: &[Missing], options: &Options) {
    let jobs = bpf.programs_mut().filter_map(|(name, program)| {
        let mut probes =
            PROBES.iter().enumerate().filter(|(_, probe)| lacking(probe, missing).is_none() && wanted(probe, options));
        let (place, preference, hook) = probes.find_map(|(place, probe)| {
            let mut programs = probe.providers.iter().enumerate().flat_map(|(preference, provider)| {
                provider.iter().map(move |(program, hook)| (preference, *program, *hook))
            });
            programs.find(|(_, program, _)| *program == name).map(|(preference, _, hook)| (place, preference, hook))
        })?;
        Some(Job { place, preference, name, program, hook })
    });
    let (mut first, others): (Vec<Job>, Vec<Job>) = jobs.partition(|job| job.preference == 0);
    // The first of the table are the largest: the longest job must not begin last. Before them those that others may
    // have to replace.
    first.sort_by_key(|job| (PROBES[job.place].providers.len() > 1, std::cmp::Reverse(job.place)));
    let waiting = Mutex::new((first, others));
    let lock = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let next = || lock().0.pop();
    let replace = |place, preference| {
        let (first, others) = &mut *lock();
        first.extend(others.extract_if(.., |job| job.place == place && job.preference == preference));
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(job) = next() {
                    if load(job.name, job.program, job.hook, means).is_err() {
                        replace(job.place, job.preference + 1);
                    }
                }
            });
        }
    });
}

/// Whether the user left it switched on.
pub(super) fn wanted(probe: &Probe, options: &Options) -> bool {
    options.tls || !matches!(probe.name, "tls" | "tls_reasons" | "tls_go")
}

/// The member that a probe needs and this kernel lacks.
fn lacking<'a>(probe: &Probe, missing: &'a [Missing]) -> Option<&'a Missing> {
    missing.iter().find(|missing| probe.needs.contains(&missing.field))
}

pub(super) fn attach(
    bpf: &mut Ebpf,
    probe: &'static Probe,
    means: &Means,
    missing: &[Missing],
    trampolines: &mut Trampolines,
) -> ProbeReport {
    let mut report = ProbeReport::of(probe);
    if let Some(lacking) = lacking(probe, missing) {
        report.error = Some(lacking.to_string());
        return report;
    }
    for provider in probe.providers {
        let provided = provide(bpf, provider, means);
        if matches!(provider[0].1, Hook::Fexit(_)) && *trampolines == Trampolines::NotTried {
            *trampolines = match &provided {
                Ok(()) => Trampolines::Available,
                Err((why, _)) => Trampolines::Refused(why.clone()),
            };
        }
        match provided {
            Ok(()) => {
                let mut hooks: Vec<String> = provider.iter().map(|(_, hook)| hook.to_string()).collect();
                hooks.dedup();
                report.hook = hooks.join(" ");
                report.provider = Some(provider[0].1.provider().to_owned());
                report.attached = true;
                report.walked = provider.iter().filter_map(|(name, _)| walked(bpf, means.many.as_ref(), name)).max();
                report.error = None;
                report.verifier = None;
                return report;
            }
            Err((error, verifier)) => {
                // What the preferred provider says is the news; the others are a way out.
                report.error.get_or_insert(error);
                report.verifier = report.verifier.or(verifier);
            }
        }
    }
    report
}

type Refusal = (String, Option<String>);

/// Loads and attaches every program of a provider, or none.
fn provide(bpf: &mut Ebpf, provider: &[(&str, Hook)], means: &Means) -> Result<(), Refusal> {
    for (name, hook) in provider {
        let program = bpf.program_mut(name).ok_or_else(|| (format!("no program {name} in this build"), None))?;
        if let Err(error) = hook_up(name, program, *hook, means) {
            for (name, _) in provider {
                unload(bpf, name);
                if let Some(many) = &means.many {
                    many.unload(name);
                }
            }
            return Err(explain(&error));
        }
    }
    Ok(())
}

/// Instructions that the verifier walked through for a program (5.16).
fn walked(bpf: &Ebpf, many: Option<&Many>, name: &str) -> Option<u32> {
    if let Some(walked) = many.and_then(|many| many.ask(name, program_info::walked)) {
        return Some(walked);
    }
    bpf.program(name)?.info().ok()?.verified_instruction_count()
}

fn hook_up(name: &str, program: &mut Program, hook: Hook, means: &Means) -> Result<(), ProgramError> {
    if program.fd().is_err() {
        load(name, program, hook, means)?;
    }
    match program {
        Program::BtfTracePoint(program) => program.attach().map(drop),
        Program::FExit(program) => program.attach().map(drop),
        // Walks run when they are asked for; a library is hooked in each proxy as it is found.
        _ => Ok(()),
    }
}

fn load(name: &str, program: &mut Program, hook: Hook, means: &Means) -> Result<(), ProgramError> {
    let types = means.types;
    match hook {
        // Refused that way, it may still be loaded the other.
        Hook::LibcConnect | Hook::Go | Hook::Tls if means.many.as_ref().is_some_and(|many| many.load(name).is_ok()) => {
            Ok(())
        }
        Hook::TpBtf(name) => <&mut BtfTracePoint>::try_from(program)?.load(name, types),
        Hook::Fexit(name) => <&mut FExit>::try_from(program)?.load(name, types),
        Hook::Iter(name) => <&mut Iter>::try_from(program)?.load(name, types),
        Hook::LibcConnect | Hook::Go | Hook::Tls => <&mut UProbe>::try_from(program)?.load(),
    }
}

fn unload(bpf: &mut Ebpf, name: &str) {
    // A program that was never loaded refuses to be unloaded, which is what we want.
    let _ = match bpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        Some(Program::UProbe(program)) => program.unload(),
        _ => Ok(()),
    };
}

fn explain(error: &ProgramError) -> Refusal {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            (format!("refused at load: {io_error}"), (!log.is_empty()).then_some(log))
        }
        other => (chain(other), None),
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
