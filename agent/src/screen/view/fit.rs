//! Texts cut to columns of a terminal: wide characters take two, marks none.

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

pub fn width(text: &str) -> usize {
    text.width()
}

/// At most this many columns; what was cut shows.
pub fn cut(text: &str, columns: usize, unicode: bool) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let sign = if unicode { "…" } else { "~" };
    let mut out = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        used += grapheme.width();
        if used >= columns {
            break;
        }
        out.push_str(grapheme);
    }
    if columns > 0 {
        out.push_str(sign);
    }
    out
}

/// Exactly this many columns, text on the left.
pub fn left(text: &str, columns: usize, unicode: bool) -> String {
    let mut out = cut(text, columns, unicode);
    out.extend(std::iter::repeat_n(' ', columns.saturating_sub(out.width())));
    out
}

/// Exactly this many columns, text on the right.
pub fn right(text: &str, columns: usize, unicode: bool) -> String {
    let out = cut(text, columns, unicode);
    format!("{}{out}", " ".repeat(columns.saturating_sub(out.width())))
}

/// Lines of at most this many columns, broken at spaces where there are some.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        if used > 0 && used + word.trim_end().width() > columns {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
            used = 0;
        }
        for grapheme in word.graphemes(true) {
            let wide = grapheme.width();
            if used + wide > columns {
                if grapheme == " " {
                    continue;
                }
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(grapheme);
            used += wide;
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(cut("東京の店", 5, true), "東京…");
        assert_eq!(cut("東京の店", 8, true), "東京の店");
        assert_eq!(width(&left("東京の店", 6, true)), 6);
        assert_eq!(right("ab", 4, true), "  ab");
        assert_eq!(cut("abc", 0, true), "");
        assert_eq!(cut("abcdef", 3, false), "ab~");
    }

    #[test]
    fn long_text_wraps_at_spaces_or_anywhere() {
        assert_eq!(wrap("nothing listens on 127.0.0.1:9000", 14), ["nothing", "listens on", "127.0.0.1:9000"]);
        assert_eq!(wrap("aaaaaaaaaa", 4), ["aaaa", "aaaa", "aa"]);
        assert!(wrap("東京の店 東京", 5).iter().all(|l| width(l) <= 5));
        assert_eq!(wrap("", 10), [""]);
    }
}
