//! One file a verb of the command line.

pub mod causes;
pub mod doctor;
pub mod live;
pub mod record;
