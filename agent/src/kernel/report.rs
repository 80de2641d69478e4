//! What became of one probe: the loader writes it, doctor and the metrics read it.

use serde::Serialize;

use super::probes::Probe;

#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    pub name: &'static str,
    /// What it hooks, as the kernel calls it.
    pub hook: String,
    /// How it attached: `tp_btf`, `fexit`, `uprobe`, `tracepoint` …
    pub provider: Option<String>,
    /// trace502 cannot run without it.
    pub required: bool,
    pub attached: bool,
    /// Why it did not attach.
    pub error: Option<String>,
    /// Instructions that the verifier walked through for the largest of its programs; it takes at most a million.
    pub walked: Option<u32>,
    /// What the verifier said of it, in full.
    pub verifier: Option<String>,
    /// What is lost without it.
    pub lost: &'static str,
}

impl ProbeReport {
    /// One that nobody has tried to attach.
    pub fn of(probe: &Probe) -> ProbeReport {
        ProbeReport {
            name: probe.name,
            hook: probe.providers[0][0].1.to_string(),
            provider: None,
            required: probe.required,
            attached: false,
            error: None,
            walked: None,
            verifier: None,
            lost: probe.lost,
        }
    }
}
