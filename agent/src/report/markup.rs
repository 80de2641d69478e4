//! Text into HTML: the only door through which anything reaches the page.

use std::fmt::{self, Write as _};

use crate::text::safe;
use crate::when::{Micros, rfc3339};

/// Made harmless, then escaped; fits between tags and inside quotes.
pub fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in safe(raw).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Appends; writing to a `String` cannot fail.
pub fn put(out: &mut String, args: fmt::Arguments<'_>) {
    let _ = out.write_fmt(args);
}

/// `2026-11-21 03:00:15`, UTC.
pub fn stamp(at: Micros) -> String {
    rfc3339(at).replace('T', " ").chars().take(19).collect()
}

/// `03:00:15`
pub fn clock(at: Micros) -> String {
    stamp(at).split_off(11)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_place() {
        let hostile = "</style><script>x</script>\"' onload='y' &lt; \u{202e}\u{1b}[31m\r\n";
        let out = text(hostile);
        assert!(!out.contains(['<', '>', '"', '\'', '\u{202e}', '\u{1b}', '\n', '\r']), "{out}");
        assert!(out.contains("&amp;lt;"), "what looked escaped stays what it was");
        assert_eq!(text("東京 <ok>"), "東京 &lt;ok&gt;");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(stamp(1_795_230_000_123_456), "2026-11-21 03:00:00");
        assert_eq!(clock(1_795_230_000_123_456), "03:00:00");
    }
}
