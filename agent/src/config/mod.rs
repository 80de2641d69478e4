//! Settings of the agent: defaults, then the file, then flags; one table ([`options`]) names them all.
//!
//! Reading the file is the only I/O here. What a value means is in [`settings`].

mod flags;
pub mod options;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

pub use flags::Flags;
use options::{OPTIONS, Takes};
pub use settings::{Changes, Settings};

use crate::filter::nearest;

/// Read when `--config` names no other; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/trace502/agent.toml";

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// Settings and where each came from.
#[derive(Clone, Debug)]
pub struct Config {
    pub settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
}

/// The words given for each key, the strongest source last to speak.
struct Layers {
    words: BTreeMap<&'static str, (Vec<String>, Origin)>,
    problems: Vec<String>,
}

impl settings::Words for Layers {
    fn words(&self, key: &'static str) -> &[String] {
        self.words.get(key).map_or(&[], |(words, _)| words)
    }

    fn refuse(&mut self, key: &'static str, why: String) {
        let problem = match self.words.get(key).map(|(_, origin)| origin) {
            Some(Origin::Flag) => format!("--{key}: {why}"),
            Some(origin) => format!("{origin}: {key}: {why}"),
            None => format!("{key}: {why}"),
        };
        self.problems.push(problem);
    }
}

impl Config {
    /// `file`: what `--config` named; without it [`DEFAULT_FILE`] is read if it exists.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Config, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(Some((path, &text)), flags),
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Config::parse(None, flags),
            Err(error) => Err(ConfigError(vec![format!("{}: cannot be read: {error}", path.display())])),
        }
    }

    fn parse(file: Option<(&Path, &str)>, flags: &Flags) -> Result<Config, ConfigError> {
        let mut layers = Layers { words: BTreeMap::new(), problems: Vec::new() };
        for opt in OPTIONS.iter().filter(|o| !o.default.is_empty()) {
            let words = opt.default.iter().map(|w| (*w).to_owned()).collect();
            layers.words.insert(opt.key, (words, Origin::Default));
        }
        if let Some((path, text)) = file {
            layers.read_file(path, text);
        }
        for (key, words) in &flags.0 {
            layers.words.insert(key, (words.clone(), Origin::Flag));
        }
        let settings = Settings::read(&mut layers);
        if !layers.problems.is_empty() {
            return Err(ConfigError(layers.problems));
        }
        let origins = layers.words.into_iter().map(|(key, (_, origin))| (key, origin)).collect();
        Ok(Config { settings, origins })
    }

    /// The settings as a file that gives them again, with what each means and where it came from.
    pub fn print(&self) -> String {
        let mut out =
            String::from("# Settings of trace502 agent. [reload]: taken up on SIGHUP, the rest after a restart.\n");
        for opt in OPTIONS {
            let live = if opt.change == options::Change::Live { " [reload]" } else { "" };
            let words = self.settings.words(opt.key);
            let value = match opt.takes {
                Takes::Switch => words.first().map_or("false".to_owned(), Clone::clone),
                Takes::One(_) => words.first().map(|w| quote(w)).unwrap_or_default(),
                Takes::Many(_) => format!("[{}]", words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(", ")),
            };
            out.push_str(&format!("\n# {}.{live}\n", opt.help));
            if value.is_empty() {
                out.push_str(&format!("#{} = \"\"\n", opt.key));
            } else {
                let origin = self.origins.get(opt.key).unwrap_or(&Origin::Default);
                out.push_str(&format!("{} = {value}  # {origin}\n", opt.key));
            }
        }
        out
    }
}

fn quote(word: &str) -> String {
    toml::Value::from(word).to_string()
}

impl Layers {
    fn read_file(&mut self, path: &Path, text: &str) {
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                self.problems.push(format!("{}:{line}: {}", path.display(), error.message()));
                return;
            }
        };
        for (key, value) in table.get_ref() {
            let line = line_of(text, key.span().start);
            let place = format!("{}:{line}", path.display());
            let name = key.get_ref().as_ref();
            let Some(opt) = options::find(name) else {
                self.problems.push(format!("{place}: {}", unknown(name)));
                continue;
            };
            match words_of(value.get_ref(), opt.takes) {
                Some(words) => {
                    self.words.insert(opt.key, (words, Origin::File { path: path.to_owned(), line }));
                }
                None => {
                    let wanted = match opt.takes {
                        Takes::Switch => "true or false".to_owned(),
                        Takes::One(what) => format!("one value ({what}), as a string or a number"),
                        Takes::Many(what) => format!("a list of strings ({what})"),
                    };
                    self.problems.push(format!("{place}: {name}: takes {wanted}"));
                }
            }
        }
    }
}

fn unknown(name: &str) -> String {
    let dashed = name.replace('_', "-").to_lowercase();
    match nearest(&dashed, OPTIONS.iter().map(|o| o.key)) {
        Some(near) => format!("no such key `{}`; did you mean `{near}`?", name.escape_debug()),
        None => format!("no such key `{}`; `trace502 agent --print-config` lists them", name.escape_debug()),
    }
}

/// `None`: the value has the wrong shape for this option.
fn words_of(value: &DeValue<'_>, takes: Takes) -> Option<Vec<String>> {
    let word = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        _ => None,
    };
    match (takes, value) {
        (Takes::Switch, DeValue::Boolean(on)) => Some(vec![on.to_string()]),
        (Takes::Switch, _) => None,
        (Takes::Many(_), DeValue::Array(list)) => list.iter().map(|item| word(item.get_ref())).collect(),
        (_, value) => word(value).map(|w| vec![w]),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}

#[cfg(test)]
pub(crate) mod tests;
