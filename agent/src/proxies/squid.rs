//! Squid as a reverse proxy. Its order was not measured.

use super::{Birth, Closes, Protocol, Proxy, Setting};

pub static PROXY: Proxy = Proxy {
    name: "squid",
    comms: &["squid", "squid3"],
    closes: Closes::Either,
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

fn setting(setting: Setting, _: Protocol) -> Option<&'static str> {
    Some(match setting {
        Setting::Upstream => "cache_peer",
        Setting::ConnectTimeout => "connect-timeout= of cache_peer",
        Setting::ResponseTimeout => "read_timeout",
        Setting::SendTimeout => "write_timeout",
        Setting::IdleTimeout => "server_idle_pconn_timeout",
        Setting::Retry => "connect_retries",
        Setting::HeaderRoom => "reply_header_max_size",
        Setting::UpstreamTls => "tls on cache_peer (added or removed)",
        Setting::TlsVerify => "tls-cafile= of cache_peer",
        Setting::TlsName => "tls-domain= of cache_peer",
        Setting::TlsVersion => "tls-min-version= of cache_peer",
        Setting::TlsCiphers => "sslcipher= of cache_peer",
        Setting::ClientCertificate => "sslcert= and sslkey= of cache_peer",
        Setting::FailureCount => "connect-fail-limit= of cache_peer",
        Setting::Resolver => "dns_nameservers",
        Setting::Limit => "max_filedescriptors",
        Setting::SourceAddress => "tcp_outgoing_address",
        Setting::UpstreamHttp2 | Setting::HandshakeTimeout => return None,
    })
}
