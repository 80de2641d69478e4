//! Loads the kernel side, attaches every probe that this kernel allows, and says what came of each.
//! The only file that talks to aya, beside [`super::ring`].

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, MapData, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::{BtfTracePoint, FExit, Iter, Program, ProgramError, UProbe};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use trace502_ebpf::{COMM, GO_READ, GO_WRITES, HEAD, LOSSES, Offsets, PROC_TLS, Settings};

use super::btf::{self, Btf, BtfError};
use super::detach::Detacher;
use super::go_program::{self, Programs, Purpose};
use super::inside::{self, HookError, Link, Places};
use super::libc_connect;
use super::many::Many;
use super::offsets::{self, Missing, Names};
use super::preflight::Trampolines;
use super::probes::{BASE, Hook, PROBES, Probe};
use super::program_info;
use super::report::ProbeReport;
use super::tls_library::{self, Libraries, Library, Visible};
use super::traffic::{Counter, DialledRow, ThreadRow, TimesRow, Traffic};

/// What the user may set of the kernel side.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the ring buffer; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Bytes of each request and answer that are kept.
    pub head: u32,
    /// Entries of each table that grows with the host, where that is not to be what the programs say.
    pub room: Option<u32>,
    /// Ask the verifier for its log.
    pub verbose: bool,
    /// Look inside the TLS libraries of proxies.
    pub tls: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { ring_bytes: 8 << 20, head: HEAD as u32, room: None, verbose: false, tls: true }
    }
}

/// Only what is there already is changed.
const BPF_EXIST: u64 = 2;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Btf(#[from] BtfError),
    #[error("this kernel lacks {0}, which every probe needs; trace502 needs Linux 6.1 or newer")]
    Offset(&'static str),
    #[error("the kernel refused the maps or the BTF: {0}")]
    Refused(String),
    #[error("probe {name} is needed and could not be attached: {why}")]
    Required { name: &'static str, why: String },
    #[error("a map of the kernel side is missing: {0}")]
    Map(&'static str),
}

/// Programs and maps in the kernel. They go with it.
pub struct Kernel {
    bpf: Ebpf,
    /// Where this kernel has hooks at many places at once.
    many: Option<Many>,
    pub names: Names,
    pub reports: Vec<ProbeReport>,
    /// Members that this kernel lacks.
    pub missing: Vec<Missing>,
    /// What came of the first program that needed a trampoline.
    pub trampolines: Trampolines,
    libc: Vec<libc_connect::Attached>,
    detacher: Detacher<Vec<Link>>,
    libraries: Libraries,
    tls: Vec<tls_library::Attached>,
    go_programs: Programs,
    go: Vec<go_program::Attached>,
    lost: PerCpuArray<MapData, u64>,
    threads: HashMap<MapData, u32, ThreadRow>,
    connects: HashMap<MapData, DialledRow, TimesRow>,
    counter: Counter,
}

impl Kernel {
    /// Loads and attaches. A required probe that fails is an error only for those who need events
    /// (see [`Kernel::complete`]): doctor wants the whole list.
    pub fn load(options: &Options) -> Result<Kernel, LoadError> {
        let blob = btf::read(std::path::Path::new("/"))?;
        let (offsets, settings, names, missing) = {
            let btf = Btf::parse(&blob)?;
            let (offsets, missing) = offsets::resolve(&btf);
            if let Some(lacking) = missing.iter().find(|missing| BASE.contains(&missing.field)) {
                return Err(LoadError::Offset(lacking.member));
            }
            let mut settings = offsets::settings(&btf, cpus());
            settings.head = options.head.min(HEAD as u32);
            (offsets, settings, Names::read(&btf), missing)
        };
        // The same bytes: to read them takes longer than to understand them.
        let types = aya::Btf::parse(&blob, aya::Endianness::default());
        let types = types.map_err(|error| LoadError::Refused(error.to_string()))?;
        let mut bpf = open(options, &offsets, &settings, &types)?;
        let means = Means { types: &types, many: Many::prepare(PROGRAMS, &bpf) };
        verify(&mut bpf, &means, &missing, options);
        let mut trampolines = Trampolines::NotTried;
        let mut reports = Vec::new();
        for probe in PROBES {
            reports.push(if wanted(probe, options) {
                attach(&mut bpf, probe, &means, &missing, &mut trampolines)
            } else {
                let report = ProbeReport::of(probe);
                ProbeReport { error: Some("switched off".into()), ..report }
            });
        }
        let mut many = means.many;
        if go_on(&mut bpf, many.as_ref()).is_none() {
            // Calls would be seen to begin and lead nowhere.
            detach(
                &mut reports,
                "tls_go",
                "its calls cannot be handed on to the programs for calls of other libraries",
            );
        }
        if let Some(many) = &mut many {
            many.settle();
        }
        let mut take = |name| bpf.take_map(name).ok_or(LoadError::Map(name));
        let lost = PerCpuArray::try_from(take("LOST")?).map_err(|_| LoadError::Map("LOST"))?;
        let threads = HashMap::try_from(take("THREADS")?).map_err(|_| LoadError::Map("THREADS"))?;
        let connects = HashMap::try_from(take("CONNECT_TIMES")?).map_err(|_| LoadError::Map("CONNECT_TIMES"))?;
        let counter = Counter::default();
        Ok(Kernel {
            bpf,
            many,
            names,
            reports,
            missing,
            trampolines,
            libc: Vec::new(),
            detacher: Detacher::default(),
            libraries: Libraries::default(),
            tls: Vec::new(),
            go_programs: Programs::default(),
            go: Vec::new(),
            lost,
            threads,
            connects,
            counter,
        })
    }

    /// The first required probe that is not attached is an error.
    pub fn complete(&self) -> Result<(), LoadError> {
        for (probe, report) in PROBES.iter().zip(&self.reports) {
            if probe.required && !report.attached {
                let why = report.error.clone().unwrap_or_default();
                return Err(LoadError::Required { name: probe.name, why });
            }
        }
        Ok(())
    }

    /// Executables with these names are proxies from now on.
    pub fn set_names(&mut self, names: &[(&str, u32)]) -> Result<(), LoadError> {
        let map = self.bpf.map_mut("NAMES").ok_or(LoadError::Map("NAMES"))?;
        let mut map: HashMap<_, [u8; COMM], u32> = HashMap::try_from(map).map_err(|_| LoadError::Map("NAMES"))?;
        for (name, class) in names {
            let mut comm = [0; COMM];
            let len = name.len().min(COMM - 1);
            comm[..len].copy_from_slice(&name.as_bytes()[..len]);
            map.insert(comm, class, 0).map_err(|error| LoadError::Refused(error.to_string()))?;
        }
        Ok(())
    }

    /// This process is a proxy, or listens for one.
    pub fn track(&mut self, pid: u32, class: u32) -> Result<(), LoadError> {
        let map = self.bpf.map_mut("PROCS").ok_or(LoadError::Map("PROCS"))?;
        let mut map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(|_| LoadError::Map("PROCS"))?;
        map.insert(pid, class, 0).map_err(|error| LoadError::Refused(error.to_string()))
    }

    /// Where no trampoline carries `connect_error`: hook the C library that this proxy has mapped.
    /// Libraries are hooked once for each process; one that cannot be hooked is no error.
    pub fn watch_connect(&mut self, pid: u32) {
        let uses_libc = self.reports.iter().any(|report| {
            report.name == "connect_error" && report.attached && report.provider.as_deref() == Some("uprobe")
        });
        if !uses_libc || self.libc.iter().any(|attached| attached.pid == pid) {
            return;
        }
        self.hook_go(pid, Purpose::Connect);
        let mut links = Vec::new();
        for (file, places) in libc_connect::locate(pid) {
            links.extend(self.hook("connect_uprobe", &Places { pid, file: &file, at: &places }).unwrap_or_default());
        }
        if !links.is_empty() {
            self.libc.push(libc_connect::Attached { pid, links });
        }
    }

    /// Looks inside the TLS library that this proxy has mapped. One that cannot be hooked is no error: what its
    /// clients say stays unseen.
    pub fn watch_tls(&mut self, pid: u32) -> Visible {
        if let Some(attached) = self.tls.iter().find(|attached| attached.pid == pid) {
            let name = attached.name.clone();
            return self.seen(pid, name);
        }
        if !self.attached("tls") {
            return Visible::None;
        }
        let mut refused = None;
        for library in self.libraries.of(pid) {
            match self.hook_tls(pid, &library) {
                Ok(links) => {
                    self.tls.push(tls_library::Attached { pid, name: library.name.clone(), links });
                    return self.seen(pid, library.name);
                }
                Err(error) => refused = Some(chain(&error)),
            }
        }
        if let Some(why) = refused {
            return Visible::Refused(why);
        }
        let seen = if self.attached("tls_go") { self.hook_go(pid, Purpose::Tls) } else { Visible::None };
        match seen {
            Visible::Hooked(name) => self.seen(pid, name),
            other => other,
        }
    }

    fn attached(&self, probe: &str) -> bool {
        self.reports.iter().any(|report| report.name == probe && report.attached)
    }

    /// Every call of a library that it has, or none.
    fn hook_tls(&mut self, pid: u32, library: &Library) -> Result<Vec<Link>, HookError> {
        let mut links = Vec::new();
        // The returns first: a call that is seen to begin is seen to end.
        for (program, at) in tls_library::places(&library.calls) {
            links.extend(self.hook(program, &Places { pid, file: &library.file, at: &at })?);
        }
        Ok(links)
    }

    fn hook(&mut self, program: &str, places: &Places) -> Result<Vec<Link>, HookError> {
        inside::hook(&mut self.bpf, self.many.as_ref(), program, places)
    }

    /// What clients say to this process inside TLS is seen in the file of this name.
    fn seen(&mut self, pid: u32, name: String) -> Visible {
        match self.add_class(pid, PROC_TLS) {
            Ok(()) => Visible::Hooked(name),
            Err(error) => Visible::Refused(error.to_string()),
        }
    }

    fn add_class(&mut self, pid: u32, more: u32) -> Result<(), LoadError> {
        let map = self.bpf.map_mut("PROCS").ok_or(LoadError::Map("PROCS"))?;
        let mut map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(|_| LoadError::Map("PROCS"))?;
        // One that is gone by now must not come back: nobody would forget it again.
        let Ok(class) = map.get(&pid, 0) else { return Ok(()) };
        map.insert(pid, class | more, BPF_EXIST).map_err(|error| LoadError::Refused(error.to_string()))
    }

    /// Hooks functions of a proxy that is a Go program, all of them or none.
    fn hook_go(&mut self, pid: u32, purpose: Purpose) -> Visible {
        let Some(go) = self.go_programs.of(pid) else { return Visible::None };
        if self.go.iter().any(|attached| attached.pid == pid && attached.purpose == purpose) {
            return Visible::Hooked(go.name());
        }
        let places = match go.places(purpose) {
            Ok(places) if places.is_empty() => return Visible::None,
            Ok(places) => places,
            Err(why) => return Visible::Refused(why.to_string()),
        };
        let mut links = Vec::new();
        for chunk in places.chunk_by(|one, next| one.0 == next.0) {
            let at: Vec<(u64, u64)> = chunk.iter().map(|(_, offset)| (*offset, purpose.cookie())).collect();
            match self.hook(chunk[0].0, &Places { pid, file: &go.file, at: &at }) {
                Ok(more) => links.extend(more),
                Err(why) => return Visible::Refused(chain(&why)),
            }
        }
        self.go.push(go_program::Attached { pid, purpose, links });
        Visible::Hooked(go.name())
    }

    /// Forgets a process that is gone, or has become another program.
    pub fn forget(&mut self, pid: u32) {
        let tls = self.tls.extract_if(.., |attached| attached.pid == pid);
        let mut links: Vec<Link> = tls.flat_map(|attached| attached.links).collect();
        links.extend(self.go.extract_if(.., |attached| attached.pid == pid).flat_map(|attached| attached.links));
        links.extend(self.libc.extract_if(.., |attached| attached.pid == pid).flat_map(|attached| attached.links));
        if !links.is_empty() {
            self.detacher.drop_later(links);
        }
    }

    /// Tells of listeners that exist already, then of connections of tracked proxies.
    pub fn find_existing(&mut self) {
        for name in ["found_listening", "found_beneath", "found_connected", "found_peers"] {
            self.walk(name);
        }
    }

    fn walk(&mut self, name: &str) -> Option<()> {
        let Some(Program::Iter(program)) = self.bpf.program_mut(name) else { return None };
        let id = program.attach().ok()?;
        let mut file = program.take_link(id).ok()?.into_file().ok()?;
        // The programs write nothing: reading is what runs them.
        let mut sink = [0; 4096];
        while file.read(&mut sink).ok()? > 0 {}
        Some(())
    }

    /// The ring buffer; once.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        let map = self.bpf.take_map("EVENTS").ok_or(LoadError::Map("EVENTS"))?;
        RingBuf::try_from(map).map_err(|_| LoadError::Map("EVENTS"))
    }

    /// How often the programs of each probe were passed over since the start, in the order of [`PROBES`]: the kernel
    /// does not run a program on a CPU where it runs already, having been interrupted.
    pub fn skipped(&self) -> [u64; PROBES.len()] {
        let many = |name| self.many.as_ref().and_then(|many| many.ask(name, program_info::skipped));
        let one = |name| Some(program_info::skipped(self.bpf.program(name)?.fd().ok()?.as_fd()));
        let of = |name| many(name).or_else(|| one(name)).unwrap_or(0);
        std::array::from_fn(|place| PROBES[place].providers.iter().copied().flatten().map(|(name, _)| of(name)).sum())
    }

    /// What could not be told or kept since the start: payload that could not be read, records by kind, entries by table.
    pub fn lost(&self) -> [u64; LOSSES] {
        std::array::from_fn(|slot| self.lost.get(&(slot as u32), 0).map(|counts| counts.iter().sum()).unwrap_or(0))
    }
}

impl Kernel {
    /// Traffic since the start.
    pub fn traffic(&mut self) -> Traffic {
        self.counter.read(&self.threads, &self.connects)
    }
}

/// The kernel side as it was built.
static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trace502-probes"));

/// What loading needs beside the programs.
struct Means<'a> {
    types: &'a aya::Btf,
    many: Option<Many>,
}

/// Takes back that a probe is attached.
fn detach(reports: &mut [ProbeReport], probe: &str, why: &str) {
    for report in reports.iter_mut().filter(|report| report.name == probe && report.attached) {
        report.attached = false;
        report.provider = None;
        report.error = Some(why.into());
    }
}

/// Calls of Go are gone on with by the programs for calls of other TLS libraries.
fn go_on(bpf: &mut Ebpf, many: Option<&Many>) -> Option<()> {
    for (place, name) in [(GO_READ, "tls_read"), (GO_WRITES, "tls_wrote")] {
        if let Some(many) = many
            && many.has(name)
        {
            many.enter(bpf.map("GO_ON")?, place, name).ok()?;
            continue;
        }
        let program = bpf.program(name)?.fd().ok()?.try_clone().ok()?;
        ProgramArray::try_from(bpf.map_mut("GO_ON")?).ok()?.set(place, &program, 0).ok()?;
    }
    Some(())
}

fn cpus() -> u32 {
    aya::util::nr_cpus().unwrap_or(1) as u32
}

fn open(options: &Options, offsets: &Offsets, settings: &Settings, types: &aya::Btf) -> Result<Ebpf, LoadError> {
    let page = 4096;
    let ring = options.ring_bytes.clamp(page, 1 << 30).next_power_of_two();
    let (offsets, settings) = (super::bytes_of(offsets), super::bytes_of(settings));
    let mut loader = EbpfLoader::new();
    // Without any log the kernel answers a retry with the wrong error.
    let level = if options.verbose { VerifierLogLevel::default() } else { VerifierLogLevel::STATS };
    loader
        .btf(Some(types))
        .verifier_log_level(level)
        .allow_unsupported_maps()
        .override_global("OFFSETS", offsets, true)
        .override_global("SETTINGS", settings, true)
        .map_max_entries("EVENTS", ring);
    if let Some(room) = options.room {
        for table in ["FLOWS", "THREADS", "LISTENERS", "LISTENER_KEYS"] {
            loader.map_max_entries(table, room);
        }
    }
    loader.load(PROGRAMS).map_err(|error| LoadError::Refused(chain(&error)))
}

/// Verification is most of a start, and each program is verified by itself: side by side, on what CPUs there are.
/// What is refused here is tried again, and told, where its probe is attached.
fn verify(bpf: &mut Ebpf, means: &Means, missing: &[Missing], options: &Options) {
    let preferred = |name: &str| {
        let mut providers =
            PROBES.iter().enumerate().filter(|(_, probe)| lacking(probe, missing).is_none() && wanted(probe, options));
        providers.find_map(|(place, probe)| {
            let (_, hook) = probe.providers[0].iter().find(|(program, _)| *program == name)?;
            Some((place, *hook))
        })
    };
    let mut programs: Vec<_> =
        bpf.programs_mut().filter_map(|(name, program)| Some((preferred(name)?, name, program))).collect();
    // The first of the table are the largest: the longest job must not begin last.
    programs.sort_by_key(|((place, _), _, _)| std::cmp::Reverse(*place));
    let programs = Mutex::new(programs);
    let next = || programs.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(((_, hook), name, program)) = next() {
                    let _ = load(name, program, hook, means);
                }
            });
        }
    });
}

/// Whether the user left it switched on.
fn wanted(probe: &Probe, options: &Options) -> bool {
    options.tls || !matches!(probe.name, "tls" | "tls_go")
}

/// The member that a probe needs and this kernel lacks.
fn lacking<'a>(probe: &Probe, missing: &'a [Missing]) -> Option<&'a Missing> {
    missing.iter().find(|missing| probe.needs.contains(&missing.field))
}

fn attach(
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

fn chain(error: &dyn std::error::Error) -> String {
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

/// Path of a process's file as we can open it.
pub(super) fn root_path(pid: u32, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root{path}"))
}
