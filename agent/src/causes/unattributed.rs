//! `unattributed`: what was seen does not suffice.

use super::{Case, Cause, Scope, Verdict};
use crate::model::Group;

/// Never found by rule: it is what is left.
pub static CAUSE: Cause = Cause {
    id: "unattributed",
    group: Group::None,
    scope: Scope::Both,
    absence: false,
    meaning: "What was seen does not prove any cause. The incident shows what there is, and says why it does not \
              suffice.",
    proof: "None: this is the honest remainder.",
    remedy: "See `why`: no attempt (the proxy answered by itself), the agent started later, records were lost, the \
              upstream is remote, or the wire is not visible.",
    rule,
};

fn rule(_: &Case<'_>) -> Verdict {
    Verdict::No
}
