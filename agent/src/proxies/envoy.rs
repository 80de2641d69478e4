//! Envoy: binds at birth on its worker; closes first and writes on a later pass of its loop.

use super::{Birth, Closes, Pool, Protocol, Proxy, Setting};

pub static PROXY: Proxy = Proxy {
    name: "envoy",
    comms: &["envoy", "wrk:worker_*"],
    closes: Closes::BeforeWrite,
    birth: Birth::Exact,
    oldest_first: false,
    none_left: &[503],
    none_word: Some("no healthy upstream"),
    gives_up_last: true,
    own_500: |_, _| false,
    header_full: |_| false,
    resolves_ahead: true,
    whole_first: false,
    streams_move: false,
    limit_word: Some("reset reason: overflow"),
    retries_later: false,
    pool: Some(Pool {
        tried: "upstream connect error or disconnect/reset before headers",
        unconnected: &["connection failure", "connection timeout"],
    }),
    setting,
};

fn setting(setting: Setting, _: Protocol) -> Option<&'static str> {
    Some(match setting {
        Setting::Upstream => "the cluster's load_assignment",
        Setting::ConnectTimeout | Setting::HandshakeTimeout => "the cluster's connect_timeout",
        Setting::ResponseTimeout => "the route's timeout and retry_policy.per_try_timeout",
        Setting::SendTimeout => "the route's timeout",
        Setting::IdleTimeout => "common_http_protocol_options.idle_timeout of the cluster",
        Setting::Retry => "retry_policy.retry_on: reset-before-request,connect-failure",
        Setting::HeaderRoom => "common_http_protocol_options.max_response_headers_kb of the cluster",
        Setting::UpstreamTls => "the cluster's transport_socket (added or removed)",
        Setting::TlsVerify => "validation_context.trusted_ca of the cluster's transport_socket",
        Setting::TlsName => "sni and match_typed_subject_alt_names of the cluster's transport_socket",
        Setting::TlsVersion => "tls_params (its minimum and maximum version) of the cluster's transport_socket",
        Setting::TlsCiphers => "tls_params.cipher_suites of the cluster's transport_socket",
        Setting::ClientCertificate => "tls_certificates of the cluster's transport_socket",
        Setting::UpstreamHttp2 => "explicit_http_config.http2_protocol_options of the cluster (added or removed)",
        Setting::FailureCount => "the cluster's health_checks and outlier_detection",
        Setting::Resolver => "the cluster's typed_dns_resolver_config",
        Setting::Limit => "the cluster's circuit_breakers and the descriptor limit of the process",
        Setting::SourceAddress => "the cluster's upstream_bind_config",
    })
}
