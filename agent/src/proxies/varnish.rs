//! Varnish: one thread fetches, another writes to the client; its transaction numbers tell which belong together.

use super::{Birth, Closes, Protocol, Proxy, Setting};

pub static PROXY: Proxy = Proxy {
    name: "varnish",
    comms: &["varnishd", "varnish", "cache-main", "cache-worker"],
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

fn setting(setting: Setting, _: Protocol) -> Option<&'static str> {
    Some(match setting {
        Setting::Upstream => "its backend definition in VCL",
        Setting::ConnectTimeout => ".connect_timeout of its backend",
        Setting::ResponseTimeout => ".first_byte_timeout of its backend",
        Setting::IdleTimeout => "backend_idle_timeout",
        Setting::Retry => "return (retry) in vcl_backend_error",
        Setting::HeaderRoom => "http_resp_hdr_len and http_resp_size",
        Setting::FailureCount => ".probe of its backend",
        Setting::Limit => ".max_connections of its backend",
        Setting::Resolver => "a reload of the VCL: names are resolved when it is compiled",
        _ => return None,
    })
}
