//! One block of text per error, for somebody who was woken by it: what the client got, why, what proves it, what to do.

use crate::model::{Evidence, Incident, Process};
use crate::text;
use crate::when;

const WIDTH: usize = 80;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub colour: bool,
}

/// The blocks of a run in local time, with the day above the first that is not of the day before it.
pub struct Blocks {
    style: Style,
    day: String,
}

impl Blocks {
    /// The day stands above the first block.
    pub fn new(style: Style) -> Blocks {
        Blocks { style, day: String::new() }
    }

    /// Whoever watches knows what day it is.
    pub fn from_now(style: Style) -> Blocks {
        Blocks { style, day: local_stamp(when::now_micros()).0 }
    }

    pub fn next(&mut self, incident: &Incident) -> String {
        let Some(at) = when::parse_rfc3339(&incident.time) else { return block(incident, self.style) };
        let (day, clock) = local_stamp(at);
        let text = block_at(incident, &clock, self.style);
        if day == self.day {
            return text;
        }
        self.day = day;
        format!("{}\n\n{text}", self.day)
    }
}

/// Day and time of day, with milliseconds.
fn local_stamp(at: when::Micros) -> (String, String) {
    let stamp = when::local(at).stamp();
    let (day, clock) = stamp.split_once(' ').unwrap_or((&stamp, ""));
    (day.to_owned(), format!("{clock}.{:03}", at.rem_euclid(1_000_000) / 1000))
}

/// The block of one incident with its time in UTC, ending with an empty line.
pub fn block(incident: &Incident, style: Style) -> String {
    block_at(incident, incident.time.get(11..23).unwrap_or(&incident.time), style)
}

fn block_at(incident: &Incident, clock: &str, style: Style) -> String {
    let mut out = Block { text: String::new(), style };
    out.headline(incident, clock);
    out.wrapped("  ", "  ", &text::safe(&incident.summary), Some(Paint::Bold));
    let sure = match &incident.why {
        Some(why) => format!(" ({why})"),
        None => format!(", {}", incident.confidence),
    };
    out.field("cause", &format!("{}{sure}", incident.cause));
    if let Some(upstream) = &incident.upstream {
        let process = upstream.process.as_ref().map_or_else(String::new, |p| format!(", {}", named(p)));
        out.field("upstream", &format!("{}{process}", upstream.addr));
    }
    out.field("proxy", &named(&incident.proxy));
    if incident.attempts.len() > 1 {
        let tries = incident.attempts.iter().map(|a| format!("{} {}", a.upstream, a.cause));
        out.field("attempts", &tries.collect::<Vec<_>>().join(", then "));
    }
    for (n, evidence) in incident.evidence.iter().filter(|e| e.kind != "missing").enumerate() {
        out.evidence(n == 0, evidence);
    }
    for missing in incident.evidence.iter().filter(|e| e.kind == "missing") {
        out.field("", &missing.text);
    }
    for (n, fix) in incident.fix.iter().enumerate() {
        out.field(if n == 0 { "to do" } else { "" }, fix);
    }
    out.text.push('\n');
    out.text
}

#[derive(Clone, Copy)]
enum Paint {
    Bold,
    Red,
    Dim,
}

struct Block {
    text: String,
    style: Style,
}

impl Block {
    fn headline(&mut self, incident: &Incident, time: &str) {
        let status = match incident.status_word().as_str() {
            "closed" => "closed unanswered".to_owned(),
            "garbled" => "garbled".to_owned(),
            "grpc" => format!("grpc-status {}", incident.grpc_status.unwrap_or_default()),
            number => number.to_owned(),
        };
        let request = &incident.request;
        let method = request.method.as_deref().unwrap_or("?");
        let host = request.host.as_deref().unwrap_or("");
        let path = request.path.as_deref().unwrap_or("");
        let what = if request.method.is_none() { "a request".into() } else { format!("{method} {host}{path}") };
        let client = incident.client.as_deref().map_or_else(String::new, |c| format!(" for {c}"));
        self.paint(Paint::Dim, &text::safe(time));
        self.text.push(' ');
        self.paint(Paint::Red, &status);
        let rest = format!("{} {what}{client}", incident.proxy.name);
        let used = time.len() + 1 + status.len() + 1;
        self.text.push(' ');
        let lines = wrap(&text::safe(&rest), WIDTH - used, WIDTH - 6);
        self.text.push_str(&lines.join("\n      "));
        self.text.push('\n');
    }

    fn field(&mut self, name: &str, value: &str) {
        let label = format!("  {name:<9} ");
        self.wrapped(&label, "            ", &text::safe(value), None);
    }

    fn evidence(&mut self, first: bool, evidence: &Evidence) {
        let label = format!("  {:<9} ", if first { "seen" } else { "" });
        let time = moment(evidence.t_us);
        let text = text::safe(&evidence.text);
        self.wrapped(&format!("{label}{time:>10}  "), "                        ", &text, None);
    }

    fn wrapped(&mut self, first: &str, rest: &str, value: &str, paint: Option<Paint>) {
        let lines = wrap(value, WIDTH.saturating_sub(first.len()), WIDTH.saturating_sub(rest.len()));
        for (n, line) in lines.iter().enumerate() {
            self.text.push_str(if n == 0 { first } else { rest });
            match paint {
                Some(paint) => self.paint(paint, line),
                None => self.text.push_str(line),
            }
            self.text.push('\n');
        }
    }

    fn paint(&mut self, paint: Paint, value: &str) {
        if !self.style.colour {
            self.text.push_str(value);
            return;
        }
        let code = match paint {
            Paint::Bold => "1",
            Paint::Red => "1;31",
            Paint::Dim => "2",
        };
        self.text.push_str(&format!("\x1b[{code}m{value}\x1b[0m"));
    }
}

/// `nginx (pid 7353, nginx.service)`.
fn named(process: &Process) -> String {
    let mut parts = vec![format!("pid {}", process.pid)];
    parts.extend(process.unit.clone());
    parts.extend(process.container.as_ref().map(|id| match &process.container_name {
        Some(name) => format!("container {name} {id}"),
        None => format!("container {id}"),
    }));
    format!("{} ({})", process.name, parts.join(", "))
}

/// `-41 ms`, `+2 ms`, `0`.
fn moment(t_us: i64) -> String {
    let size = text::duration(t_us.unsigned_abs().saturating_mul(1_000));
    match t_us {
        0 => "0".into(),
        t if t < 0 => format!("-{size}"),
        _ => format!("+{size}"),
    }
}

/// Lines of at most `first`, then `rest` characters, broken at spaces; a longer word is cut where it must be.
pub(crate) fn wrap(value: &str, first: usize, rest: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    let room = |lines: &Vec<String>| if lines.len() == 1 { first.max(10) } else { rest.max(10) };
    for word in value.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let gap = usize::from(used > 0);
        if used + gap + word.len() > room(&lines) && used > 0 {
            lines.push(String::new());
            used = 0;
        } else if gap == 1 {
            put(&mut lines, [' ']);
            used += 1;
        }
        while used + word.len() > room(&lines) {
            let cut = room(&lines) - used;
            let tail = word.split_off(cut);
            put(&mut lines, word);
            lines.push(String::new());
            used = 0;
            word = tail;
        }
        used += word.len();
        put(&mut lines, word);
    }
    lines
}

fn put(lines: &mut [String], chars: impl IntoIterator<Item = char>) {
    if let Some(line) = lines.last_mut() {
        line.extend(chars);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::fixture::*;
    use crate::host::MemoryFacts;
    use crate::model::*;
    use crate::text::MILLI;

    fn oom() -> Incident {
        let mut w = World::new("nginx");
        w.listening(Endpoint::Tcp(addr(UPSTREAM)), SERVER).pass(MILLI);
        w.host.memory.insert(SERVER, MemoryFacts { limit: Some(64 << 20), ..MemoryFacts::default() });
        w.see(Fact::OomKill { victim: proc(SERVER, "uvicorn"), rss_bytes: Some(66_899_149) }).pass(MILLI);
        w.exit(SERVER, ExitStatus::Signal { signal: 9, core: false }).pass(MILLI);
        let mut a = w.attempt();
        a.conn.fin = Some(w.now - 90_000);
        a.peer = Some(w.closed_peer(SERVER));
        w.tell(a).pass(39 * MILLI + 210_000);
        w.answered(502);
        w.incident()
    }

    #[test]
    fn a_block_reads_well_in_eighty_columns() {
        let block = block(&oom(), Style::default());
        let expected = "\
03:16:40.042 502 nginx GET shop.example/api/cart for 127.0.0.1:51234
  uvicorn (pid 812) was OOM-killed 41 ms before: memory cgroup limit 64 MiB, RSS
  63.8 MiB
  cause     upstream_oom_killed, certain
  upstream  127.0.0.1:8000, uvicorn (pid 812, shop.service)
  proxy     nginx (pid 100)
  seen          -41 ms  nginx connects to 127.0.0.1:8000
                -41 ms  the kernel's OOM killer chose uvicorn (pid 812): memory
                        cgroup limit 64 MiB, RSS 63.8 MiB
                -41 ms  connected after 90 us
                -40 ms  request sent (47 bytes so far)
                -40 ms  uvicorn (pid 812) ended
                -39 ms  uvicorn (pid 812) closed its end
                -39 ms  the upstream closed its side (FIN)
                     0  nginx answered the client with 502
  to do     raise the memory limit of shop.service, or find what makes it grow

";
        assert_eq!(block, expected);
        assert!(block.lines().all(|line| line.chars().count() <= WIDTH), "{block}");
        assert!(!block.contains('\x1b'));
    }

    #[test]
    fn what_has_no_cause_says_why() {
        let mut world = World::new("nginx");
        world.answered(502);
        let block = block(&world.incident(), Style::default());
        assert!(block.contains("  cause     unattributed (no_attempt)\n"), "{block}");
    }

    #[test]
    fn nothing_hostile_reaches_the_terminal() {
        let mut incident = oom();
        incident.summary = "a\x1b[2Jb\u{202e}".into();
        incident.request.path = Some("/\x07\u{9b}31m".into());
        incident.evidence[0].text = "x\ny".into();
        let block = block(&incident, Style::default());
        assert!(block.chars().all(|c| c == '\n' || !c.is_control()), "{block:?}");
        assert!(block.contains("a\\x1b[2Jb\\u{202e}"));
    }

    #[test]
    fn the_day_stands_above_the_first_block_of_each() {
        let mut incident = oom();
        let stamp = |incident: &Incident| local_stamp(when::parse_rfc3339(&incident.time).unwrap());
        let (day, clock) = stamp(&incident);
        let mut blocks = Blocks::new(Style::default());
        assert!(blocks.next(&incident).starts_with(&format!("{day}\n\n{clock} 502 nginx GET ")));
        assert!(blocks.next(&incident).starts_with(&format!("{clock} 502 ")));
        incident.time = "2031-01-02T12:00:00.000001Z".into();
        assert!(blocks.next(&incident).starts_with("2031-01-0"));
        incident.time = when::rfc3339(when::now_micros());
        assert!(Blocks::from_now(Style::default()).next(&incident).starts_with(&stamp(&incident).1));
    }

    #[test]
    fn long_words_are_cut_and_nothing_is_lost() {
        let word = "x".repeat(200);
        let lines = wrap(&format!("ab {word} c"), 20, 30);
        assert!(lines.iter().enumerate().all(|(n, l)| l.len() <= if n == 0 { 20 } else { 30 }), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), format!("ab{word}c"));
    }

    #[test]
    fn colour_only_when_asked() {
        assert!(block(&oom(), Style { colour: true }).contains("\x1b[1;31m502\x1b[0m"));
    }
}
