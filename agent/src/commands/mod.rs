//! One file a verb of the command line.

pub mod agent;
pub mod causes;
pub mod doctor;
pub mod history;
pub mod live;
mod past;
pub mod record;
pub mod report;

/// What was typed makes no sense together: exit status 2, as for a flag that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The exit status of a failure: 2 for what was typed or configured, 1 for what went wrong.
pub fn exit_status(error: &anyhow::Error) -> u8 {
    let typed = error.is::<Usage>() || error.is::<crate::config::ConfigError>();
    if typed { 2 } else { 1 }
}
