//! One file a verb of the command line.

pub mod agent;
mod belt;
pub mod causes;
pub mod doctor;
mod doctor_tls;
pub mod history;
pub mod live;
mod past;
pub mod record;
pub mod report;
pub mod tuning;

use std::fmt::Display;
use std::io::{self, Write as _};

use crate::causes::CATALOGUE;
use crate::filter::Filter;
use crate::model::GROUP_PREFIX;
use crate::text;
use crate::watch::WordError;

/// What was typed makes no sense together: exit status 2, as for a flag that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A line on standard error. Nobody may listen there any more, which is no reason to break off.
pub fn tell(line: impl Display) {
    let _ = writeln!(io::stderr(), "trace502: {}", harmless(&line.to_string()));
}

/// Lines without anything that steers a terminal: names of processes and files are in them.
fn harmless(lines: &str) -> String {
    lines.lines().map(text::safe).collect::<Vec<_>>().join("\n")
}

/// An error with its reasons, each said once.
pub fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for reason in error.chain().map(ToString::to_string) {
        // Some messages already hold the one below them, or the one above.
        if told.ends_with(&reason) {
            continue;
        }
        if told.is_empty() || reason.starts_with(&told) {
            told = reason;
        } else {
            told = format!("{told}: {reason}");
        }
    }
    harmless(&told)
}

/// Whoever read our output has gone.
pub fn closed_early(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A cause that the catalogue does not have would match nothing, without a word.
fn known_causes(filter: &Filter) -> Result<(), Usage> {
    filter.unknown_cause(CATALOGUE.iter().map(|cause| cause.id)).map_or(Ok(()), |odd| Err(Usage(odd)))
}

/// Which cgroup a proxy was in is not kept.
fn no_cgroups(filter: &Filter) -> Result<(), Usage> {
    match filter.proxy.iter().any(|word| word.starts_with(GROUP_PREFIX)) {
        true => {
            Err(Usage("--proxy cgroup:PATH is for a running watch; the history knows names, units and pids".into()))
        }
        false => Ok(()),
    }
}

/// The exit status of a failure: 2 for what was typed or configured, 1 for what went wrong.
pub fn exit_status(error: &anyhow::Error) -> u8 {
    let typed = error.is::<Usage>() || error.is::<WordError>() || error.is::<crate::config::ConfigError>();
    if typed { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::recording::RecordingError;

    #[test]
    fn each_reason_is_said_once_and_harmless() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let file = RecordingError::File { path: "/a".into(), error: missing() };
        assert_eq!(told(&Err::<(), _>(file).context("/a").unwrap_err()), "/a: entity not found");
        assert_eq!(told(&RecordingError::Read(missing()).into()), "cannot read the recording: entity not found");
        assert_eq!(told(&anyhow::Error::from(missing()).context("no\n\x1b[31m")), "no\n\\x1b[31m: entity not found");
        assert_eq!(harmless("watching e\x1bvil (pid 3)\n  twice"), "watching e\\x1bvil (pid 3)\n  twice");
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(closed_early(&pipe().into()) && closed_early(&anyhow::Error::from(pipe()).context("cannot write")));
        assert!(!closed_early(&io::Error::from(io::ErrorKind::NotFound).into()));
    }
}
