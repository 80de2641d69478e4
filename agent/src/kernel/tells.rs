//! What this kernel tells that others do not, or not in the same words: what differs where every probe is attached.

use serde::Serialize;
use trace502_ebpf::Settings;

use super::offsets::Names;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tells {
    /// Reasons of resets and of drops that it has names for.
    pub reset_reasons: usize,
    pub drop_reasons: usize,
    /// The OOM killer's choice comes with its task, not with a number alone.
    pub victims: bool,
    /// One link carries many hooks in a library.
    pub many_hooks: bool,
    pub mptcp: bool,
    /// Connections that there is room for.
    pub connections: u32,
}

impl Tells {
    pub fn of(names: &Names, settings: &Settings, many_hooks: bool) -> Tells {
        let named = |names: &[String]| names.iter().filter(|name| !name.is_empty()).count();
        Tells {
            reset_reasons: if settings.reset_reason == 0 { 0 } else { named(&names.reset) },
            drop_reasons: named(&names.drop),
            victims: settings.victim_task != 0,
            many_hooks,
            mptcp: settings.mptcp_first != u32::MAX,
            connections: settings.places,
        }
    }

    /// A word and what is to be said about it.
    pub fn rows(&self) -> [(&'static str, String); 6] {
        let reasons = |count: usize, what: &str, since: &str| match count {
            0 => format!("not told ({since}): {what}"),
            count => format!("{count} are told apart"),
        };
        let choose = |good: bool, well: &str, else_: &str| if good { well } else { else_ }.to_owned();
        [
            ("Reset reasons", reasons(self.reset_reasons, "why a stack of this host reset a connection", "Linux 6.10")),
            ("Drop reasons", reasons(self.drop_reasons, "drops of a firewall look like others", "Linux 5.17")),
            ("OOM victims", choose(self.victims, "with memory and cgroup", "by process id alone (Linux 6.9)")),
            ("Library hooks", choose(self.many_hooks, "many a link", "one a link (Linux 6.10): slower to let go of")),
            ("MPTCP", choose(self.mptcp, "listeners are followed", "none")),
            ("Connections", format!("room for {}", self.connections)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::btf::Btf;
    use super::super::btf::fixture::{DEBIAN_6_1, UPSTREAM_6_18};
    use super::super::offsets;
    use super::*;

    fn of(blob: &[u8]) -> Tells {
        let btf = Btf::parse(blob).unwrap();
        Tells::of(&Names::read(&btf), &offsets::settings(&btf, 1), false)
    }

    #[test]
    fn what_differs_between_kernels_is_told() {
        let (old, new) = (of(DEBIAN_6_1), of(UPSTREAM_6_18));
        assert_eq!(old.reset_reasons, 0);
        assert!(new.reset_reasons > 5 && new.drop_reasons > old.drop_reasons, "{old:?} {new:?}");
        assert!(old.rows()[0].1.contains("6.10") && new.rows()[0].1.ends_with("told apart"));
    }
}
