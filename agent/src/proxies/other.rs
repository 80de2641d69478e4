//! Proxies that have no file of their own: nothing is assumed of them.

use super::{Birth, Closes, Protocol, Proxy, Setting};

/// One that the user named.
pub static PROXY: Proxy = unknown(&[502, 503, 504], true);

/// One that was found by what it does. What it answers without an attempt is its own affair.
pub static FOUND: Proxy = unknown(&[], false);

const fn unknown(none_left: &'static [u16], gives_up_last: bool) -> Proxy {
    Proxy {
        name: "proxy",
        comms: &[],
        closes: Closes::Either,
        birth: Birth::Hint,
        oldest_first: false,
        none_left,
        none_word: None,
        gives_up_last,
        own_500: |_, _| false,
        header_full: |_| false,
        resolves_ahead: false,
        whole_first: false,
        streams_move: false,
        limit_word: None,
        retries_later: false,
        pool: None,
        setting,
    }
}

fn setting(_: Setting, _: Protocol) -> Option<&'static str> {
    None
}
