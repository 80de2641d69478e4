//! What happened, what the agent says happened, and whether the two agree.

use std::fmt;

use trace502::model::{Confidence, Group, Incident, Seen};

use crate::client::Answer;
use crate::proxies::Kind;

/// A request of the lab and what its client got.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub path: String,
    /// Address of the client's end.
    pub client: String,
    pub answer: Answer,
    /// It went through TLS.
    pub secure: bool,
    /// It is to fail for the reason of its cell; the others are to go well.
    pub judged: bool,
}

/// What a record must say about a fault.
#[derive(Clone, Debug)]
pub struct Expect {
    /// What the client may get, as words of `--status`.
    pub answers: Vec<&'static str>,
    pub causes: &'static [&'static str],
    pub confidence: Confidence,
    /// Words that its texts must contain.
    pub says: Vec<String>,
    /// Where the last attempt went; `None` where there was none, or any will do.
    pub upstream: Option<String>,
}

/// A record as it came and as it reads.
#[derive(Clone, Debug)]
pub struct Record {
    pub incident: Incident,
    pub line: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Right,
    /// What the record says that is not so.
    Wrong(Vec<String>),
    /// The lab failed: the fault did not happen as it should have.
    NotMade(String),
}

/// The result of one cell.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub kind: Kind,
    pub fault: &'static str,
    pub expected: &'static [&'static str],
    pub verdict: Verdict,
    pub answers: Vec<String>,
    pub records: Vec<String>,
    /// A record tells a cause that is not the fault's, with whatever confidence: worse than telling none.
    pub misled: bool,
}

impl Outcome {
    pub fn right(&self) -> bool {
        self.verdict == Verdict::Right
    }
}

/// Does any of these send its reader after something that was not so?
pub fn misled(expect: &Expect, records: &[Record]) -> bool {
    let astray = |cause: &str| cause != "unattributed" && !expect.causes.contains(&cause);
    records.iter().any(|record| astray(&record.incident.cause))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}: ", self.kind.name(), self.fault)?;
        match &self.verdict {
            Verdict::Right => write!(f, "right"),
            Verdict::Wrong(why) => write!(f, "WRONG: {}", why.join("; ")),
            Verdict::NotMade(why) => write!(f, "NOT MADE: {why}"),
        }
    }
}

/// Did the client get what such a fault gives? Without that there is nothing to judge.
pub fn made(expect: &Expect, exchanges: &[Exchange]) -> Result<(), String> {
    if !exchanges.iter().any(|exchange| exchange.judged) {
        return Err("no request was made that should fail".into());
    }
    for exchange in exchanges {
        let got = exchange.answer.word();
        let fine = if exchange.judged { expect.answers.contains(&got.as_str()) } else { got == "200" };
        if !fine {
            let wanted = if exchange.judged { expect.answers.join(" or ") } else { "200".into() };
            let detail = match &exchange.answer {
                Answer::Garbled(bytes) => format!(" {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)])),
                _ => String::new(),
            };
            return Err(format!("{}: the client got {got}{detail}, not {wanted}", exchange.path));
        }
    }
    Ok(())
}

/// What is wrong with the records about one failed request.
pub fn faults_of(expect: &Expect, exchange: &Exchange, records: &[Record]) -> Vec<String> {
    let [record] = records else {
        return vec![match records.len() {
            0 => format!("no record of {} ({})", exchange.path, exchange.answer.word()),
            n => format!("{n} records of {}", exchange.path),
        }];
    };
    let incident = &record.incident;
    let mut wrong = Vec::new();
    let mut check = |fine: bool, what: String| {
        if !fine {
            wrong.push(what);
        }
    };
    let (cause, wanted) = (incident.cause.as_str(), expect.causes.join(" or "));
    check(expect.causes.contains(&cause), format!("cause {cause}, not {wanted}"));
    let (confidence, least) = (incident.confidence, expect.confidence);
    check(confidence >= least, format!("confidence {confidence}, not {least}"));
    let (status, got) = (incident.status_word(), exchange.answer.word());
    // A proxy that wraps an upstream's garbage into a 200 of its own has handed it on all the same.
    let wrapped = exchange.answer == Answer::Status(200);
    check(status == got || wrapped && status == "garbled", format!("status {status}, the client got {got}"));
    let seen: &[Seen] = match exchange.answer {
        Answer::Closed => &[Seen::Closed],
        Answer::Garbled(_) => &[Seen::Garbled],
        _ if exchange.secure => &[Seen::Tls],
        _ if wrapped => &[Seen::Garbled, Seen::Wire],
        _ => &[Seen::Wire],
    };
    check(seen.contains(&incident.seen), format!("seen {}, not {}", incident.seen, seen[0]));
    let path = incident.request.path.as_deref();
    check(path == Some(exchange.path.as_str()), format!("path {path:?}"));
    let client = incident.client.as_deref();
    check(client == Some(exchange.client.as_str()), format!("client {client:?}, not {}", exchange.client));
    if let Some(addr) = &expect.upstream {
        let upstream = incident.upstream.as_ref().map(|upstream| upstream.addr.as_str());
        check(upstream == Some(addr), format!("upstream {upstream:?}, not {addr}"));
        let last = incident.attempts.last();
        check(last.is_some_and(|attempt| attempt.cause == cause), "the last attempt has another cause".into());
    }
    check(incident.group == Group::None || !incident.attempts.is_empty(), "no attempts".into());
    check(cause == "unattributed" || !incident.evidence.is_empty(), "no evidence".into());
    let text = text_of(incident);
    for word in &expect.says {
        check(text.contains(&word.to_lowercase()), format!("does not say {word:?}"));
    }
    wrong
}

fn text_of(incident: &Incident) -> String {
    let evidence = incident.evidence.iter().map(|evidence| evidence.text.as_str());
    let fixes = incident.fix.iter().map(String::as_str);
    let all: Vec<&str> = std::iter::once(incident.summary.as_str()).chain(evidence).chain(fixes).collect();
    all.join("\n").to_lowercase()
}
