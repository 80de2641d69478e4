//! Apache httpd: one thread does a request from end to end, and closes before it writes.

use super::{Birth, Closes, Protocol, Proxy, Setting};

pub static PROXY: Proxy = Proxy {
    name: "apache",
    comms: &["apache2", "httpd"],
    closes: Closes::BeforeWrite,
    birth: Birth::Exact,
    oldest_first: false,
    none_left: &[503],
    none_word: None,
    gives_up_last: true,
    own_500: |_, cause| matches!(cause, "tls_handshake_failed" | "tls_mismatch" | "dns_failure"),
    header_full: |_| false,
    resolves_ahead: false,
    whole_first: false,
    streams_move: true,
    limit_word: None,
    retries_later: false,
    pool: None,
    setting,
};

fn setting(setting: Setting, _: Protocol) -> Option<&'static str> {
    Some(match setting {
        Setting::Upstream => "ProxyPass or its BalancerMember",
        Setting::ConnectTimeout => "connectiontimeout= of ProxyPass",
        Setting::ResponseTimeout | Setting::SendTimeout => "ProxyTimeout, or timeout= of ProxyPass",
        Setting::IdleTimeout => "ttl= of ProxyPass, or disablereuse=on",
        Setting::Retry => "a balancer with a second BalancerMember",
        Setting::HeaderRoom => "responsefieldsize= of ProxyPass",
        Setting::UpstreamTls => "https:// instead of http:// in ProxyPass (or the reverse)",
        Setting::TlsVerify => "SSLProxyCACertificateFile and SSLProxyVerify",
        Setting::TlsName => "SSLProxyCheckPeerName and ProxyPreserveHost",
        Setting::TlsVersion => "SSLProxyProtocol",
        Setting::TlsCiphers => "SSLProxyCipherSuite",
        Setting::ClientCertificate => "SSLProxyMachineCertificateFile",
        Setting::UpstreamHttp2 => "h2:// or h2c:// instead of http:// in ProxyPass (or the reverse; mod_proxy_http2)",
        Setting::FailureCount => "retry= of its BalancerMember lines",
        Setting::Resolver => "the host's resolver (/etc/resolv.conf)",
        Setting::Limit => "MaxRequestWorkers and the descriptor limit of the process",
        Setting::HandshakeTimeout => return None,
        Setting::SourceAddress => "ProxySourceAddress, or enablereuse=on",
    })
}
