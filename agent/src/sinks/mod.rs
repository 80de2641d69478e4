//! Where incidents go. Sinks present, and never judge: what they show was decided before it came here.

pub mod json;
pub mod plain;
pub mod summary;

pub use summary::Summary;
