//! What the agent says of itself: lines on standard error, with a priority where the journal reads them.

use std::io::Write;

use crate::text::safe;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// One line, made harmless. A standard error that nobody reads is no reason to fail.
pub fn say(priority: Priority, text: &str) {
    let mut line = String::new();
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        line.push_str(&format!("<{}>", priority as u8));
    }
    line.push_str("trace502: ");
    line.push_str(&safe(text));
    line.push('\n');
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

pub fn error(text: &str) {
    say(Priority::Error, text);
}

pub fn warn(text: &str) {
    say(Priority::Warning, text);
}

pub fn info(text: &str) {
    say(Priority::Info, text);
}
