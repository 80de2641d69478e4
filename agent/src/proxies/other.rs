//! A proxy that has no file of its own: nothing is assumed of it.

use super::{Birth, Closes, Protocol, Proxy, Setting};

pub static PROXY: Proxy = Proxy {
    name: "proxy",
    comms: &[],
    closes: Closes::Either,
    birth: Birth::Hint,
    oldest_first: false,
    none_left: &[502, 503, 504],
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

fn setting(_: Setting, _: Protocol) -> Option<&'static str> {
    None
}
