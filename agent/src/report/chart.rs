//! Drawings: errors over time by cause, and one incident's attempts. SVG inside the page, coloured by its classes.

use super::Report;
use super::markup::{clock, put, stamp, text};
use crate::digest::{CauseRow, Part, Scale, relative, timeline};
use crate::model::Incident;

/// Causes with a colour of their own; the rest share grey.
pub const COLOURS: usize = 6;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 44.0;

/// Stacked bars, one a slice of time.
pub fn overall(report: &Report, ranked: &[&CauseRow]) -> String {
    let slices = Scale::COARSE;
    let columns = |row: &CauseRow| row.series.columns(report.to, slices, 1);
    let stacks: Vec<Vec<u64>> = ranked.iter().take(COLOURS).map(|row| columns(row)).collect();
    let totals = report.series.columns(report.to, slices, 1);
    let most = totals.iter().copied().max().unwrap_or(0).max(1);
    let width = report.series.width();
    let first = (report.to.div_euclid(width) - slices as i64 + 1) * width;
    let mut out = format!(
        "<svg class=\"overall\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Errors over time\">\n",
        HEIGHT + 30.0
    );
    for (part, label) in [(0.0, most), (0.5, most.div_ceil(2))].into_iter().take(1 + usize::from(most > 1)) {
        let y = 10.0 + part * HEIGHT;
        put(&mut out, format_args!("<path class=\"grid\" d=\"M{LEFT} {y}H{WIDTH}\"/>"));
        put(&mut out, format_args!("<text class=\"axis end\" x=\"{}\" y=\"{}\">{label}</text>\n", LEFT - 6.0, y + 4.0));
    }
    let step = (WIDTH - LEFT) / slices as f64;
    for (n, total) in totals.iter().enumerate().filter(|(_, total)| **total > 0) {
        let x = LEFT + n as f64 * step + 0.5;
        let begin = first + n as i64 * width;
        put(&mut out, format_args!("<g><title>{}: {total}</title>", text(&stamp(begin))));
        let mut base = 10.0 + HEIGHT;
        let named: u64 = stacks.iter().map(|stack| stack[n]).sum();
        let rest = total.saturating_sub(named);
        let parts = stacks.iter().enumerate().map(|(c, stack)| (c, stack[n])).chain([(COLOURS, rest)]);
        for (colour, count) in parts.filter(|(_, count)| *count > 0) {
            let height = count as f64 / most as f64 * HEIGHT;
            base -= height;
            let wide = step - 1.0;
            put(
                &mut out,
                format_args!(
                    "<rect class=\"c{colour}\" x=\"{x:.1}\" y=\"{base:.1}\" width=\"{wide:.1}\" height=\"{height:.1}\"/>"
                ),
            );
        }
        out.push_str("</g>\n");
    }
    put(&mut out, format_args!("<path class=\"base\" d=\"M{LEFT} {}H{WIDTH}\"/>\n", 10.0 + HEIGHT));
    let long = report.to - report.from > 2 * 86_400_000_000;
    for n in (0..slices).step_by(slices / 6) {
        let at = first + n as i64 * width;
        let label = if long { stamp(at)[5..16].to_owned() } else { clock(at) };
        let x = LEFT + n as f64 * step;
        put(&mut out, format_args!("<path class=\"grid\" d=\"M{x:.1} {}v5\"/>", 10.0 + HEIGHT));
        put(
            &mut out,
            format_args!("<text class=\"axis\" x=\"{x:.1}\" y=\"{}\">{}</text>\n", HEIGHT + 27.0, text(&label)),
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Attempts as bars and evidence as numbered marks on one axis, to scale; empty where nothing has a length.
pub fn incident(incident: &Incident) -> String {
    let line = timeline(incident);
    if line.from >= line.to {
        return String::new();
    }
    const STEPS: usize = 760;
    const BEGIN: f64 = 190.0;
    let x = |t_us: i64| BEGIN + line.position(t_us, STEPS) as f64;
    let height = line.tracks.len() as f64 * 22.0 + 52.0;
    let mut out = format!(
        "<svg class=\"attempts\" viewBox=\"0 0 {} {height}\" role=\"img\" aria-label=\"Attempts over time\">\n",
        BEGIN + STEPS as f64 + 80.0
    );
    for (n, track) in line.tracks.iter().enumerate() {
        let y = n as f64 * 22.0 + 4.0;
        let attempt = &incident.attempts[track.attempt];
        let name = crate::text::clipped(&attempt.upstream, 24);
        put(&mut out, format_args!("<text class=\"name\" x=\"0\" y=\"{}\">{} {}</text>", y + 12.0, n + 1, text(&name)));
        for (part, from, to) in &track.parts {
            let class = if *part == Part::Connect { "connect" } else { "wait" };
            let wide = (x(*to) - x(*from)).max(1.0);
            let title = if *part == Part::Connect { "connecting" } else { "waiting for the answer" };
            let took = crate::text::duration(to.abs_diff(*from).saturating_mul(1_000));
            put(
                &mut out,
                format_args!(
                    "<rect class=\"{class}\" x=\"{:.1}\" y=\"{y}\" width=\"{wide:.1}\" height=\"15\"><title>{title}: {took}</title></rect>",
                    x(*from)
                ),
            );
        }
        let end = x(track.end);
        put(&mut out, format_args!("<path class=\"ended\" d=\"M{end:.1} {}v19\"/>", y - 2.0));
        put(
            &mut out,
            format_args!("<text class=\"word\" x=\"{:.1}\" y=\"{}\">{}</text>\n", end + 6.0, y + 12.0, track.ended),
        );
    }
    let y = line.tracks.len() as f64 * 22.0 + 14.0;
    let mut free = f64::MIN;
    let mut marks = line.marks.clone();
    marks.sort_by_key(|index| incident.evidence[*index].t_us);
    for index in marks {
        let at = x(incident.evidence[index].t_us);
        // Numbers that fall together stand side by side; the tick tells the place.
        let label = at.max(free);
        free = label + 14.0;
        put(&mut out, format_args!("<path class=\"tick\" d=\"M{at:.1} {}v6\"/>", y + 4.0));
        put(&mut out, format_args!("<text class=\"mark\" x=\"{label:.1}\" y=\"{y}\">{}</text>", index + 1));
    }
    let axis = y + 10.0;
    put(&mut out, format_args!("<path class=\"base\" d=\"M{BEGIN} {axis}h{STEPS}\"/>"));
    put(
        &mut out,
        format_args!("<text class=\"axis\" x=\"{BEGIN}\" y=\"{}\">{}</text>", axis + 16.0, relative(line.from)),
    );
    let zero = x(0);
    put(&mut out, format_args!("<path class=\"zero\" d=\"M{zero:.1} {}v8\"/>", axis - 4.0));
    put(
        &mut out,
        format_args!("<text class=\"axis\" x=\"{zero:.1}\" y=\"{}\">the error</text>\n</svg>\n", axis + 16.0),
    );
    out
}
