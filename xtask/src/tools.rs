//! The programs that tasks need beyond cargo, and the Debian package of each. A table, nothing else.
use crate::shell;

/// What a program is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Compiling both sides.
    Build,
    /// Booting guests.
    Vm,
    /// The scenarios on this host.
    Tests,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Tool {
    pub program: &'static str,
    pub package: &'static str,
    pub group: Group,
}

const fn tool(group: Group, program: &'static str, package: &'static str) -> Tool {
    Tool { program, package, group }
}

pub const TOOLS: &[Tool] = &[
    tool(Group::Vm, "qemu-system-x86_64", "qemu-system-x86"),
    tool(Group::Vm, "busybox", "busybox-static"),
    tool(Group::Vm, "xz", "xz-utils"),
    tool(Group::Tests, "nginx", "nginx"),
    tool(Group::Tests, "haproxy", "haproxy"),
    tool(Group::Tests, "apache2", "apache2"),
    tool(Group::Tests, "caddy", "caddy"),
    tool(Group::Tests, "php-fpm8.2", "php8.2-fpm"),
    tool(Group::Tests, "python3", "python3"),
    tool(Group::Tests, "pip", "python3-pip"),
    tool(Group::Tests, "gunicorn", "gunicorn"),
    tool(Group::Tests, "uvicorn", "uvicorn"),
    tool(Group::Tests, "node", "nodejs"),
    tool(Group::Tests, "openssl", "openssl"),
    tool(Group::Tests, "nft", "nftables"),
    tool(Group::Tests, "iptables", "iptables"),
    tool(Group::Tests, "ip", "iproute2"),
    tool(Group::Tests, "promtool", "prometheus"),
    tool(Group::Tests, "curl", "curl"),
    tool(Group::Tests, "h2load", "nghttp2-client"),
    tool(Group::Tests, "podman", "podman"),
    tool(Group::Tests, "runc", "runc"),
];

/// The tools of these groups that are not here.
pub fn missing(groups: &[Group]) -> Vec<&'static Tool> {
    missing_from(groups, |program| shell::which(program).is_some())
}

fn missing_from(groups: &[Group], has: impl Fn(&str) -> bool) -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| groups.contains(&tool.group) && !has(tool.program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_task_needs_and_does_not_have_is_missing() {
        let names = |tools: Vec<&Tool>| tools.iter().map(|tool| tool.package).collect::<Vec<_>>();
        assert_eq!(names(missing_from(&[Group::Vm], |program| program == "xz")), ["qemu-system-x86", "busybox-static"]);
        assert!(missing_from(&[Group::Build], |_| false).is_empty());
        assert!(missing_from(&[Group::Vm, Group::Tests], |_| true).is_empty());
    }
}
