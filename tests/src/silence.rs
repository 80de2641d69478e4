//! Measure three: nothing wrong, nothing said.
