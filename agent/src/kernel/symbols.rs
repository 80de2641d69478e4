//! Names of kernel functions by address, from /proc/kallsyms. Read when the first one is asked, since most runs never
//! do, and by a thread of its own: it takes a tenth of a second, in which nobody waits for a name.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// No function of the kernel is longer: an address further from the last name belongs to none.
const LONGEST: u64 = 1 << 20;

pub struct Symbols {
    path: PathBuf,
    table: State,
}

enum State {
    Unread,
    Reading(JoinHandle<Table>),
    Read(Table),
}

/// Sorted addresses, and for each where its name begins in one long text.
#[derive(Default)]
struct Table {
    addresses: Vec<u64>,
    names: Vec<u32>,
    text: String,
}

impl Symbols {
    /// The symbols of the running kernel below `root`.
    pub fn new(root: &Path) -> Symbols {
        Symbols { path: root.join("proc/kallsyms"), table: State::Unread }
    }

    /// Whether this process is shown addresses. Without CAP_SYSLOG, or with kptr_restrict=2, all of them are zero.
    pub fn readable(root: &Path) -> bool {
        let Ok(file) = File::open(root.join("proc/kallsyms")) else { return false };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        // Per-CPU symbols are honestly at zero, and come first on some kernels.
        lines.take(4096).any(|line| symbol(&line).is_some())
    }

    /// The function that `address` lies in; `None` when there is no such name, none may be read, or none is read yet.
    pub fn name(&mut self, address: u64) -> Option<&str> {
        match self.table {
            State::Unread => self.read(),
            State::Reading(ref reader) if reader.is_finished() => self.settle(),
            _ => {}
        }
        match &self.table {
            State::Read(table) => table.name(address),
            State::Unread | State::Reading(_) => None,
        }
    }

    fn read(&mut self) {
        let path = self.path.clone();
        let reader = std::thread::Builder::new().name("symbols".into()).spawn(move || Table::read(&path));
        // Without a thread there are no names: the address is then all there is to say.
        self.table = reader.map_or_else(|_| State::Read(Table::default()), State::Reading);
    }

    fn settle(&mut self) {
        if let State::Reading(reader) = std::mem::replace(&mut self.table, State::Unread) {
            self.table = State::Read(reader.join().unwrap_or_default());
        }
    }
}

impl Table {
    /// A file that is absent or unreadable is an empty table: the address is then all there is to say.
    fn read(path: &Path) -> Table {
        let Ok(file) = File::open(path) else { return Table::default() };
        let mut found: Vec<(u64, u8, u32)> = Vec::new();
        let mut text = String::new();
        let mut lines = BufReader::with_capacity(1 << 16, file);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if let Some((address, rank, name)) = std::str::from_utf8(&line).ok().and_then(symbol)
                && let Ok(at) = u32::try_from(text.len())
            {
                found.push((address, rank, at));
                text.push_str(name);
                text.push('\n');
            }
            line.clear();
        }
        // Of several names for one address the most public one stays.
        found.sort_unstable();
        found.dedup_by_key(|(address, _, _)| *address);
        text.shrink_to_fit();
        Table {
            addresses: found.iter().map(|(address, _, _)| *address).collect(),
            names: found.iter().map(|(_, _, at)| *at).collect(),
            text,
        }
    }

    fn name(&self, address: u64) -> Option<&str> {
        let at = self.addresses.partition_point(|&start| start <= address).checked_sub(1)?;
        if address - self.addresses[at] > LONGEST {
            return None;
        }
        let rest = self.text.get(self.names[at] as usize..)?;
        rest.split('\n').next()
    }
}

/// Address, rank (lower is better) and name of a line that names a function.
fn symbol(line: &str) -> Option<(u64, u8, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok().filter(|&address| address != 0)?;
    let rank = match words.next()? {
        "T" => 0,
        "W" => 1,
        "t" | "w" => 2,
        _ => return None,
    };
    // What the compiler split off is still the function that a reader of the source knows.
    let name = words.next()?;
    let name = name.split_once('.').map_or(name, |(function, _)| function);
    (!name.is_empty()).then_some((address, rank, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(text: &str) -> (tempdir::Root, Symbols) {
        let root = tempdir::Root::new();
        root.write("proc/kallsyms", text);
        let mut symbols = Symbols::new(root.path());
        symbols.read();
        symbols.settle();
        (root, symbols)
    }
    use crate::kernel::tempdir;

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let (root, mut symbols) = symbols(
            "0000000000000000 A fixed_percpu_data\n\
             ffffffff81000200 t __pi_tcp_v4_rcv\n\
             ffffffff81000200 T tcp_v4_rcv\n\
             ffffffff81000100 t nf_hook_slow.constprop.0\n\
             ffffffff81000180 D some_data\n\
             ffffffffc0201000 t nft_do_chain\t[nf_tables]\n\
             not a line\n",
        );
        assert!(Symbols::readable(root.path()));
        assert_eq!(symbols.name(0xffff_ffff_8100_0200), Some("tcp_v4_rcv"));
        assert_eq!(symbols.name(0xffff_ffff_8100_02ff), Some("tcp_v4_rcv"));
        assert_eq!(symbols.name(0xffff_ffff_8100_01ff), Some("nf_hook_slow"));
        assert_eq!(symbols.name(0xffff_ffff_c020_1010), Some("nft_do_chain"));
        assert_eq!(symbols.name(0xffff_ffff_8100_00ff), None);
        assert_eq!(symbols.name(0xffff_ffff_a000_0000), None, "far from any function");
        assert_eq!(symbols.name(0), None);
    }

    #[test]
    fn hidden_or_absent_addresses_name_nothing() {
        let (root, mut hidden) = symbols("0000000000000000 T tcp_v4_rcv\n0000000000000000 T udp_rcv\n");
        assert!(!Symbols::readable(root.path()));
        assert_eq!(hidden.name(0xffff_ffff_8100_0200), None);
        let empty = tempdir::Root::new();
        assert!(!Symbols::readable(empty.path()));
        assert_eq!(Symbols::new(empty.path()).name(1), None);
    }

    #[test]
    fn nobody_waits_for_the_names_to_be_read() {
        let (root, _) = symbols("ffffffff81000200 T tcp_v4_rcv\n");
        let mut symbols = Symbols::new(root.path());
        symbols.name(0xffff_ffff_8100_0200);
        while matches!(&symbols.table, State::Reading(reader) if !reader.is_finished()) {
            std::thread::yield_now();
        }
        assert_eq!(symbols.name(0xffff_ffff_8100_0200), Some("tcp_v4_rcv"));
    }
}
