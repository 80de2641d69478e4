//! Measure two: every request its own cause, with many at once.
