//! OpenMetrics text as Prometheus text 0.0.4, for scrapers that know only that.
//!
//! They differ in four things: counters are typed under their sample's name, there are no units, no exemplars, and no
//! end mark; and `info` and `unknown` are not types there.

pub fn from_open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // HELP comes before TYPE, and needs the name that TYPE decides.
    let mut help: Option<(&str, &str)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                out.push_str(&format!("# HELP {name}{suffix} {words}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') && !line.is_empty() {
            out.push_str(&line[..exemplar_at(line)]);
            out.push('\n');
        }
    }
    out
}

/// Where the exemplar of a sample begins: at ` # ` outside of quotes.
fn exemplar_at(line: &str) -> usize {
    let bytes = line.as_bytes();
    let (mut quoted, mut i) = (false, 0);
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if quoted => i += 1,
            b'"' => quoted = !quoted,
            b' ' if !quoted && bytes[i..].starts_with(b" # ") => return i,
            _ => {}
        }
        i += 1;
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_old_format_does_not_know_goes() {
        let open = "# HELP a_seconds Help.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total{x=\"q \\\" # {\"} 3 # {incident=\"7\"} 1 1795230000.1\n\
                    # HELP b Build.\n# TYPE b info\nb_info{v=\"1\"} 1\n# EOF\n";
        let classic = "# HELP a_seconds_total Help.\n# TYPE a_seconds_total counter\n\
                       a_seconds_total{x=\"q \\\" # {\"} 3\n\
                       # HELP b_info Build.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n";
        assert_eq!(from_open_metrics(open), classic);
    }
}
