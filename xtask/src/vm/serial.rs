//! The guest's second serial line: the command's output between two marked lines, the last with its exit status.
use std::time::{SystemTime, UNIX_EPOCH};

/// A word that a command cannot print by chance.
#[derive(Debug, Clone)]
pub struct Marker(String);

impl Marker {
    pub fn new() -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        Self(format!("@@trace502-{time:x}-{:x}@@", std::process::id()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One step of reading the line.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The guest is up and starts the command.
    Begin,
    Output(String),
    /// The command ended; an output without a last newline comes along.
    End {
        rest: String,
        status: i32,
    },
}

/// Tells the command's output from the marked lines.
pub fn read(line: &[u8], marker: &Marker) -> Step {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let Some((before, after)) = text.rsplit_once(marker.as_str()) else { return Step::Output(text.into()) };
    if after == " begin" {
        return Step::Begin;
    }
    match after.strip_prefix(" end ").and_then(|status| status.parse().ok()) {
        Some(status) => Step::End { rest: before.into(), status },
        None => Step::Output(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_marked_lines_are_told_apart() {
        let marker = Marker("@@m@@".into());
        let step = |line: &str| read(line.as_bytes(), &marker);
        assert_eq!(step("@@m@@ begin\n"), Step::Begin);
        assert_eq!(step("hello\r\n"), Step::Output("hello".into()));
        assert_eq!(step("@@m@@ end 0\n"), Step::End { rest: String::new(), status: 0 });
        assert_eq!(step("no newline@@m@@ end 137\n"), Step::End { rest: "no newline".into(), status: 137 });
        assert_eq!(step("@@m@@ end soon\n"), Step::Output("@@m@@ end soon".into()));
        assert_eq!(step("@@other@@ end 0\n"), Step::Output("@@other@@ end 0".into()));
        assert_eq!(read(b"\xff\n", &marker), Step::Output("\u{fffd}".into()));
    }
}
