//! The file: open, append, keep it small. One writer.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use crate::model::Incident;
use crate::when::{self, Micros};

/// "t502": whose database it is.
pub(super) const APPLICATION: i32 = 0x7435_3032;
pub(super) const VERSION: i32 = 1;

/// Rows deleted in one go: a transaction of some milliseconds.
const CHUNK: usize = 500;
/// Files up to this size are checked as a whole when they are opened.
const CHECKED_SIZE: u64 = 64 << 20;
/// How long a writer waits for another process that holds the lock.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("{file}: {source}")]
    Io { file: PathBuf, source: io::Error },
    #[error("{file}: {source}")]
    Sqlite { file: PathBuf, source: rusqlite::Error },
    #[error("{file} is damaged: {why}")]
    Damaged { file: PathBuf, why: String },
    #[error("{file} is a database of another program; name another file with --history")]
    Foreign { file: PathBuf },
    #[error(
        "{file} was written by a newer trace502 (format {found}, this one knows {VERSION}); update, or name another file"
    )]
    Newer { file: PathBuf, found: i32 },
    #[error("{file} is written by another agent{by}; stop that one, or give this one a file of its own with --history")]
    Taken { file: PathBuf, by: String },
    #[error("{file}: no history there; is `trace502 agent` running, and with this --history?")]
    Missing { file: PathBuf },
}

impl HistoryError {
    pub(super) fn sqlite(file: &Path, source: rusqlite::Error) -> HistoryError {
        let file = file.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                HistoryError::Damaged { file, why: source.to_string() }
            }
            _ => HistoryError::Sqlite { file, source },
        }
    }
}

/// What is deleted, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub age: Duration,
    pub size: u64,
}

#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    db: Connection,
}

impl Store {
    /// Opens or makes the file. The folder is made too.
    pub fn open(path: &Path) -> Result<Store, HistoryError> {
        let io_error = |source| HistoryError::Io { file: path.to_owned(), source };
        make_folder(path).map_err(io_error)?;
        // Requests' paths and addresses are for root; the log and index beside it get the same mode.
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(io_error)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(|e| HistoryError::sqlite(path, e))?;
        let store = Store { path: path.to_owned(), db };
        store.prepare()?;
        Ok(store)
    }

    fn prepare(&self) -> Result<(), HistoryError> {
        let fail = |e| HistoryError::sqlite(&self.path, e);
        self.db.busy_timeout(PATIENCE).map_err(fail)?;
        let tables: i64 = self.db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(fail)?;
        if tables == 0 {
            self.create().map_err(fail)?;
        }
        check_owner(&self.db, &self.path)?;
        // A commit that is in the log survives a kill; only a power cut may take the last ones, and damages nothing.
        let tune = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304; \
                    PRAGMA cache_size = -1024; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;";
        self.db.execute_batch(tune).map_err(fail)?;
        if fs::metadata(&self.path).is_ok_and(|m| m.len() <= CHECKED_SIZE) {
            let verdict: String = self.db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(fail)?;
            if verdict != "ok" {
                return Err(HistoryError::Damaged { file: self.path.clone(), why: verdict });
            }
        }
        Ok(())
    }

    fn create(&self) -> rusqlite::Result<()> {
        self.db.execute_batch(&format!(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
             BEGIN;
             PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};
             CREATE TABLE incidents (
                 seq INTEGER PRIMARY KEY,
                 at INTEGER NOT NULL,
                 id TEXT NOT NULL,
                 status TEXT NOT NULL,
                 cause TEXT NOT NULL,
                 proxy TEXT NOT NULL,
                 upstream TEXT,
                 process TEXT,
                 record TEXT NOT NULL
             ) STRICT;
             CREATE INDEX by_time ON incidents (at);
             CREATE INDEX by_id ON incidents (id);
             COMMIT;"
        ))
    }

    /// All of them or none.
    pub fn append<'a>(&mut self, incidents: impl Iterator<Item = &'a Incident>) -> Result<(), HistoryError> {
        let fail = |e| HistoryError::sqlite(&self.path, e);
        let transaction = self.db.transaction().map_err(fail)?;
        {
            let insert = "INSERT INTO incidents (at, id, status, cause, proxy, upstream, process, record) \
                          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let mut insert = transaction.prepare_cached(insert).map_err(fail)?;
            for incident in incidents {
                let at = when::parse_rfc3339(&incident.time).unwrap_or_else(when::now_micros);
                let upstream = incident.upstream.as_ref();
                let process = upstream.and_then(|u| u.process.as_ref()).map(|p| p.name.as_str());
                // A record is plain data: it always has a JSON form.
                let record = serde_json::to_string(incident).unwrap_or_default();
                let row = params![
                    at,
                    incident.id,
                    incident.status_word(),
                    incident.cause,
                    incident.proxy.name,
                    upstream.map(|u| u.addr.as_str()),
                    process,
                    record
                ];
                insert.execute(row).map_err(fail)?;
            }
        }
        transaction.commit().map_err(fail)
    }

    /// Deletes what is too old, then the oldest until the file fits. In steps, so that the log stays short.
    pub fn retain(&mut self, keep: Retention, now: Micros) -> Result<(), HistoryError> {
        let fail = |e| HistoryError::sqlite(&self.path, e);
        let oldest = now.saturating_sub(i64::try_from(keep.age.as_micros()).unwrap_or(i64::MAX));
        let old = format!(
            "DELETE FROM incidents WHERE seq IN (SELECT seq FROM incidents WHERE at < ?1 ORDER BY at LIMIT {CHUNK})"
        );
        while self.db.execute(&old, [oldest]).map_err(fail)? == CHUNK {}
        let first =
            format!("DELETE FROM incidents WHERE seq IN (SELECT seq FROM incidents ORDER BY seq LIMIT {CHUNK})");
        while self.used().map_err(fail)? > keep.size {
            if self.db.execute(&first, []).map_err(fail)? == 0 {
                break;
            }
        }
        self.give_back().map_err(fail)
    }

    /// Bytes of pages that hold something.
    fn used(&self) -> rusqlite::Result<u64> {
        let read = |pragma: &str| self.db.query_row(&format!("PRAGMA {pragma}"), [], |r| r.get::<_, i64>(0));
        let pages = read("page_count")? - read("freelist_count")?;
        Ok(u64::try_from(pages * read("page_size")?).unwrap_or(0))
    }

    /// Free pages back to the file system, once they are worth the writing.
    fn give_back(&self) -> rusqlite::Result<()> {
        let read = |pragma: &str| self.db.query_row(&format!("PRAGMA {pragma}"), [], |r| r.get::<_, i64>(0));
        let (free, pages) = (read("freelist_count")?, read("page_count")?);
        if free > 64 && free > pages / 10 {
            // One step a page: it has to be walked to its end.
            self.db.pragma_query(None, "incremental_vacuum", |_| Ok(()))?;
            self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(())
    }

    /// Bytes on disk, the log included.
    pub fn bytes(&self) -> u64 {
        let size = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
        size(&self.path) + size(&beside(&self.path, "-wal"))
    }
}

/// Whether the database is one of ours that we understand.
pub(super) fn check_owner(db: &Connection, path: &Path) -> Result<(), HistoryError> {
    let read = |pragma: &str| db.query_row(&format!("PRAGMA {pragma}"), [], |r| r.get::<_, i32>(0));
    let fail = |e| HistoryError::sqlite(path, e);
    if read("application_id").map_err(fail)? != APPLICATION {
        return Err(HistoryError::Foreign { file: path.to_owned() });
    }
    match read("user_version").map_err(fail)? {
        found if found > VERSION => Err(HistoryError::Newer { file: path.to_owned(), found }),
        _ => Ok(()),
    }
}

pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.exists() => DirBuilder::new().recursive(true).mode(0o750).create(folder),
        _ => Ok(()),
    }
}

/// Moves a damaged file and its log out of the way; says where.
pub(super) fn set_aside(path: &Path, now: Micros) -> Result<PathBuf, HistoryError> {
    let stamp: String = when::rfc3339(now).chars().filter(char::is_ascii_alphanumeric).take(15).collect();
    let mut aside = beside(path, &format!(".corrupt-{stamp}"));
    for n in 2.. {
        if !aside.exists() {
            break;
        }
        aside = beside(path, &format!(".corrupt-{stamp}-{n}"));
    }
    fs::rename(path, &aside).map_err(|source| HistoryError::Io { file: path.to_owned(), source })?;
    for part in ["-wal", "-shm"] {
        // Where there is no log there is nothing to move.
        let _ = fs::rename(beside(path, part), beside(&aside, part));
    }
    Ok(aside)
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
