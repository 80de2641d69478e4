//! nginx of Debian, also in front of PHP-FPM.

use std::fmt::Write;

use anyhow::Result;

use super::{Site, program};
use crate::guard::Launch;
use crate::pace;
use crate::route::{Route, Speaks, Special};
use crate::world::RESOLVER;

pub fn launch(site: &Site) -> Result<Launch> {
    let path = site.write("nginx.conf", &config(site))?;
    // Without this, nginx complains on stderr before it has read where its log is.
    let error_log = site.file("error.log");
    Ok(program("nginx")?.args(["-e", &error_log, "-c", &path, "-g", "daemon off;"]))
}

fn config(site: &Site) -> String {
    let mut upstreams = String::new();
    let mut locations = String::new();
    for route in site.routes {
        upstream(&mut upstreams, route);
        location(&mut locations, site, route);
    }
    let (dir, port, secure, workers) = (site.dir.display(), site.port, site.secure, site.workers);
    // Of PHP-FPM's nginx it is the port itself.
    let plain_h2 = match site.plain_h2 {
        same if same == port => String::new(),
        other => format!("listen 127.0.0.1:{other} http2 backlog=4096;\n"),
    };
    let wait = pace::seconds(1);
    let (cert, key) = (site.world.certs.cert("good"), site.world.certs.key("good"));
    format!(
        "worker_processes {workers};\nuser www-data;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log info;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;\n\
         uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         log_format lab '$request $status up=$upstream_addr us=$upstream_status';\n\
         access_log {dir}/access.log lab;\n\
         client_max_body_size 0; keepalive_requests 1000000; keepalive_timeout 60s;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_connect_timeout {wait}s; proxy_send_timeout {wait}s; proxy_read_timeout {wait}s;\n\
         grpc_connect_timeout {wait}s; grpc_send_timeout {wait}s; grpc_read_timeout {wait}s;\n\
         fastcgi_connect_timeout {wait}s; fastcgi_send_timeout {wait}s; fastcgi_read_timeout {wait}s;\n\
         {upstreams}\
         ssl_certificate {cert}; ssl_certificate_key {key};\n\
         server {{\nlisten 127.0.0.1:{port} backlog=4096;\nlisten 127.0.0.1:{secure} ssl http2 backlog=4096;\n{plain_h2}{locations}}}\n}}\n"
    )
}

fn upstream(out: &mut String, route: &Route) {
    if route.special == Special::Limited {
        let _ = writeln!(out, "limit_req_zone $binary_remote_addr zone=l_{}:1m rate=1r/m;", route.id());
    }
    if route.resolve || route.special == Special::Own502 {
        return;
    }
    let _ = writeln!(out, "upstream u_{} {{", route.id());
    for server in &route.servers {
        let more = if route.special == Special::MarkedDown { " max_fails=1 fail_timeout=60s" } else { "" };
        let _ = writeln!(out, "server {server}{more};");
    }
    if route.keepalive {
        let _ = writeln!(out, "keepalive 128; keepalive_timeout 60s; keepalive_requests 1000000;");
    }
    let _ = writeln!(out, "}}");
}

fn location(out: &mut String, site: &Site, route: &Route) {
    let name = &route.name;
    let to = format!("u_{}", route.id());
    let _ = writeln!(out, "location /{name}/ {{");
    if route.patient {
        let _ = writeln!(out, "proxy_read_timeout 20s; fastcgi_read_timeout 20s;");
    }
    if route.special == Special::Limited {
        let _ = writeln!(out, "limit_req zone=l_{};", route.id());
    }
    let _ = match route.speaks {
        _ if route.special == Special::NoResolver => {
            writeln!(out, "set $name {}; proxy_pass http://$name;", route.server())
        }
        _ if route.special == Special::Own502 => writeln!(out, "return 502;"),
        _ if route.resolve => {
            let server = route.server();
            let (host, port) = crate::route::host_port(server);
            writeln!(
                out,
                "resolver {RESOLVER} valid=1s ipv6=off; resolver_timeout 1s; set $name {host};\n\
                 proxy_pass http://$name:{port};"
            )
        }
        Speaks::Http => writeln!(out, "proxy_pass http://{to};"),
        Speaks::H2 => writeln!(out, "grpc_pass grpc://{to};"),
        Speaks::SecureH2 => writeln!(out, "grpc_pass grpcs://{to};"),
        Speaks::Tls { verify } => {
            let ca = site.world.certs.cert("ca");
            let verify = if verify { "on" } else { "off" };
            writeln!(
                out,
                "proxy_pass https://{to}; proxy_ssl_verify {verify}; proxy_ssl_trusted_certificate {ca};\n\
                 proxy_ssl_name secure.test; proxy_ssl_server_name on;"
            )
        }
        Speaks::FastCgi => {
            let script = site.world.dir().join("lab.php");
            writeln!(
                out,
                "include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME {};\nfastcgi_pass {to};",
                script.display()
            )
        }
    };
    let _ = writeln!(out, "}}");
}
