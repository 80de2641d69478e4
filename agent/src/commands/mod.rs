//! One file a verb of the command line.

pub mod doctor;
pub mod report;
