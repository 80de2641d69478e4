//! What `trace502 history` sees: one consistent view of the file while the agent goes on writing.

use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::store::{HistoryError, PATIENCE, check_owner};
use crate::filter::Filter;
use crate::model::Incident;
use crate::when::Micros;

/// From the first moment to the last, both included; `None`: as far as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub since: Option<Micros>,
    pub until: Option<Micros>,
}

pub struct Reader {
    path: PathBuf,
    db: Connection,
}

impl Reader {
    /// From here on everything asked is of one moment.
    pub fn open(path: &Path) -> Result<Reader, HistoryError> {
        if !path.exists() {
            return Err(HistoryError::Missing { file: path.to_owned() });
        }
        let fail = |e| HistoryError::sqlite(path, e);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(fail)?;
        db.busy_timeout(PATIENCE).map_err(fail)?;
        db.execute_batch("PRAGMA trusted_schema = OFF; BEGIN").map_err(fail)?;
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(fail)?;
        if tables == 0 {
            // The agent is about to make it.
            return Err(HistoryError::Missing { file: path.to_owned() });
        }
        check_owner(&db, path)?;
        Ok(Reader { path: path.to_owned(), db })
    }

    /// Tells each incident in the span that the filter lets through, in the order in which they came: a clock that is
    /// set back disturbs it not. Returns how many records could not be read.
    pub fn each(
        &self,
        span: Span,
        filter: &Filter,
        mut tell: impl FnMut(Incident) -> std::ops::ControlFlow<()>,
    ) -> Result<u64, HistoryError> {
        let fail = |e| HistoryError::sqlite(&self.path, e);
        let (condition, mut values) = condition(span, filter);
        // From the index alone; the rows themselves are then read as they lie, with nothing to sort.
        let ends = format!("SELECT min(seq), max(seq) FROM incidents WHERE {}", SPAN);
        let (since, until) = (span.since.unwrap_or(Micros::MIN), span.until.unwrap_or(Micros::MAX));
        let ends: (Option<i64>, Option<i64>) =
            self.db.query_row(&ends, [since, until], |row| Ok((row.get(0)?, row.get(1)?))).map_err(fail)?;
        let (Some(first), Some(last)) = ends else { return Ok(0) };
        values.extend([first, last].map(Value::from));
        let query =
            format!("SELECT record FROM incidents NOT INDEXED WHERE {condition} AND seq BETWEEN ? AND ? ORDER BY seq");
        let mut statement = self.db.prepare(&query).map_err(fail)?;
        let mut rows = statement.query(params_from_iter(values)).map_err(fail)?;
        let mut unreadable = 0;
        while let Some(row) = rows.next().map_err(fail)? {
            let text = row.get_ref(0).map_err(fail)?;
            match text.as_str().ok().and_then(|text| serde_json::from_str::<Incident>(text).ok()) {
                Some(incident) if filter.matches(&incident) => {
                    if tell(incident).is_break() {
                        break;
                    }
                }
                Some(_) => {}
                None => unreadable += 1,
            }
        }
        Ok(unreadable)
    }

    /// The incident with this id, as an exemplar of the metrics names it.
    pub fn by_id(&self, id: &str) -> Result<Option<Incident>, HistoryError> {
        let fail = |e| HistoryError::sqlite(&self.path, e);
        let mut statement =
            self.db.prepare("SELECT record FROM incidents WHERE id = ?1 ORDER BY seq DESC LIMIT 1").map_err(fail)?;
        let mut rows = statement.query([id]).map_err(fail)?;
        let Some(row) = rows.next().map_err(fail)? else { return Ok(None) };
        let text: String = row.get(0).map_err(fail)?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| HistoryError::Damaged { file: self.path.clone(), why: format!("record of {id}: {e}") })
    }
}

const SPAN: &str = "at BETWEEN ? AND ?";

/// What the columns can say beforehand; [`Filter::matches`] has the last word.
fn condition(span: Span, filter: &Filter) -> (String, Vec<Value>) {
    let mut parts = vec![SPAN.to_owned()];
    let mut values: Vec<Value> =
        vec![span.since.unwrap_or(Micros::MIN).into(), span.until.unwrap_or(Micros::MAX).into()];
    for (column, words) in [("status", &filter.status), ("cause", &filter.cause)] {
        if !words.is_empty() {
            parts.push(format!("{column} IN ({})", vec!["?"; words.len()].join(", ")));
            values.extend(words.iter().cloned().map(Value::from));
        }
    }
    (parts.join(" AND "), values)
}
