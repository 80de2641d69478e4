//! HAProxy of Debian, in master-worker mode as its service runs it.

use std::fmt::Write;

use anyhow::Result;

use super::{NOBODY, Site, program};
use crate::guard::Launch;
use crate::route::{Route, Speaks, Special, unix_path};
use crate::world::RESOLVER;

pub fn launch(site: &Site) -> Result<Launch> {
    let certs = &site.world.certs;
    let both = std::fs::read_to_string(certs.cert("good"))? + &std::fs::read_to_string(certs.key("good"))?;
    site.write("both.pem", &both)?;
    let path = site.write("haproxy.cfg", &config(site))?;
    Ok(program("haproxy")?.args(["-W", "-db", "-f", &path]))
}

fn config(site: &Site) -> String {
    let mut rules = String::new();
    let mut backends = String::new();
    for route in site.routes {
        let (id, name) = (route.id(), &route.name);
        if route.special == Special::Own502 {
            let _ = writeln!(rules, "  http-request return status 502 if {{ path_beg /{name}/ }}");
            continue;
        }
        if route.special == Special::Own503 {
            let _ = writeln!(rules, "  http-request return status 503 if {{ path_beg /{name}/ }}");
            continue;
        }
        let _ = writeln!(rules, "  use_backend b_{id} if {{ path_beg /{name}/ }}");
        backend(&mut backends, site, route);
    }
    let (port, secure, threads) = (site.port, site.secure, site.workers);
    let both = site.file("both.pem");
    format!(
        "global\n  uid {NOBODY}\n  gid {NOBODY}\n  maxconn 4096\n  nbthread {threads}\n  log stdout format raw local0 info\n\
         resolvers lab\n  nameserver one {RESOLVER}\n  resolve_retries 2\n  timeout resolve 1s\n  timeout retry 300ms\n\
         defaults\n  mode http\n  log global\n  option httplog\n  timeout connect 1s\n  timeout client 60s\n  timeout server 1s\n  \
         timeout queue 1s\n\
         frontend lab\n  bind 127.0.0.1:{port} backlog 4096\n  \
         bind 127.0.0.1:{secure} backlog 4096 ssl crt {both} alpn h2,http/1.1\n{rules}{backends}"
    )
}

fn backend(out: &mut String, site: &Site, route: &Route) {
    let _ = writeln!(out, "backend b_{}", route.id());
    if route.keepalive {
        let _ = writeln!(out, "  http-reuse always");
    }
    if route.patient {
        let _ = writeln!(out, "  timeout server 20s");
    }
    if route.retry {
        let _ = writeln!(out, "  option redispatch\n  retry-on all-retryable-errors");
    }
    let mut options = String::new();
    match route.speaks {
        Speaks::Tls { verify: true } => {
            let ca = site.world.certs.cert("ca");
            options.push_str(&format!(" ssl verify required ca-file {ca} sni str(secure.test) verifyhost secure.test"));
        }
        Speaks::Tls { verify: false } => options.push_str(" ssl verify none sni str(secure.test)"),
        Speaks::H2 => options.push_str(" proto h2"),
        Speaks::SecureH2 => options.push_str(" ssl verify none alpn h2"),
        Speaks::Http | Speaks::FastCgi => {}
    }
    if route.resolve {
        options.push_str(" resolvers lab init-addr none");
    }
    match route.special {
        Special::MarkedDown => options.push_str(" check inter 200ms fall 1 rise 1000"),
        Special::OneConnection => options.push_str(" maxconn 1"),
        Special::Redispatch => {
            let _ = writeln!(out, "  balance roundrobin\n  option redispatch\n  retries 1");
        }
        Special::NoServers => return,
        Special::None | Special::Own502 | Special::Own503 | Special::Limited | Special::NoResolver => {}
    }
    for (n, server) in route.servers.iter().enumerate() {
        let at = unix_path(server).map_or_else(|| server.clone(), |path| format!("unix@{path}"));
        let _ = writeln!(out, "  server s{n} {at}{options}");
    }
}
