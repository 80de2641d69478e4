//! The part of `trace502 doctor` on running proxies: where what clients and upstreams say inside TLS would be read.

use std::collections::BTreeMap;

use crate::kernel::tls_library::Visible;
use crate::kernel::tls_visible::visible;
use crate::logs::{Source, SourceError};
use crate::proxies::{Birth, Closes, by_name};
use crate::watch::running;
use serde::Serialize;

/// Processes of one proxy of which the same is to be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProxyTls {
    pub name: String,
    pub pids: Vec<u32>,
    pub tls: Visible,
}

/// Every proxy that runs now.
pub fn look() -> Vec<ProxyTls> {
    together(running().into_iter().map(|(pid, name)| (pid, name, visible(pid))))
}

fn together(found: impl Iterator<Item = (u32, String, Visible)>) -> Vec<ProxyTls> {
    let mut rows: BTreeMap<(String, String), ProxyTls> = BTreeMap::new();
    for (pid, name, tls) in found {
        let row = rows.entry((name.clone(), says(&name, &tls)));
        row.or_insert_with(|| ProxyTls { name, pids: Vec::new(), tls }).pids.push(pid);
    }
    rows.into_values().collect()
}

impl ProxyTls {
    /// In one sentence.
    pub fn says(&self) -> String {
        says(&self.name, &self.tls)
    }

    /// How many processes, or which one.
    pub fn who(&self) -> String {
        match self.pids[..] {
            [pid] => format!("pid {pid}"),
            _ => format!("{} processes", self.pids.len()),
        }
    }
}

fn says(name: &str, tls: &Visible) -> String {
    let why = match tls {
        Visible::Hooked(file) => return format!("read in {file}, unless --no-tls"),
        Visible::None => {
            "no TLS library is loaded whose functions could be found (one that is built in may have lost their names)"
        }
        Visible::Refused(why) => why,
    };
    format!("not read: {why}; {}; of upstreams that speak TLS only the handshake is seen", otherwise(name))
}

/// How errors of such clients are known if nothing inside TLS is.
fn otherwise(name: &str) -> &'static str {
    // Where a write follows the close of what failed, on the same thread.
    let inferred = by_name(name).is_some_and(|it| it.birth != Birth::Hint && it.closes == Closes::BeforeWrite);
    // The name of a proxy is that of its log's format.
    let logged = !matches!(name.parse::<Source>(), Err(SourceError::Format(_)));
    match (logged, inferred) {
        (true, true) => "errors of such clients come from its log (--log), or are inferred",
        (true, false) => "errors of such clients come from its log alone (--log)",
        (false, true) => "errors of such clients are inferred, where every attempt failed",
        (false, false) => "errors of such clients are not seen",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_proxy_has_its_other_ways() {
        assert!(otherwise("nginx").ends_with("or are inferred"));
        assert!(otherwise("haproxy").ends_with("log alone (--log)"));
        assert!(otherwise("traefik").ends_with("not seen"));
    }

    #[test]
    fn workers_of_one_proxy_are_one_row() {
        let library = || Visible::Hooked("/usr/lib/libssl.so.3".into());
        let found = [
            (7, "nginx".into(), library()),
            (8, "nginx".into(), library()),
            (9, "envoy".into(), Visible::None),
            (10, "caddy".into(), Visible::Refused("it was built by a Go before 1.18".into())),
        ];
        let rows = together(found.into_iter());
        let told: Vec<String> =
            rows.iter().map(|row| format!("{} ({}): {}", row.name, row.who(), row.says())).collect();
        assert_eq!(
            told,
            [
                "caddy (pid 10): not read: it was built by a Go before 1.18; errors of such clients come from its log \
                 alone (--log); of upstreams that speak TLS only the handshake is seen",
                "envoy (pid 9): not read: no TLS library is loaded whose functions could be found (one that is built in may \
                 have lost their names); errors of such clients are inferred, where every attempt failed; of upstreams \
                 that speak TLS only the handshake is seen",
                "nginx (2 processes): read in /usr/lib/libssl.so.3, unless --no-tls",
            ]
        );
    }
}
