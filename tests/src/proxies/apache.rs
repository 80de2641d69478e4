//! Apache of Debian with the event MPM and mod_proxy_http.

use std::fmt::Write;

use anyhow::Result;

use super::{Site, program};
use crate::guard::Launch;
use crate::route::{Route, Speaks, Special, unix_path};

pub fn launch(site: &Site) -> Result<Launch> {
    let path = site.write("apache.conf", &config(site))?;
    Ok(program("apache2")?.args(["-f", &path, "-D", "FOREGROUND"]))
}

const MODULES: [&str; 13] = [
    "mpm_event",
    "authz_core",
    "proxy",
    "proxy_http",
    "proxy_http2",
    "proxy_balancer",
    "lbmethod_byrequests",
    "slotmem_shm",
    "alias",
    "ssl",
    "socache_shmcb",
    "http2",
    "rewrite",
];

fn config(site: &Site) -> String {
    let (dir, port, secure, plain_h2) = (site.dir.display(), site.port, site.secure, site.plain_h2);
    let (cert, key) = (site.world.certs.cert("good"), site.world.certs.key("good"));
    let mut text = String::new();
    for module in MODULES {
        let _ = writeln!(text, "LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so");
    }
    let ca = site.world.certs.cert("ca");
    let children = site.workers;
    let _ = write!(
        text,
        "ServerName lab.test\nServerRoot {dir}\nDefaultRuntimeDir {dir}\nPidFile {dir}/apache.pid\nUser www-data\nGroup www-data\n\
         Listen 127.0.0.1:{port}\nListen 127.0.0.1:{secure}\nListen 127.0.0.1:{plain_h2}\nListenBacklog 4096\nErrorLog {dir}/error.log\nLogLevel info\n\
         LogFormat \"%r %>s\" lab\nCustomLog {dir}/access.log lab\n\
         StartServers {children}\nServerLimit {children}\nThreadsPerChild 128\nThreadLimit 128\nMaxRequestWorkers {}\n\
         MinSpareThreads 1\nMaxSpareThreads {}\n\
         KeepAlive On\nKeepAliveTimeout 60\nMaxKeepAliveRequests 0\nTimeout 20\nProxyTimeout 1\n\
         SSLProxyEngine on\nSSLProxyCACertificateFile {ca}\n",
        128 * children,
        128 * children
    );
    for route in site.routes {
        mount(&mut text, route);
    }
    let _ = writeln!(
        text,
        "<VirtualHost 127.0.0.1:{secure}>\nProtocols h2 http/1.1\nSSLEngine on\nSSLCertificateFile {cert}\n\
         SSLCertificateKeyFile {key}\nSSLProxyEngine on\nSSLProxyCACertificateFile {ca}\n</VirtualHost>\n\
         <VirtualHost 127.0.0.1:{plain_h2}>\nProtocols h2c http/1.1\nSSLProxyEngine on\n\
         SSLProxyCACertificateFile {ca}\n</VirtualHost>"
    );
    text
}

fn mount(out: &mut String, route: &Route) {
    let name = &route.name;
    if route.special == Special::Own502 {
        let _ = writeln!(out, "Redirect 502 /{name}/");
        return;
    }
    let scheme = match route.speaks {
        Speaks::Tls { .. } => "https",
        Speaks::H2 => "h2c",
        Speaks::SecureH2 => "h2",
        Speaks::Http | Speaks::FastCgi => "http",
    };
    // retry=0: a server that failed is asked again at once, so that every request makes its own attempt.
    let mut options = format!("connectiontimeout=1 timeout={} retry=0", if route.patient { 20 } else { 1 });
    if !route.keepalive {
        options.push_str(" disablereuse=on");
    }
    if route.special == Special::OneConnection {
        options.push_str(" max=1 acquire=500");
    }
    let verify = match route.speaks {
        Speaks::Tls { verify } => Some(verify),
        Speaks::SecureH2 => Some(false),
        _ => None,
    };
    if let Some(verify) = verify {
        let level = if verify { "require" } else { "none" };
        let check = if verify { "on" } else { "off" };
        let _ = writeln!(
            out,
            "<Proxy {scheme}://{0}/>\nSSLProxyVerify {level}\nSSLProxyCheckPeerName {check}\nSSLProxyCheckPeerExpire {check}\n</Proxy>",
            route.server()
        );
    }
    let url = |server: &str| match unix_path(server) {
        Some(path) => format!("unix:{path}|{scheme}://{}/", route.id().replace('_', "")),
        None => format!("{scheme}://{server}/"),
    };
    if route.servers.len() > 1 {
        let _ = writeln!(out, "<Proxy balancer://b_{}>", route.id());
        for server in &route.servers {
            let down = if route.special == Special::MarkedDown { " status=+D" } else { "" };
            let _ = writeln!(out, "BalancerMember {} {options}{down}", url(server).trim_end_matches('/'));
        }
        let _ = writeln!(out, "</Proxy>\nProxyPass /{name}/ balancer://b_{}/{name}/", route.id());
    } else {
        let _ = writeln!(out, "ProxyPass /{name}/ {}{name}/ {options}", url(route.server()));
    }
}
