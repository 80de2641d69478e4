//! Caddy: goroutines move between threads, so content decides which request an attempt served.

use super::{Birth, Closes, Protocol, Proxy, Setting};

pub static PROXY: Proxy = Proxy {
    name: "caddy",
    comms: &["caddy"],
    closes: Closes::BeforeWrite,
    birth: Birth::Hint,
    oldest_first: false,
    none_left: &[503],
    none_word: None,
    gives_up_last: true,
    own_500: |_, _| false,
    header_full: |_| false,
    resolves_ahead: false,
    whole_first: false,
    streams_move: false,
    limit_word: None,
    retries_later: false,
    pool: None,
    setting,
};

fn setting(setting: Setting, protocol: Protocol) -> Option<&'static str> {
    Some(match setting {
        Setting::Upstream if protocol == Protocol::FastCgi => "php_fastcgi",
        Setting::Upstream => "reverse_proxy",
        Setting::ConnectTimeout => "dial_timeout in transport http",
        Setting::HandshakeTimeout => "tls_timeout in transport http",
        Setting::ResponseTimeout => "response_header_timeout in transport http",
        Setting::SendTimeout => "write_timeout in transport http",
        Setting::IdleTimeout => "keepalive in transport http",
        Setting::Retry => "lb_try_duration and lb_retries",
        Setting::HeaderRoom => "max_response_header in transport http",
        Setting::UpstreamTls => "https:// in reverse_proxy, or tls in transport http",
        Setting::TlsVerify => "tls_trust_pool in transport http (tls_trusted_ca_certs before 2.8)",
        Setting::TlsName => "tls_server_name in transport http",
        Setting::ClientCertificate => "tls_client_auth in transport http",
        Setting::TlsVersion | Setting::TlsCiphers => return None,
        Setting::UpstreamHttp2 => "versions h2c 2 in transport http (added or removed)",
        Setting::FailureCount => "fail_duration, max_fails and health_uri",
        Setting::Resolver => "resolvers in transport http",
        Setting::Limit => "max_conns_per_host, and the descriptor limit of the process",
        Setting::SourceAddress => "local_address in transport http",
    })
}
