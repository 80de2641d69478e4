//! One file a verb of the command line.

pub mod agent;
pub mod doctor;
pub mod history;
