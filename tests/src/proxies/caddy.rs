//! Caddy of Debian.

use std::fmt::Write;

use anyhow::Result;

use super::{NOBODY, Site, program};
use crate::guard::Launch;
use crate::route::{Route, Speaks, Special, unix_path};

pub fn launch(site: &Site) -> Result<Launch> {
    let path = site.write("Caddyfile", &config(site))?;
    let home = site.file("home");
    std::fs::create_dir_all(&home)?;
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY))?;
    let mut launch = program("caddy")?.args(["run", "--config", &path, "--adapter", "caddyfile"]);
    launch.user = Some(NOBODY);
    Ok(launch.env("HOME", &home).env("XDG_DATA_HOME", &home).env("XDG_CONFIG_HOME", &home))
}

fn config(site: &Site) -> String {
    let (port, secure, plain_h2) = (site.port, site.secure, site.plain_h2);
    let (cert, key) = (site.world.certs.cert("good"), site.world.certs.key("good"));
    let mut text =
        format!("{{\nadmin off\nauto_https off\nservers 127.0.0.1:{plain_h2} {{\nprotocols h1 h2c\n}}\n}}\n");
    let tls = format!("tls {cert} {key}\n");
    for (scheme, port, more) in [("http", port, ""), ("http", plain_h2, ""), ("https", secure, &tls)] {
        let _ = writeln!(text, "{scheme}://:{port} {{\nbind 127.0.0.1\nlog\n{more}");
        for route in site.routes {
            handle(&mut text, site, route);
        }
        text.push_str("}\n");
    }
    text
}

fn handle(out: &mut String, site: &Site, route: &Route) {
    let _ = writeln!(out, "handle /{}/* {{", route.name);
    if route.special == Special::Own502 {
        let _ = writeln!(out, "respond 502\n}}");
        return;
    }
    let servers: Vec<String> = route.servers.iter().map(|server| dial(server)).collect();
    let _ = writeln!(out, "reverse_proxy {} {{", servers.join(" "));
    match route.special {
        Special::MarkedDown => {
            let _ = writeln!(out, "lb_policy first\nfail_duration 60s\nmax_fails 1");
        }
        // Caddy's only limit: a server that has that many requests is passed over.
        Special::OneConnection => {
            let _ = writeln!(out, "unhealthy_request_count 1");
        }
        Special::None | Special::Own502 | Special::Own503 | Special::Redispatch => {}
        Special::Limited | Special::NoResolver | Special::NoServers => {}
    }
    if route.retry {
        let _ = writeln!(out, "lb_policy round_robin\nlb_try_duration 2s\nfail_duration 1s");
    }
    let patience = if route.patient { 20 } else { 1 };
    let _ = writeln!(
        out,
        "transport http {{\ndial_timeout 1s\nresponse_header_timeout {patience}s\nwrite_timeout 1s\nread_timeout {patience}s"
    );
    if !route.keepalive {
        let _ = writeln!(out, "keepalive off");
    }
    match route.speaks {
        Speaks::Tls { verify: true } => {
            let ca = site.world.certs.cert("ca");
            let _ = writeln!(out, "tls\ntls_server_name secure.test\ntls_trusted_ca_certs {ca}\ntls_timeout 1s");
        }
        Speaks::Tls { verify: false } => {
            let _ = writeln!(out, "tls\ntls_insecure_skip_verify\ntls_timeout 1s");
        }
        Speaks::SecureH2 => {
            let _ = writeln!(out, "tls\ntls_insecure_skip_verify\ntls_timeout 1s\nversions 2");
        }
        Speaks::H2 => {
            let _ = writeln!(out, "versions h2c 2");
        }
        Speaks::Http | Speaks::FastCgi => {}
    }
    let _ = writeln!(out, "}}\n}}\n}}");
}

fn dial(server: &str) -> String {
    unix_path(server).map_or_else(|| server.to_owned(), |path| format!("unix/{path}"))
}
