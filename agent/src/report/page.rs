//! The page from top to bottom.

use super::markup::{put, stamp, text};
use super::{EACH, Report, chart, tables};
use crate::digest::{CauseRow, MISSING, place, relative, sentence, span, timeline};
use crate::model::{Confidence, Incident};
use crate::screen::plain;

pub const STYLE: &str = include_str!("page.css");

/// Nothing may be loaded, run, sent or framed; the one style is allowed by its hash, so that no other gets in.
pub const POLICY: &str = "default-src 'none'; style-src 'sha256-3NH67xXcisz92fSeLDbmt/4VdfjlFZ2sw3XL0wh/18c='; \
                          base-uri 'none'; form-action 'none'";

pub fn page(report: &Report) -> String {
    let ranked = report.causes.ranked(report.to);
    let title = format!("Gateway errors, {} to {}", stamp(report.from), stamp(report.to));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n",
        text(&title),
        text(&title)
    );
    put(
        &mut out,
        format_args!(
            "<p class=\"faint\">All times UTC. Made {} by trace502 {}.</p>\n",
            stamp(report.made),
            env!("CARGO_PKG_VERSION")
        ),
    );
    for remark in &report.remarks {
        put(&mut out, format_args!("<p class=\"remark\">{}</p>\n", text(remark)));
    }
    if report.total == 0 {
        out.push_str("<p class=\"lead\">No gateway error was seen in this time.</p>\n</main>\n</body>\n</html>\n");
        return out;
    }
    lead(&mut out, report, &ranked);
    out.push_str("<h2>Time line</h2>\n<figure>");
    out.push_str(&chart::overall(report, &ranked));
    put(&mut out, format_args!("<figcaption>One bar is {}. ", span(report.series.width())));
    out.push_str("Colours as in the table of causes; grey is every other cause.</figcaption></figure>\n");
    out.push_str("<h2>Causes</h2>\n");
    out.push_str(&tables::causes(report, &ranked));
    out.push_str("<h2>Upstreams</h2>\n");
    out.push_str(&tables::tallies(&report.upstreams, "Upstream"));
    out.push_str("<h2>Proxies</h2>\n");
    out.push_str(&tables::tallies(&report.proxies, "Proxy"));
    incidents(&mut out, report);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// The story in a few lines, for those who read no further.
fn lead(out: &mut String, report: &Report, ranked: &[&CauseRow]) {
    let first = ranked.iter().map(|row| row.first).min().unwrap_or(report.from);
    let last = ranked.iter().map(|row| row.last).max().unwrap_or(report.to);
    let requests = if report.total == 1 { "1 request".to_owned() } else { format!("{} requests", report.total) };
    let percent = (report.explained * 1_000 / report.total) as f64 / 10.0;
    put(
        out,
        format_args!(
            "<p class=\"lead\"><strong>{requests} failed</strong> between {} and {} ({}). \
             The client got {}. {percent:.1} % are explained.</p>\n<ol class=\"story\">\n",
            stamp(first),
            stamp(last),
            span(last - first),
            tables::counts(&report.statuses)
        ),
    );
    for row in ranked.iter().take(5) {
        put(out, format_args!("<li><b>{}</b> {}</li>\n", row.count, text(&sentence(row))));
    }
    out.push_str("</ol>\n");
}

fn incidents(out: &mut String, report: &Report) {
    out.push_str("<h2>Incidents</h2>\n");
    if (report.told.len() as u64) < report.total {
        put(
            out,
            format_args!(
                "<p class=\"faint\">{} of {}: the first {EACH} of each cause and upstream. \
                 <code>trace502 history</code> has every one.</p>\n",
                report.told.len(),
                report.total
            ),
        );
    }
    let mut opened = std::collections::BTreeSet::new();
    for (_, incident) in &report.told {
        // The first of its kind is open, the others a click away; on paper all are open.
        let open = if opened.insert(crate::digest::CauseKey::of(incident)) { " open" } else { "" };
        one(out, incident, open);
    }
}

fn one(out: &mut String, incident: &Incident, open: &str) {
    let upstream = incident.upstream.as_ref();
    put(
        out,
        format_args!(
            "<details{open}><summary><span class=\"when\">{}</span> <b>{}</b> {} <code>{}</code></summary>\n\
             <p class=\"said\">{}</p>\n",
            text(&incident.time.replace('T', " ")),
            text(&incident.status_word()),
            text(&plain::request(&incident.request)),
            text(&incident.cause),
            text(&incident.summary)
        ),
    );
    if !incident.fix.is_empty() {
        out.push_str("<ul class=\"fixes\">");
        for fix in &incident.fix {
            put(out, format_args!("<li class=\"fix\">{}</li>", text(fix)));
        }
        out.push_str("</ul>\n");
    }
    out.push_str(&chart::incident(incident));
    evidence(out, incident);
    let confidence = match incident.confidence {
        Confidence::Certain => "certain: the proof was seen",
        Confidence::Likely => "likely: a part of the proof was not seen",
        Confidence::Unknown => "unknown: what was seen does not suffice",
    };
    let process = upstream.and_then(|u| u.process.as_ref()).map(place);
    let addr = upstream.map(|u| u.addr.clone());
    let facts = [
        ("Outcome", Some(plain::outcome(incident))),
        ("Cause", Some(format!("{}, {confidence}", incident.cause))),
        ("Proxy", Some(place(&incident.proxy))),
        ("Client", incident.client.clone()),
        ("Upstream", addr.map(|addr| process.map_or(addr.clone(), |process| format!("{addr}, {process}")))),
        ("Id", Some(incident.id.clone())),
    ];
    out.push_str("<dl>");
    for (name, value) in facts {
        let value = value.unwrap_or_else(|| "not known".into());
        put(out, format_args!("<dt>{name}</dt><dd>{}</dd>", text(&value)));
    }
    for (n, attempt) in incident.attempts.iter().enumerate() {
        let said = format!("{}: {}; {}", attempt.upstream, attempt.cause, plain::attempt(attempt));
        put(out, format_args!("<dt>Attempt {}</dt><dd>{}</dd>", n + 1, text(&said)));
    }
    out.push_str("</dl>\n</details>\n");
}

fn evidence(out: &mut String, incident: &Incident) {
    if incident.evidence.is_empty() {
        return;
    }
    let line = timeline(incident);
    out.push_str("<table class=\"evidence\"><tbody>\n");
    for (n, one) in incident.evidence.iter().enumerate() {
        let (mark, time) = match (one.kind == MISSING, line.marks.contains(&n)) {
            (true, _) => (String::new(), "not seen".to_owned()),
            (false, true) => ((n + 1).to_string(), relative(one.t_us)),
            (false, false) => (String::from("earlier"), relative(one.t_us)),
        };
        let kind = if one.kind == MISSING { "" } else { one.kind.as_str() };
        put(
            out,
            format_args!(
                "<tr><td class=\"n\">{mark}</td><td class=\"n\">{time}</td><td><code>{}</code></td><td>{}</td></tr>\n",
                text(kind),
                text(&one.text)
            ),
        );
    }
    out.push_str("</tbody></table>\n");
}
