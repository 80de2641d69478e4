//! HAProxy: closes the upstream after it has written to the client, serves the oldest request first.

use super::{Birth, Closes, Protocol, Proxy, Setting};

pub static PROXY: Proxy = Proxy {
    name: "haproxy",
    comms: &["haproxy"],
    closes: Closes::AfterWrite,
    birth: Birth::Exact,
    oldest_first: true,
    none_left: &[503],
    none_word: Some("No server is available to handle this request"),
    gives_up_last: true,
    own_500: |_, _| false,
    // Its buffers are of 16 KiB unless told otherwise, less what it keeps for rewriting.
    header_full: |bytes| bytes.is_multiple_of(1024) || bytes % 16_384 >= 15_360,
    resolves_ahead: true,
    whole_first: false,
    streams_move: false,
    limit_word: None,
    retries_later: true,
    pool: None,
    setting,
};

fn setting(setting: Setting, _: Protocol) -> Option<&'static str> {
    Some(match setting {
        Setting::Upstream => "the server line of its backend",
        Setting::ConnectTimeout | Setting::HandshakeTimeout => "timeout connect",
        Setting::ResponseTimeout | Setting::SendTimeout => "timeout server",
        Setting::IdleTimeout => "pool-purge-delay, or http-reuse never",
        Setting::Retry => "retry-on conn-failure empty-response (it repeats POSTs, too), with option redispatch",
        Setting::HeaderRoom => "tune.bufsize (less tune.maxrewrite)",
        Setting::UpstreamTls => "ssl on its server line (added or removed)",
        Setting::TlsVerify => "verify and ca-file on its server line",
        Setting::TlsName => "sni and verifyhost on its server line",
        Setting::TlsVersion => "ssl-min-ver and ssl-max-ver on its server line",
        Setting::TlsCiphers => "ciphers and ciphersuites on its server line",
        Setting::ClientCertificate => "crt on its server line",
        Setting::UpstreamHttp2 => "proto h2 on its server line (alpn h2 inside TLS; added or removed)",
        Setting::FailureCount => "check, fall and rise on its server line",
        Setting::Resolver => "its resolvers section",
        Setting::Limit => "maxconn (of its server line, its frontend or global) or ulimit-n",
        Setting::SourceAddress => "source on its server line, or http-reuse",
    })
}
