//! nginx and its forks: one thread a worker, closes before it writes, binds the request it read last.

use super::{Birth, Closes, Protocol, Proxy, Setting};

pub static PROXY: Proxy = Proxy {
    name: "nginx",
    comms: &["nginx", "openresty", "angie", "freenginx", "tengine", "nginx-debug"],
    closes: Closes::BeforeWrite,
    birth: Birth::Exact,
    oldest_first: false,
    none_left: &[502],
    none_word: None,
    gives_up_last: false,
    own_500: |_, _| false,
    header_full: |bytes| bytes.is_multiple_of(1024),
    resolves_ahead: false,
    whole_first: true,
    streams_move: false,
    limit_word: None,
    retries_later: false,
    pool: None,
    setting,
};

fn setting(setting: Setting, protocol: Protocol) -> Option<&'static str> {
    Some(match (setting, protocol) {
        (Setting::Upstream, Protocol::FastCgi) => "fastcgi_pass or the server lines of its upstream block",
        (Setting::Upstream, Protocol::Unknown) => {
            "proxy_pass, grpc_pass, fastcgi_pass or the server lines of its upstream block"
        }
        (Setting::Upstream, Protocol::Grpc) => "grpc_pass or the server lines of its upstream block",
        (Setting::Upstream, _) => "proxy_pass or the server lines of its upstream block",
        (Setting::ConnectTimeout, Protocol::FastCgi) => "fastcgi_connect_timeout",
        (Setting::ConnectTimeout, Protocol::Unknown) => "proxy_connect_timeout (fastcgi_connect_timeout)",
        (Setting::ConnectTimeout | Setting::HandshakeTimeout, Protocol::Grpc) => "grpc_connect_timeout",
        (Setting::ConnectTimeout | Setting::HandshakeTimeout, _) => "proxy_connect_timeout",
        (Setting::ResponseTimeout, Protocol::FastCgi) => "fastcgi_read_timeout",
        (Setting::ResponseTimeout, Protocol::Grpc) => "grpc_read_timeout",
        (Setting::ResponseTimeout, _) => "proxy_read_timeout",
        (Setting::SendTimeout, Protocol::FastCgi) => "fastcgi_send_timeout",
        (Setting::SendTimeout, Protocol::Grpc) => "grpc_send_timeout",
        (Setting::SendTimeout, _) => "proxy_send_timeout",
        (Setting::IdleTimeout, _) => "keepalive_timeout in the upstream block",
        (Setting::Retry, Protocol::FastCgi) => "fastcgi_next_upstream",
        (Setting::Retry, Protocol::Grpc) => "grpc_next_upstream",
        (Setting::Retry, _) => "proxy_next_upstream (with non_idempotent it repeats POSTs, too)",
        (Setting::HeaderRoom, Protocol::FastCgi) => "fastcgi_buffer_size",
        (Setting::HeaderRoom, Protocol::Grpc) => "grpc_buffer_size",
        (Setting::HeaderRoom, _) => "proxy_buffer_size",
        (Setting::UpstreamTls, Protocol::Grpc) => "grpc_pass grpcs:// instead of grpc:// (or the reverse)",
        (Setting::UpstreamTls, _) => "proxy_pass https:// instead of http:// (or the reverse)",
        (Setting::TlsVerify, Protocol::Grpc) => "grpc_ssl_trusted_certificate and grpc_ssl_verify",
        (Setting::TlsVerify, _) => "proxy_ssl_trusted_certificate and proxy_ssl_verify",
        (Setting::TlsName, Protocol::Grpc) => "grpc_ssl_name and grpc_ssl_server_name on",
        (Setting::TlsName, _) => "proxy_ssl_name and proxy_ssl_server_name on",
        (Setting::TlsVersion, Protocol::Grpc) => "grpc_ssl_protocols",
        (Setting::TlsVersion, _) => "proxy_ssl_protocols",
        (Setting::TlsCiphers, Protocol::Grpc) => "grpc_ssl_ciphers",
        (Setting::TlsCiphers, _) => "proxy_ssl_ciphers",
        (Setting::ClientCertificate, Protocol::Grpc) => "grpc_ssl_certificate and grpc_ssl_certificate_key",
        (Setting::ClientCertificate, _) => "proxy_ssl_certificate and proxy_ssl_certificate_key",
        (Setting::UpstreamHttp2, _) => "grpc_pass instead of proxy_pass (or the reverse)",
        (Setting::FailureCount, _) => "max_fails and fail_timeout of its server lines",
        (Setting::Resolver, _) => "resolver",
        (Setting::Limit, _) => "worker_rlimit_nofile and worker_connections",
        (Setting::SourceAddress, _) => "keepalive in the upstream block, or proxy_bind with more source addresses",
    })
}
