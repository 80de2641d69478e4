//! lighttpd: writes to the client first, closes the upstream after, and answers 500 for a broken upstream.

use super::{Birth, Closes, Protocol, Proxy, Setting};
use crate::model::Group;

pub static PROXY: Proxy = Proxy {
    name: "lighttpd",
    comms: &["lighttpd"],
    closes: Closes::AfterWrite,
    birth: Birth::Exact,
    oldest_first: false,
    none_left: &[503],
    none_word: None,
    gives_up_last: true,
    own_500: |group, cause| {
        matches!(group, Group::Response | Group::Process) || matches!(cause, "host_unreachable" | "accept_queue_full")
    },
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
        Setting::Upstream if protocol == Protocol::FastCgi => "fastcgi.server",
        Setting::Upstream => "proxy.server",
        Setting::ConnectTimeout => "connect-timeout of its host",
        Setting::ResponseTimeout => "read-timeout of its host",
        Setting::SendTimeout => "write-timeout of its host",
        Setting::FailureCount => "disable-time of its host",
        Setting::Limit => "server.max-fds and server.max-connections",
        Setting::Resolver => "the host's resolver (/etc/resolv.conf)",
        _ => return None,
    })
}
