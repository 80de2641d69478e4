//! What can be typed: verbs and their flags. Each verb's flags live with the verb.

use clap::{Parser, Subcommand};

use crate::commands::agent::Agent;
use crate::commands::causes::Causes;
use crate::commands::doctor::Doctor;
use crate::commands::history::History;
use crate::commands::live::Live;
use crate::commands::record::{Record, Replay};
use crate::commands::report::ReportArgs;

/// Tells the precise low-level cause of every HTTP 502, 503 and 504 of a reverse proxy.
#[derive(Parser, Debug)]
#[command(name = "trace502", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand, Debug)]
pub enum Verb {
    Live(Live),
    Agent(Agent),
    Record(Record),
    Replay(Replay),
    Doctor(Doctor),
    Causes(Causes),
    History(Box<History>),
    Report(ReportArgs),
}

impl Verb {
    /// Does it; the number is the exit status.
    pub fn run(self) -> anyhow::Result<u8> {
        match self {
            Verb::Live(live) => live.run(),
            Verb::Agent(agent) => agent.run(),
            Verb::Record(record) => record.run(),
            Verb::Replay(replay) => replay.run(),
            Verb::Doctor(doctor) => doctor.run(),
            Verb::History(history) => history.run(),
            Verb::Causes(causes) => causes.run(),
            Verb::Report(report) => report.run(),
        }
    }
}
