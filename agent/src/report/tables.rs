//! The tables of the page: causes, upstreams and proxies.

use std::collections::BTreeMap;

use super::chart::COLOURS;
use super::markup::{clock, put, stamp, text};
use super::{Report, Tally};
use crate::digest::{CauseRow, sentence};

/// Rows of each table; more would bury the ones that matter.
const ROWS: usize = 50;

pub fn causes(report: &Report, ranked: &[&CauseRow]) -> String {
    let mut out = String::from(
        "<table><thead><tr><th class=\"w20\"></th><th class=\"n w60\">Errors</th>\
         <th class=\"w180\">Cause</th><th class=\"w180\">Upstream</th><th class=\"w80\">First</th><th class=\"w80\">Last</th><th>What happened, and what to do</th></tr></thead><tbody>\n",
    );
    for (n, row) in ranked.iter().enumerate().take(ROWS) {
        let upstream = row.key.upstream.as_deref().unwrap_or("none");
        put(
            &mut out,
            format_args!(
                "<tr><td><svg class=\"swatch\" viewBox=\"0 0 10 10\"><rect class=\"c{}\" width=\"10\" height=\"10\"/></svg></td>\
                 <td class=\"n\">{}</td><td><code>{}</code></td><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}",
                n.min(COLOURS),
                row.count,
                text(&row.key.cause),
                text(upstream),
                moment(report, row.first),
                moment(report, row.last),
                text(&sentence(row)),
            ),
        );
        if let Some(fix) = row.newest.fix.first() {
            put(&mut out, format_args!("<br><span class=\"fix\">{}</span>", text(fix)));
        }
        out.push_str("</td></tr>\n");
    }
    out.push_str("</tbody></table>\n");
    more(&mut out, ranked.len());
    out
}

/// Most errors first.
pub fn tallies(table: &BTreeMap<String, Tally>, name: &str) -> String {
    let mut rows: Vec<(&String, &Tally)> = table.iter().collect();
    rows.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| a.0.cmp(b.0)));
    let mut out = format!(
        "<table><thead><tr><th class=\"w40\">{name}</th><th class=\"n w60\">Errors</th><th class=\"w180\">Status</th><th>Causes</th></tr></thead><tbody>\n"
    );
    for (name, row) in rows.iter().take(ROWS) {
        let process = row.process.as_deref().map_or(String::new(), |p| format!("<br>{}", text(p)));
        put(
            &mut out,
            format_args!(
                "<tr><td><code>{}</code>{process}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td></tr>\n",
                text(name),
                row.count,
                counts(&row.statuses),
                counts(&row.causes)
            ),
        );
    }
    out.push_str("</tbody></table>\n");
    more(&mut out, rows.len());
    out
}

/// `502: 12, 504: 3`, most first.
pub fn counts(table: &BTreeMap<String, u64>) -> String {
    let mut rows: Vec<(&String, &u64)> = table.iter().collect();
    rows.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    let shown: Vec<String> = rows.iter().take(6).map(|(word, n)| format!("<code>{}</code> {n}", text(word))).collect();
    let more = if rows.len() > 6 { format!(" and {} more", rows.len() - 6) } else { String::new() };
    shown.join(", ") + &more
}

fn more(out: &mut String, rows: usize) {
    if rows > ROWS {
        put(out, format_args!("<p class=\"faint\">and {} more</p>\n", rows - ROWS));
    }
}

/// The day is said only where there is more than one.
fn moment(report: &Report, at: i64) -> String {
    let same = stamp(report.from)[..10] == stamp(report.to)[..10];
    if same { clock(at) } else { stamp(at) }
}
