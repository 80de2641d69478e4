//! The full-screen view of `live`, and of the past.
//!
//! [`app`] knows, [`view`] draws, [`run`] moves bytes between them and the terminal. State does not know the view,
//! the view changes nothing, and neither judges an incident. Every text from outside passes `text::safe`.

pub mod app;
pub mod ledger;
pub mod plain;
pub mod query;
pub mod source;
pub mod terminal;
pub mod view;

mod run;

pub use run::{Options, run};
pub use source::{Feed, Live, Past, Snapshot, Source, channel};
pub use terminal::{ScreenError, usable};
