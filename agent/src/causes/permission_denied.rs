//! `permission_denied`: the proxy may not connect there.

use super::{Case, Cause, Finding, Scope, Verdict};
use crate::model::Group;
use crate::text;

pub static CAUSE: Cause = Cause {
    id: "permission_denied",
    group: Group::Connect,
    scope: Scope::Attempt,
    absence: false,
    meaning: "connect() was not permitted: mode of the socket file or of a directory on the way, SELinux or AppArmor, \
              or a local policy.",
    proof: "EACCES or EPERM from connect().",
    remedy: "Give the proxy's user access to the socket (listen.mode, a common group), or allow it in the security \
              policy.",
    rule,
};

fn rule(case: &Case<'_>) -> Verdict {
    // What comes to a TCP socket later is a packet's answer (ICMPv6, administratively prohibited), not that of this host.
    let by_call = case.is_unix() || case.in_call;
    if !by_call || !case.connecting() || !case.failed_with(&[libc::EACCES, libc::EPERM]) {
        return Verdict::No;
    }
    let errno = text::errno(case.errno().unwrap_or(libc::EACCES));
    let place = case.place();
    let name = &case.owner.name;
    let user = case.process(case.owner.pid).map_or_else(String::new, |p| format!(" (uid {})", p.uid));
    let Some(path) = case.path() else {
        return Finding::new(format!("{name}{user} may not connect to {place}: {errno}"))
            .fix("SELinux (httpd_can_network_connect), AppArmor, a cgroup or LSM policy forbids it: look at the audit log")
            .fixes(case.target().map(|t| format!("or a route of type prohibit: `ip route get {}`", t.ip())))
            .yes();
    };
    let detail = match (&path.blocked_at, path.exists) {
        (Some(dir), _) => format!(": it may not enter {}", text::clipped(dir, 80)),
        (None, true) => format!(": mode {:04o}, owner {}:{}", path.mode & 0o7777, path.uid, path.gid),
        (None, false) => String::new(),
    };
    Finding::new(format!("{name}{user} may not connect to {place}: {errno}{detail}"))
        .fix(format!("let the user of {name} reach and write {place}: mode or group of the socket and its directories"))
        .fix("if the mode allows it: SELinux or AppArmor; look at the audit log")
        .yes()
}
