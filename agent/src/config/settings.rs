//! What the options mean: words from file and flags become one typed value. No I/O.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use trace502_ebpf::GROUPS;

use super::options::{Change, OPTIONS};
use crate::kernel::CONNECTIONS;
use crate::logs::{SourceError, Word};
use crate::model::{GROUP_PREFIX, ProxyWord};
use crate::when;

/// Settings of the agent, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub listen: Vec<SocketAddr>,
    pub token_file: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub listen_without_token: bool,
    pub history: Option<PathBuf>,
    pub history_max_age: Duration,
    pub history_max_size: u64,
    pub proxy: Vec<String>,
    pub any: bool,
    pub log: Vec<Word>,
    pub head_bytes: u16,
    pub ring_size: u64,
    /// Nothing: as many as the host's memory allows.
    pub connections: Option<u32>,
    pub no_tls: bool,
    pub max_series: usize,
    pub series_idle: Duration,
    pub instance: Option<String>,
    pub keep_privileges: bool,
}

/// The words given for an option, and how its errors are to be told.
pub(super) trait Words {
    fn words(&self, key: &'static str) -> &[String];
    fn refuse(&mut self, key: &'static str, why: String);
}

impl Settings {
    /// Every option through its parser. What does not parse is refused by name; the caller must not use settings
    /// that had refusals.
    pub(super) fn read(from: &mut dyn Words) -> Settings {
        let settings = Settings {
            listen: many(from, "listen", |w| w.parse().map_err(|_| listen_help(w))),
            token_file: one(from, "token-file", absolute),
            tls_cert: one(from, "tls-cert", absolute),
            tls_key: one(from, "tls-key", absolute),
            listen_without_token: switch(from, "listen-without-token"),
            history: one(from, "history", absolute),
            history_max_age: needed(from, "history-max-age", when::parse_duration),
            history_max_size: needed(from, "history-max-size", |w| at_least(when::parse_size(w)?, 1 << 20, "1MiB")),
            proxy: many(from, "proxy", |word| ProxyWord::parse(word).map(|_| word.to_owned())),
            any: switch(from, "any"),
            log: words(from, "log", log),
            head_bytes: needed(from, "head-bytes", |w| within(w, 0, 256)) as u16,
            ring_size: needed(from, "ring-size", ring_size),
            connections: one(from, "connections", connections),
            no_tls: switch(from, "no-tls"),
            max_series: needed(from, "max-series", |w| within(w, 10, 1_000_000)) as usize,
            series_idle: needed(from, "series-idle", when::parse_duration),
            instance: one(from, "instance", instance_name),
            keep_privileges: switch(from, "keep-privileges"),
        };
        settings.check_together(from);
        settings
    }

    /// What no option can tell alone.
    fn check_together(&self, from: &mut dyn Words) {
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            let (has, lacks) = if self.tls_cert.is_some() { ("tls-cert", "tls-key") } else { ("tls-key", "tls-cert") };
            from.refuse(has, format!("it also needs {lacks}"));
        }
        let groups = self.proxy.iter().filter(|word| word.starts_with(GROUP_PREFIX)).count();
        if groups > GROUPS {
            from.refuse("proxy", format!("{groups} cgroups; at most {GROUPS} can be watched"));
        }
        let open = self.listen.iter().find(|addr| !addr.ip().is_loopback());
        if let Some(addr) = open
            && self.token_file.is_none()
            && !self.listen_without_token
        {
            let why = format!(
                "{addr} is not loopback, and whoever reaches it reads request paths and addresses: give a token-file \
                 (and tls-cert with tls-key), or say listen-without-token"
            );
            from.refuse("listen", why);
        }
    }

    /// The option's value as one would write it; what [`Settings::read`] reads back as the same.
    pub fn words(&self, key: &str) -> Vec<String> {
        let path = |p: &Option<PathBuf>| p.iter().map(|p| p.display().to_string()).collect();
        let flag = |on: bool| if on { vec!["true".to_owned()] } else { vec![] };
        let off = |list: Vec<String>| if list.is_empty() { vec!["off".to_owned()] } else { list };
        match key {
            "listen" => off(self.listen.iter().map(ToString::to_string).collect()),
            "token-file" => path(&self.token_file),
            "tls-cert" => path(&self.tls_cert),
            "tls-key" => path(&self.tls_key),
            "listen-without-token" => flag(self.listen_without_token),
            "history" => off(path(&self.history)),
            "history-max-age" => vec![when::show_duration(self.history_max_age)],
            "history-max-size" => vec![when::show_size(self.history_max_size)],
            "proxy" => self.proxy.clone(),
            "any" => flag(self.any),
            "log" => self.log.iter().map(ToString::to_string).collect(),
            "head-bytes" => vec![self.head_bytes.to_string()],
            "ring-size" => vec![when::show_size(self.ring_size)],
            "connections" => self.connections.iter().map(ToString::to_string).collect(),
            "no-tls" => flag(self.no_tls),
            "max-series" => vec![self.max_series.to_string()],
            "series-idle" => vec![when::show_duration(self.series_idle)],
            "instance" => self.instance.iter().cloned().collect(),
            "keep-privileges" => flag(self.keep_privileges),
            _ => vec![],
        }
    }

    /// What a reload to `new` would change.
    pub fn changes(&self, new: &Settings) -> Changes {
        let mut changes = Changes::default();
        for opt in OPTIONS.iter().filter(|o| self.words(o.key) != new.words(o.key)) {
            match opt.change {
                Change::Live => changes.live.push(opt.key),
                Change::Restart => changes.restart.push(opt.key),
            }
        }
        changes
    }

    /// These settings with what can change live taken from `new`.
    pub fn reloaded(&self, new: &Settings) -> Settings {
        Settings {
            token_file: new.token_file.clone(),
            tls_cert: new.tls_cert.clone(),
            tls_key: new.tls_key.clone(),
            history_max_age: new.history_max_age,
            history_max_size: new.history_max_size,
            proxy: new.proxy.clone(),
            max_series: new.max_series,
            series_idle: new.series_idle,
            ..self.clone()
        }
    }
}

/// Keys whose values differ, by what it takes to bring them about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub live: Vec<&'static str>,
    pub restart: Vec<&'static str>,
}

/// The last word counts: `None` if there is none, it is `off`, or it was refused.
fn one<T>(from: &mut dyn Words, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let word = from.words(key).last().filter(|w| *w != "off").cloned()?;
    parse(&word).map_err(|why| from.refuse(key, why)).ok()
}

/// An option that always has a value.
fn needed<T: Default>(from: &mut dyn Words, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> T {
    let word = from.words(key).last().cloned().unwrap_or_default();
    parse(&word).unwrap_or_else(|why| {
        from.refuse(key, why);
        T::default()
    })
}

fn many<T>(from: &mut dyn Words, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    if let [off] = from.words(key)
        && off == "off"
    {
        return vec![];
    }
    words(from, key, parse)
}

/// Every word of an option, `off` as well.
fn words<T>(from: &mut dyn Words, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let words = from.words(key).to_vec();
    let mut values = Vec::with_capacity(words.len());
    for word in &words {
        match parse(word) {
            Ok(value) => values.push(value),
            Err(why) => from.refuse(key, why),
        }
    }
    values
}

/// A service has no working directory of its own.
fn log(word: &str) -> Result<Word, String> {
    let word: Word = word.parse().map_err(|error: SourceError| crate::text::safe(&error.to_string()).into_owned())?;
    match &word {
        Word::Follow(source) if !source.path.is_absolute() => {
            Err(format!("`{}` is no absolute path", crate::text::safe(&source.path.display().to_string())))
        }
        _ => Ok(word),
    }
}

fn switch(from: &mut dyn Words, key: &'static str) -> bool {
    let word = from.words(key).last().cloned();
    match word.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            from.refuse(key, format!("`{}` is neither true nor false", other.escape_debug()));
            false
        }
    }
}

fn listen_help(word: &str) -> String {
    format!("`{}` is no address with a port; write 127.0.0.1:9502, [::]:9502 or off", word.escape_debug())
}

/// The agent changes to no directory, but a daemon's working directory is nobody's plan.
fn absolute(word: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(word);
    if path.is_absolute() && !word.contains('\0') {
        Ok(path)
    } else {
        Err(format!("`{}` is no absolute path", word.escape_debug()))
    }
}

fn within(word: &str, least: u64, most: u64) -> Result<u64, String> {
    match word.parse() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!("`{}` is no number from {least} to {most}", word.escape_debug())),
    }
}

fn at_least(bytes: u64, least: u64, shown: &str) -> Result<u64, String> {
    if bytes >= least { Ok(bytes) } else { Err(format!("less than {shown} is too little")) }
}

fn ring_size(word: &str) -> Result<u64, String> {
    let bytes = when::parse_size(word)?;
    // The kernel wants a power of two that is a multiple of the page, and takes it as 32 bits.
    if bytes.is_power_of_two() && (1 << 16..=1 << 30).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("`{}` is no power of two from 64KiB to 1GiB", word.escape_debug()))
    }
}

fn connections(word: &str) -> Result<u32, String> {
    let (least, most) = CONNECTIONS.into_inner();
    within(word, least.into(), most.into()).map(|number| number as u32)
}

fn instance_name(word: &str) -> Result<String, String> {
    let plain = (1..=32).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain {
        Ok(word.to_owned())
    } else {
        Err(format!("`{}`: letters, digits and dashes, at most 32", word.escape_debug()))
    }
}
