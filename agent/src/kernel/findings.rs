//! What the facts of a preflight mean: one sentence each, what is lost, and the way out.

use super::capabilities::{Need, SYS_ADMIN};
use super::preflight::{Lockdown, OLDEST, Preflight};
use serde::Serialize;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// trace502 cannot run.
    Fatal,
    /// It runs and something is lost.
    Degraded,
    /// Nothing is lost.
    Note,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// A word for scripts and tests.
    pub id: &'static str,
    pub level: Level,
    pub says: String,
    /// The way out, in words.
    pub fix: String,
    /// Commands that are the way out, one of them or all as `fix` says.
    pub run: Vec<String>,
}

impl Preflight {
    /// The most serious first. Empty on a kernel that has everything, with every privilege.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found: Vec<Finding> = [
            self.too_old(),
            self.no_btf(),
            self.locked_down(),
            self.lacks_required(),
            self.inner_user_namespace(),
            self.lacks_useful(),
            self.inner_pid_namespace(),
            self.no_jit(),
            self.no_tracefs(),
        ]
        .into_iter()
        .flatten()
        .collect();
        found.sort_by_key(|finding| finding.level);
        found
    }

    /// Whether there is any point in loading.
    pub fn hopeless(&self) -> bool {
        self.findings().iter().any(|finding| finding.level == Level::Fatal)
    }

    /// `setcap` for this program, with everything this kernel can give it.
    pub fn setcap(&self) -> String {
        let names: Vec<String> = self
            .capabilities
            .iter()
            .filter(|capability| capability.need != Need::Unneeded)
            .map(|capability| capability.name.to_lowercase())
            .collect();
        format!("sudo setcap {}+ep {}", names.join(","), self.exe)
    }

    fn too_old(&self) -> Option<Finding> {
        (!self.new_enough()).then(|| Finding {
            id: "kernel_too_old",
            level: Level::Fatal,
            says: format!(
                "kernel {} is too old: it lacks helpers that came with {}.{}",
                self.release, OLDEST.0, OLDEST.1
            ),
            fix: format!("boot a kernel {}.{} or newer; 6.1 and newer are tested", OLDEST.0, OLDEST.1),
            run: Vec::new(),
        })
    }

    fn no_btf(&self) -> Option<Finding> {
        let why = self.btf.as_ref().err()?;
        Some(Finding {
            id: "no_btf",
            level: Level::Fatal,
            says: format!("no type information (BTF): {why}"),
            fix: "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of Debian, Ubuntu, Fedora and RHEL are; \
                  in a container, mount the host's /sys/kernel/btf"
                .into(),
            run: Vec::new(),
        })
    }

    fn locked_down(&self) -> Option<Finding> {
        (self.lockdown == Lockdown::Confidentiality).then(|| Finding {
            id: "lockdown_confidentiality",
            level: Level::Fatal,
            says: "the kernel is locked down (confidentiality): no program may read kernel memory".into(),
            fix: "boot without lockdown=confidentiality; lockdown=integrity is fine".into(),
            run: Vec::new(),
        })
    }

    fn lacks_required(&self) -> Option<Finding> {
        let missing = self.lacking(Need::Required);
        if missing.is_empty() {
            return None;
        }
        let mut run = vec![format!("sudo {} {}", self.exe, self.again)];
        // Before CAP_BPF there is no set of capabilities short of root's that would do.
        let mut fix = "run it as root";
        if !missing.contains(&SYS_ADMIN) {
            fix = "run it as root, or give the program its capabilities once";
            run.push(self.setcap());
        }
        Some(Finding {
            id: "not_privileged",
            level: Level::Fatal,
            says: format!("this process lacks {}, without which nothing loads", missing.join(" and ")),
            fix: fix.into(),
            run,
        })
    }

    fn inner_user_namespace(&self) -> Option<Finding> {
        (!self.host_users).then(|| Finding {
            id: "user_namespace",
            level: Level::Fatal,
            says: "this process runs in a user namespace of its own: its capabilities do not count on the host".into(),
            fix:
                "run it on the host, or in a container without user namespace (docker: --userns=host; podman: as root; \
                  Kubernetes: hostUsers: true)"
                    .into(),
            run: Vec::new(),
        })
    }

    fn lacks_useful(&self) -> Option<Finding> {
        let missing = self.lacking(Need::Useful);
        if missing.is_empty() {
            return None;
        }
        let lost: Vec<String> = self
            .capabilities
            .iter()
            .filter(|capability| missing.contains(&capability.name))
            .map(|capability| format!("{} (to {}): {}", capability.name, capability.purpose, capability.lost))
            .collect();
        Some(Finding {
            id: "fewer_capabilities",
            level: Level::Degraded,
            says: format!("lost without {}", lost.join("; without ")),
            fix: "run it as root, or give the program its capabilities once".into(),
            run: vec![self.setcap()],
        })
    }

    fn lacking(&self, need: Need) -> Vec<&'static str> {
        self.capabilities
            .iter()
            .filter(|capability| capability.need == need && !capability.held)
            .map(|capability| capability.name)
            .collect()
    }

    fn inner_pid_namespace(&self) -> Option<Finding> {
        (!self.host_pids).then(|| Finding {
            id: "pid_namespace",
            level: Level::Degraded,
            says: "this process runs in a pid namespace of its own: the kernel's process ids cannot be looked up, so \
                   proxies and upstreams have no names, units or limits"
                .into(),
            fix: "run it on the host, or with the host's pids (docker, podman: --pid=host; Kubernetes: hostPID: true)"
                .into(),
            run: Vec::new(),
        })
    }

    fn no_jit(&self) -> Option<Finding> {
        (self.jit == Some(false)).then(|| Finding {
            id: "no_jit",
            level: Level::Degraded,
            says:
                "the BPF compiler is off: programs are interpreted, which costs several times as much, and fentry and \
                   fexit do not work"
                    .into(),
            fix: "switch it on".into(),
            run: vec!["sudo sysctl net.core.bpf_jit_enable=1".into()],
        })
    }

    fn no_tracefs(&self) -> Option<Finding> {
        self.tracefs.is_none().then(|| Finding {
            id: "no_tracefs",
            level: Level::Note,
            says: "no tracefs is seen: nothing is lost, since no probe needs it".into(),
            fix: "mount it where other tracing tools want it".into(),
            run: vec!["sudo mount -t tracefs tracefs /sys/kernel/tracing".into()],
        })
    }
}
