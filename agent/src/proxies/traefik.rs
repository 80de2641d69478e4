//! Traefik: like Caddy, with 500 for what it cannot parse.

use super::{Birth, Closes, Protocol, Proxy, Setting};
use crate::model::Group;

pub static PROXY: Proxy = Proxy {
    name: "traefik",
    comms: &["traefik"],
    closes: Closes::BeforeWrite,
    birth: Birth::Hint,
    oldest_first: false,
    none_left: &[503],
    none_word: None,
    gives_up_last: true,
    own_500: |group, _| matches!(group, Group::Response | Group::Process),
    header_full: |_| false,
    resolves_ahead: true,
    whole_first: false,
    streams_move: false,
    limit_word: None,
    retries_later: false,
    pool: None,
    setting,
};

fn setting(setting: Setting, _: Protocol) -> Option<&'static str> {
    Some(match setting {
        Setting::Upstream => "loadBalancer.servers of its service",
        Setting::ConnectTimeout => "forwardingTimeouts.dialTimeout of its serversTransport",
        Setting::ResponseTimeout => "forwardingTimeouts.responseHeaderTimeout of its serversTransport",
        Setting::IdleTimeout => "forwardingTimeouts.idleConnTimeout of its serversTransport",
        Setting::Retry => "the retry middleware",
        Setting::UpstreamTls => "https:// in loadBalancer.servers (or the reverse)",
        Setting::TlsVerify => "rootCAs of its serversTransport",
        Setting::TlsName => "serverName of its serversTransport",
        Setting::ClientCertificate => "certificates of its serversTransport",
        Setting::UpstreamHttp2 => "h2c:// in loadBalancer.servers, or disableHTTP2 of its serversTransport",
        Setting::FailureCount => "loadBalancer.healthCheck of its service",
        Setting::Resolver => "the host's resolver (/etc/resolv.conf)",
        Setting::Limit => "the descriptor limit of the process",
        // Its timeouts count from when the request was written.
        Setting::SendTimeout
        | Setting::HeaderRoom
        | Setting::SourceAddress
        | Setting::TlsVersion
        | Setting::TlsCiphers
        | Setting::HandshakeTimeout => return None,
    })
}
