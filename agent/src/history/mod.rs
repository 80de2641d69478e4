//! Every incident with its evidence, on disk: SQLite with a write-ahead log, so that a kill loses nothing that was
//! written and a reader never waits for the agent.
//!
//! [`claim`] keeps a second writer away, [`store`] is the file, [`writer`] the thread that keeps it through bad times, [`reader`] what `trace502 history`
//! sees of it, [`summary`] what that says together. Nothing here judges a cause.

mod claim;
mod reader;
mod store;
mod summary;
#[cfg(test)]
mod tests;
mod writer;

pub use claim::Claim;
pub use reader::{Reader, Span};
pub use store::{HistoryError, Retention};
pub use summary::{Summary, Table, ranked};
pub use writer::{Sink, Writer};
