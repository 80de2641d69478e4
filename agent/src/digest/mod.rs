//! What many incidents say together, for those who show them: counts over time, causes ranked, the sentence
//! that says the answer, and one incident's attempts laid out in time.
//!
//! Pure: incidents and times are handed in. Nothing here draws, escapes for a medium, or judges a cause anew.

pub mod causes;
pub mod sentence;
pub mod series;
pub mod timeline;

pub use causes::{CauseKey, CauseRow, Causes, Trend};
pub use sentence::{place, relative, sentence, span, who};
pub use series::{Scale, Series};
pub use timeline::{MISSING, Part, Timeline, Track, timeline};

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use crate::model::*;

    /// An incident with this cause at this upstream, served by this process of shop.service.
    pub(crate) fn incident(cause: &str, upstream: &str, pid: u32) -> Arc<Incident> {
        let process = Process { name: "uvicorn".into(), pid, unit: Some("shop.service".into()), ..Process::default() };
        Arc::new(Incident {
            v: RECORD_VERSION,
            id: format!("{cause}-{pid}"),
            time: "2026-11-21T03:00:00.123456Z".into(),
            status: Some(502),
            grpc_status: None,
            seen: Seen::Wire,
            proxy: Process { name: "nginx".into(), pid: 7353, ..Process::default() },
            client: Some("127.0.0.1:51234".into()),
            request: Request {
                method: Some("GET".into()),
                host: Some("shop.example".into()),
                path: Some("/api/cart".into()),
            },
            upstream: Some(Upstream { addr: upstream.into(), process: Some(process) }),
            cause: cause.into(),
            group: Group::Connect,
            confidence: Confidence::Certain,
            summary: format!("{cause} at {upstream}"),
            evidence: vec![],
            fix: vec![],
            attempts: vec![],
            why: None,
        })
    }
}
