//! The kernel side as the program knows it: loaded, asked and told. How its probes are attached is in
//! [`super::attach`], how proxies' own code is hooked in [`super::inside`]; only these and [`super::ring`] talk to aya.

use std::io::Read as _;
use std::os::fd::AsFd as _;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use trace502_ebpf::{COMM, GO_READ, GO_WRITES, GROUP_PATH, GROUPS, Group, HEAD, LOSSES, Offsets, Settings};

use super::attach::{Means, attach, chain, detach, verify, wanted};
use super::btf::{self, BtfError};
use super::detach::Detacher;
use super::go_program::{self, Programs};
use super::inside::Link;
use super::libc_connect;
use super::many::Many;
use super::offsets::{Missing, Names};
use super::preflight::Trampolines;
use super::probes::PROBES;
use super::program_info;
use super::report::ProbeReport;
use super::tells::Tells;
use super::tls_library::{self, Libraries};
use super::traffic::{Counter, DialledRow, ThreadRow, TimesRow, Traffic};
use super::understood::{Known, Understood};

/// What the user may set of the kernel side.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the ring buffer; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Bytes of each request and answer that are kept.
    pub head: u32,
    /// Entries of each table that grows with the host, where that is not to be what the programs say.
    pub room: Option<u32>,
    /// Connections that there is room for, where that is not to follow from the host's memory; rounded up to a power of
    /// two.
    pub places: Option<u32>,
    /// Ask the verifier for its log.
    pub verbose: bool,
    /// Look inside the TLS libraries of proxies.
    pub tls: bool,
    /// What a process is that listens and dials; 0: nothing.
    pub found: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ring_bytes: 8 << 20,
            head: HEAD as u32,
            room: None,
            places: None,
            verbose: false,
            tls: true,
            found: 0,
        }
    }
}

/// Connections that the user may ask room for.
pub const CONNECTIONS: std::ops::RangeInclusive<u32> = 1 << 10..=1 << 20;

/// Places that share one row of `TAGS`.
pub(super) const WAYS: u32 = 4;

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

#[derive(Clone, Copy)]
#[repr(transparent)]
struct GroupRow(Group);

// SAFETY: integers without padding.
unsafe impl aya::Pod for GroupRow {}

/// Programs and maps in the kernel. They go with it.
pub struct Kernel {
    pub(super) bpf: Ebpf,
    /// Where this kernel has hooks at many places at once.
    pub(super) many: Option<Many>,
    pub names: Names,
    pub tells: Tells,
    pub reports: Vec<ProbeReport>,
    /// Members that this kernel lacks.
    pub missing: Vec<Missing>,
    /// What came of the first program that needed a trampoline.
    pub trampolines: Trampolines,
    pub(super) libc: Vec<libc_connect::Attached>,
    pub(super) detacher: Detacher<Vec<Link>>,
    pub(super) libraries: Libraries,
    pub(super) tls: Vec<tls_library::Attached>,
    pub(super) go_programs: Programs,
    pub(super) go: Vec<go_program::Attached>,
    /// Times that a program of Go was hooked.
    pub(super) go_turn: u32,
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
        let Understood { known, types, unbound, loader } = Understood::of(&blob, options)?;
        let Known { offsets, settings, names, missing } = known;
        let mut bpf = open(loader, options, &offsets, &settings, &types)?;
        let means = Means { types: &types, many: unbound.and_then(|unbound| unbound.bind(&bpf).ok()) };
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
            tells: Tells::of(&names, &settings, many.is_some()),
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
            go_turn: 0,
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

    /// Processes in these cgroups are proxies from now on: paths below the root, with what is known of each. Asked
    /// again with its id, one that exists already is known.
    pub fn set_groups(&mut self, groups: &[(&str, Group)]) -> Result<(), LoadError> {
        let refused = |error: MapError| LoadError::Refused(error.to_string());
        let map = self.bpf.map_mut("CGROUP_PATHS").ok_or(LoadError::Map("CGROUP_PATHS"))?;
        let mut paths: HashMap<_, [u8; GROUP_PATH], u32> = HashMap::try_from(map).map_err(refused)?;
        let before: Vec<_> = paths.keys().flatten().collect();
        for path in before {
            paths.remove(&path).map_err(refused)?;
        }
        for (slot, (path, _)) in groups.iter().enumerate() {
            let mut key = [0; GROUP_PATH];
            let len = path.len().min(GROUP_PATH - 1);
            key[..len].copy_from_slice(&path.as_bytes()[..len]);
            paths.insert(key, slot as u32, 0).map_err(refused)?;
        }
        let map = self.bpf.map_mut("CGROUPS").ok_or(LoadError::Map("CGROUPS"))?;
        let mut slots: Array<_, GroupRow> = Array::try_from(map).map_err(refused)?;
        for (slot, (_, group)) in groups.iter().enumerate().take(GROUPS) {
            slots.set(slot as u32, GroupRow(*group), 0).map_err(refused)?;
        }
        Ok(())
    }

    /// This process is a proxy, or listens for one.
    pub fn track(&mut self, pid: u32, class: u32) -> Result<(), LoadError> {
        let map = self.bpf.map_mut("PROCS").ok_or(LoadError::Map("PROCS"))?;
        let mut map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(|_| LoadError::Map("PROCS"))?;
        map.insert(pid, class, 0).map_err(|error| LoadError::Refused(error.to_string()))
    }

    /// Tells of listeners that exist already, then of connections of tracked proxies.
    pub fn find_existing(&mut self) {
        for name in ["found_listening", "found_beneath", "found_connected", "found_peers"] {
            self.walk(name);
        }
    }

    /// Looks for listeners whose ports were not known when they were told of.
    pub fn find_listeners(&mut self) {
        self.walk("found_listening");
        self.walk("found_beneath");
        // One that came meanwhile is told, and looked for then.
        if let Some(map) = self.bpf.map_mut("LISTENERS_MISSING")
            && let Ok(mut missing) = Array::<_, u32>::try_from(map)
        {
            // It stays as it is where that fails: then nobody is said to be absent, which is never wrong.
            let _ = missing.set(1, 0, 0);
        }
    }

    /// The same for processes that have become proxies since then.
    pub fn find_more(&mut self) {
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

    /// Traffic since the start.
    pub fn traffic(&mut self) -> Traffic {
        self.counter.read(&self.threads, &self.connects)
    }
}

/// The kernel side as it was built.
pub(super) static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trace502-probes"));

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

fn open<'a>(
    mut loader: EbpfLoader<'a>,
    options: &Options,
    offsets: &'a Offsets,
    settings: &'a Settings,
    types: &'a aya::Btf,
) -> Result<Ebpf, LoadError> {
    let page = 4096;
    let ring = options.ring_bytes.clamp(page, 1 << 30).next_power_of_two();
    // Without any log the kernel answers a retry with the wrong error.
    let level = if options.verbose { VerifierLogLevel::default() } else { VerifierLogLevel::STATS };
    loader
        .btf(Some(types))
        .verifier_log_level(level)
        .allow_unsupported_maps()
        .override_global("OFFSETS", super::bytes_of(offsets), true)
        .override_global("SETTINGS", super::bytes_of(settings), true)
        .map_max_entries("EVENTS", ring)
        .map_max_entries("PLACES", settings.places)
        .map_max_entries("TAGS", settings.places / WAYS)
        .map_max_entries("ENDS", settings.flows / WAYS);
    if let Some(room) = options.room {
        for table in ["THREADS", "LISTENERS", "LISTENER_KEYS", "GO_CALLS"] {
            loader.map_max_entries(table, room);
        }
    }
    loader.load(PROGRAMS).map_err(|error| LoadError::Refused(hint(chain(&error), settings.places)))
}

/// What is refused for its size has a way out.
fn hint(refused: String, places: u32) -> String {
    if !refused.contains("PLACES") {
        return refused;
    }
    format!("{refused}; it holds {places} connections of 800 bytes each: give a smaller --connections, or more memory")
}
