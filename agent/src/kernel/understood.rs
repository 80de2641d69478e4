//! All that is read before there are maps and programs: what the running kernel says of its types.

use aya::EbpfLoader;
use trace502_ebpf::{HEAD, Offsets, Settings};

use super::btf::Btf;
use super::load::{LoadError, Options, PROGRAMS, WAYS};
use super::many::Unbound;
use super::offsets::{self, Missing, Names};
use super::probes::BASE;

/// What the programs are told of this kernel.
pub(super) struct Known {
    pub offsets: Offsets,
    pub settings: Settings,
    pub names: Names,
    pub missing: Vec<Missing>,
}

impl Known {
    fn of(blob: &[u8], options: &Options) -> Result<Known, LoadError> {
        let btf = Btf::parse(blob)?;
        let (offsets, missing) = offsets::resolve(&btf);
        if let Some(lacking) = missing.iter().find(|missing| BASE.contains(&missing.field)) {
            return Err(LoadError::Offset(lacking.member));
        }
        let mut settings = offsets::settings(&btf, cpus());
        settings.head = options.head.min(HEAD as u32);
        if let Some(places) = options.places {
            settings.places = places.next_power_of_two().max(WAYS);
            settings.flows = settings.flows.max(settings.places);
        }
        if let Some(room) = options.room {
            settings.flows = room.next_power_of_two().max(WAYS);
        }
        settings.found = options.found;
        Ok(Known { offsets, settings, names: Names::read(&btf), missing })
    }
}

/// All that is read before there are maps: the kernel's types, by us and by the loader's library, and the kernel side a
/// second time. Side by side: together they are a tenth of a start.
pub(super) struct Understood {
    pub known: Known,
    pub types: aya::Btf,
    pub unbound: Option<Unbound>,
    pub loader: EbpfLoader<'static>,
}

impl Understood {
    pub fn of(blob: &[u8], options: &Options) -> Result<Understood, LoadError> {
        let (known, unbound, loader, types) = std::thread::scope(|scope| {
            let known = scope.spawn(|| Known::of(blob, options));
            let unbound = scope.spawn(|| Unbound::prepare(PROGRAMS));
            // It reads the types, too, whatever it is given later: it must not do so by itself, while all wait.
            let loader = scope.spawn(EbpfLoader::new);
            // The same bytes: to read them takes longer than to understand them.
            let types = aya::Btf::parse(blob, aya::Endianness::default());
            (joined(known), joined(unbound), joined(loader), types)
        });
        let types = types.map_err(|error| LoadError::Refused(error.to_string()))?;
        Ok(Understood { known: known?, types, unbound, loader })
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn cpus() -> u32 {
    aya::util::nr_cpus().unwrap_or(1) as u32
}
