//! What is known of each reverse proxy: its names, the order in which it closes and writes, how its requests
//! are joined to its attempts, and what it calls its own settings.
//!
//! One file a proxy, one entry in [`PROXIES`]. Tables only: nothing here looks at an attempt.

mod apache;
mod caddy;
mod envoy;
mod haproxy;
mod lighttpd;
mod nginx;
mod other;
mod squid;
mod traefik;
mod varnish;

use crate::model::Group;

/// When a proxy closes a failed upstream connection, seen from its write to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closes {
    BeforeWrite,
    AfterWrite,
    /// Not measured.
    Either,
}

/// How far the binding made at the birth of an attempt may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// Measured exact: the last request read by the thread, or the oldest unserved one.
    Exact,
    /// Goroutines and hand-overs between threads: right four times in five. Content decides.
    Hint,
}

/// What the proxy speaks to its upstream; some proxies name their settings by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing was sent that would tell.
    Unknown,
    Http,
    FastCgi,
    Grpc,
}

/// A thing that an operator may want to change in the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Where the upstream is.
    Upstream,
    ConnectTimeout,
    /// How long a TLS handshake may take.
    HandshakeTimeout,
    ResponseTimeout,
    SendTimeout,
    /// How long an idle upstream connection is kept.
    IdleTimeout,
    /// Retrying a request that failed.
    Retry,
    /// Room for the header of an answer.
    HeaderRoom,
    UpstreamTls,
    TlsVerify,
    TlsName,
    /// Which versions of TLS it allows.
    TlsVersion,
    TlsCiphers,
    /// What it shows an upstream that wants a certificate of it.
    ClientCertificate,
    UpstreamHttp2,
    /// When an upstream counts as down.
    FailureCount,
    Resolver,
    Limit,
    SourceAddress,
}

impl Setting {
    pub const ALL: [Setting; 19] = [
        Setting::Upstream,
        Setting::ConnectTimeout,
        Setting::HandshakeTimeout,
        Setting::ResponseTimeout,
        Setting::SendTimeout,
        Setting::IdleTimeout,
        Setting::Retry,
        Setting::HeaderRoom,
        Setting::UpstreamTls,
        Setting::TlsVerify,
        Setting::TlsName,
        Setting::TlsVersion,
        Setting::TlsCiphers,
        Setting::ClientCertificate,
        Setting::UpstreamHttp2,
        Setting::FailureCount,
        Setting::Resolver,
        Setting::Limit,
        Setting::SourceAddress,
    ];
}

/// What the own answer of a proxy whose requests wait for any connection to their upstream says, unless somebody gave it
/// another text.
#[derive(Debug)]
pub struct Pool {
    /// An upstream was tried.
    pub tried: &'static str,
    /// No connection came about.
    pub unconnected: &'static [&'static str],
}

#[derive(Debug)]
pub struct Proxy {
    /// As the JSON record and the labels call it.
    pub name: &'static str,
    /// Names of its executable and of its threads; one that ends with `*` is a prefix.
    pub comms: &'static [&'static str],
    pub closes: Closes,
    pub birth: Birth,
    /// Its threads serve the oldest request first, not the one they read last.
    pub oldest_first: bool,
    /// What it answers when it has no upstream left to try.
    pub none_left: &'static [u16],
    /// What its own answer says then, unless somebody gave it another text.
    pub none_word: Option<&'static str>,
    /// It checks its upstreams, or counts failures of an only one, too. (nginx never gives up an only upstream.)
    pub gives_up_last: bool,
    /// Whether it makes a 500 of a failure of this group and cause. All others with that status are the application's.
    pub own_500: fn(Group, &str) -> bool,
    /// Whether its buffer for a header is full after this many bytes.
    pub header_full: fn(u64) -> bool,
    /// It resolves names in the background, not for each request.
    pub resolves_ahead: bool,
    /// It reads the body of a request to its end before it asks an upstream.
    pub whole_first: bool,
    /// Another thread than the one that reads a stream of HTTP/2 serves it.
    pub streams_move: bool,
    /// What its own answer says when a limit of its own kept it from trying.
    pub limit_word: Option<&'static str>,
    /// It waits before it tries a request again, and does other things meanwhile.
    pub retries_later: bool,
    /// A connection that it begins for one request may be taken by another, and one that fails takes others with it.
    pub pool: Option<Pool>,
    /// What it calls a setting.
    pub setting: fn(Setting, Protocol) -> Option<&'static str>,
}

pub static PROXIES: &[&Proxy] = &[
    &nginx::PROXY,
    &haproxy::PROXY,
    &envoy::PROXY,
    &apache::PROXY,
    &caddy::PROXY,
    &traefik::PROXY,
    &lighttpd::PROXY,
    &varnish::PROXY,
    &squid::PROXY,
];

/// A process that proxies and is none of the known ones.
pub static OTHER: &Proxy = &other::PROXY;

/// A process that does what a proxy does, and may be an application that needs others.
pub static FOUND: &Proxy = &other::FOUND;

/// The proxy that goes by this name of an executable or a thread.
pub fn by_name(name: &str) -> Option<&'static Proxy> {
    PROXIES.iter().copied().find(|proxy| {
        proxy.comms.iter().any(|comm| match comm.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *comm,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_proxy_is_found_by_its_names_and_no_two_share_one() {
        for proxy in PROXIES {
            for comm in proxy.comms {
                let name = comm.trim_end_matches('*');
                assert_eq!(by_name(name).map(|p| p.name), Some(proxy.name), "{comm}");
            }
        }
        assert_eq!(by_name("httpd").map(|p| p.name), Some("apache"));
        assert_eq!(by_name("wrk:worker_3").map(|p| p.name), Some("envoy"));
        assert!(by_name("python3").is_none());
    }

    #[test]
    fn every_proxy_names_the_settings_that_matter_most() {
        for proxy in PROXIES {
            for setting in [Setting::Upstream, Setting::ConnectTimeout, Setting::ResponseTimeout] {
                assert!((proxy.setting)(setting, Protocol::Http).is_some(), "{} {setting:?}", proxy.name);
            }
        }
        for setting in Setting::ALL {
            assert!((OTHER.setting)(setting, Protocol::Http).is_none());
        }
    }

    /// Each of these names stands for something else in that proxy.
    #[test]
    fn a_setting_that_does_not_help_is_not_named() {
        let named = |proxy, setting| (by_name(proxy).unwrap().setting)(setting, Protocol::Http);
        assert_eq!(named("traefik", Setting::SendTimeout), None, "its timeouts count from the end of the request");
        assert_eq!(named("varnish", Setting::SendTimeout), None, "its send_timeout is that of answers to clients");
        let limit = named("traefik", Setting::Limit).unwrap();
        assert!(!limit.contains("Idle"), "more idle connections take more descriptors: {limit}");
        let room = named("envoy", Setting::HeaderRoom).unwrap();
        assert!(room.starts_with("common_http_protocol_options."), "{room}");
    }

    #[test]
    fn nginx_names_its_settings_by_protocol() {
        let name = |protocol| (by_name("nginx").unwrap().setting)(Setting::ResponseTimeout, protocol);
        assert_eq!(name(Protocol::Http), Some("proxy_read_timeout"));
        assert_eq!(name(Protocol::FastCgi), Some("fastcgi_read_timeout"));
        assert_eq!(name(Protocol::Grpc), Some("grpc_read_timeout"));
    }
}
