//! Recordings: everything the engine was told and everything it asked, in order, so that it says the same again.
//!
//! A file is a magic, the version of the format, the version of the kernel's records, a header, then framed
//! entries. Nothing of it is trusted when it is read: see [`reader`].

mod format;
mod host;
mod play;
mod reader;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::{Activity, DescriptorFacts, ListenerFacts, MemoryFacts, PathFacts, ProcessFacts};
use crate::logs::LogError;
use crate::model::Nanos;

pub use host::{Mismatch, RecordingHost, Replay};
pub use play::Play;
pub use reader::{Ending, Reader};
pub use writer::{Recorder, Summary, Tape};

/// What is known before the first event. Nothing that names the machine or its people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the program that recorded.
    pub version: String,
    /// Release of the kernel, as `uname -r` has it.
    pub kernel: String,
    pub started_wall_micros: i64,
    pub started: Nanos,
    /// What decoding needs to know of that kernel: names of reset and drop reasons.
    pub names: serde_json::Value,
    /// What the engine was told to do: proxies, filters that change the attribution.
    pub settings: serde_json::Value,
}

/// Counts by a word, such as the places where events were lost.
pub type Counts = BTreeMap<String, u64>;

/// What the word begins with where a program was passed over, before the name of its probe.
pub const SKIPPED: &str = "skipped_";

/// How many facts of the kernel side were lost, so that what was not seen proves nothing. Payload that could not be
/// read is none of them.
pub fn facts_lost(counts: &Counts) -> u64 {
    let facts = |place: &str| ["ring_", "table_", SKIPPED].iter().any(|word| place.starts_with(word));
    counts.iter().filter(|(place, _)| facts(place)).map(|(_, count)| count).sum()
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A record of the kernel side, exactly as it came.
    Event(Vec<u8>),
    /// How many more were lost since the last entry of this kind, and where.
    Lost(Counts),
    /// The engine was told the time.
    Tick(Nanos),
    /// A line of a proxy's log told of an error.
    Log { at: Nanos, error: Box<LogError> },
    /// The engine asked the host.
    Asked(Box<Exchange>),
    /// The last entry: the counters at the end.
    End(Counts),
    /// The run ended here: every open question was answered with what was there.
    Finish,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    pub question: Question,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    WallMicros(Nanos),
    Process(u32),
    /// Siblings of the process with this pid.
    Siblings(u32),
    Activity(u32),
    Memory(u32),
    Listeners(u32),
    NetnsOf(IpAddr, u32),
    Path(u32, String),
    Symbol(u64),
    Descriptors(u32),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    WallMicros(i64),
    Process(Option<ProcessFacts>),
    Siblings(Vec<ProcessFacts>),
    Activity(Option<Activity>),
    Memory(Option<MemoryFacts>),
    Listeners(Vec<ListenerFacts>),
    NetnsOf(Option<u32>),
    Path(PathFacts),
    Symbol(Option<String>),
    Descriptors(Option<DescriptorFacts>),
}

#[derive(Debug, Error)]
pub enum RecordingError {
    #[error("{path}: {error}")]
    File { path: String, error: io::Error },
    #[error("this is no recording of trace502")]
    Foreign,
    #[error("this recording has format {found}, and this program reads up to {known}: replay it with a newer trace502")]
    Newer { found: u16, known: u16 },
    #[error(
        "this recording holds kernel records of version {found}, and this program reads version {known}: \
         replay it with the trace502 that recorded it"
    )]
    OtherRecords { found: u32, known: u32 },
    #[error("this recording is damaged at byte {at}: {why}")]
    Damaged { at: u64, why: &'static str },
    #[error("cannot read the recording: {0}")]
    Read(#[source] io::Error),
    #[error("cannot write the recording: {0}")]
    Write(#[source] io::Error),
}

#[cfg(test)]
mod tests;
