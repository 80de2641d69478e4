//! The history through good times and bad: kills, full disks, damage.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::store::Store;
use super::*;
use crate::filter::Filter;
use crate::metrics::tests::incident;
use crate::model::Incident;
use crate::status::{Board, Snapshot};
use crate::when::{self, Micros};

const HOUR: Micros = 3_600_000_000;
const FOREVER: Retention = Retention { age: Duration::from_secs(1 << 40), size: 1 << 40 };

fn at(micros: Micros, id: &str) -> Incident {
    let mut one = incident("127.0.0.1:8000", "no_listener");
    one.time = when::rfc3339(micros);
    one.id = id.into();
    one
}

fn ids(path: &Path) -> Vec<String> {
    ids_of(path, Span::default(), &Filter::default())
}

fn ids_of(path: &Path, span: Span, filter: &Filter) -> Vec<String> {
    let mut ids = Vec::new();
    let unreadable = Reader::open(path)
        .unwrap()
        .each(span, filter, |i| {
            ids.push(i.id);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(unreadable, 0);
    ids
}

fn quiet(_: &str) {}

/// Waits for the board to say what is wanted.
fn wait_for(board: &Board, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let now = board.snapshot();
        if wanted(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "it did not come: {now:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_put_is_read_back_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/history.db");
    let now = when::now_micros();
    // The clock was set back between the second and the third.
    let mut all = [at(now - HOUR, "a"), at(now + 1, "c"), at(now, "b")];
    all[1].cause = "syn_timeout".into();
    let mut store = Store::open(&path).unwrap();
    store.append(all.iter()).unwrap();
    assert_eq!(ids(&path), ["a", "c", "b"], "as they came");
    assert_eq!(Reader::open(&path).unwrap().by_id("b").unwrap().as_ref(), Some(&all[2]));
    assert_eq!(Reader::open(&path).unwrap().by_id("x").unwrap(), None);
    let since = Span { since: Some(now), until: None };
    assert_eq!(ids_of(&path, since, &Filter::default()), ["c", "b"]);
    let until = Span { since: None, until: Some(now) };
    assert_eq!(ids_of(&path, until, &Filter::default()), ["a", "b"]);
    let filter = Filter { cause: vec!["syn_timeout".into()], ..Filter::default() };
    assert_eq!(ids_of(&path, Span::default(), &filter), ["c"]);
    let filter = Filter { path: vec!["/elsewhere".into()], ..Filter::default() };
    assert!(ids_of(&path, Span::default(), &filter).is_empty());
}

#[test]
fn only_root_reads_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h/history.db");
    let mut store = Store::open(&path).unwrap();
    store.append([at(when::now_micros(), "a")].iter()).unwrap();
    for file in ["h/history.db", "h/history.db-wal"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}: {mode:o}");
    }
}

#[test]
fn a_reader_sees_one_moment_while_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let now = when::now_micros();
    let mut store = Store::open(&path).unwrap();
    store.append([at(now, "a")].iter()).unwrap();
    let reader = Reader::open(&path).unwrap();
    let count = |reader: &Reader| {
        let mut count = 0;
        let tell = |_| {
            count += 1;
            ControlFlow::Continue(())
        };
        reader.each(Span::default(), &Filter::default(), tell).unwrap();
        count
    };
    assert_eq!(count(&reader), 1);
    store.append([at(now, "b")].iter()).unwrap();
    assert_eq!(count(&reader), 1, "its moment");
    assert_eq!(count(&Reader::open(&path).unwrap()), 2);
}

#[test]
fn the_old_go_and_the_file_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let now = when::now_micros();
    let mut store = Store::open(&path).unwrap();
    let old: Vec<Incident> = (0..2000).map(|i| at(now - 2 * HOUR + i, "old")).collect();
    store.append(old.iter()).unwrap();
    store.append([at(now, "new")].iter()).unwrap();
    store.retain(FOREVER, now).unwrap();
    assert_eq!(ids(&path).len(), 2001);
    let before = store.bytes();
    store.retain(Retention { age: Duration::from_secs(3600), ..FOREVER }, now).unwrap();
    assert_eq!(ids(&path), ["new"]);
    assert!(store.bytes() < before / 4, "{before} -> {}", store.bytes());
}

#[test]
fn past_the_size_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let now = when::now_micros();
    let mut store = Store::open(&path).unwrap();
    for round in 0..10 {
        let some: Vec<Incident> = (0..500).map(|i| at(now + round * 1000 + i, &format!("{round}-{i}"))).collect();
        store.append(some.iter()).unwrap();
        store.retain(Retention { size: 1 << 20, ..FOREVER }, now).unwrap();
    }
    let left = ids(&path);
    assert!(left.len() >= 500 && left.len() < 5000, "{}", left.len());
    assert_eq!(left.last().unwrap(), "9-499", "the newest stay");
    assert!(fs::metadata(&path).unwrap().len() < 2 << 20);
}

#[test]
fn the_thread_writes_what_it_is_given_and_ends_with_its_sink() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let board = Board::default();
    let (sink, writer) = Writer::new(path.clone(), FOREVER, board.clone(), quiet);
    let thread = std::thread::spawn(|| writer.run());
    let now = when::now_micros();
    for i in 0..3000 {
        sink.put(Box::new(at(now + i, &i.to_string())));
    }
    drop(sink);
    thread.join().unwrap();
    let status = board.snapshot();
    assert_eq!(ids(&path).len(), 3000);
    assert_eq!((status.history.written, status.history.trouble), (3000, None));
    assert!(status.history.bytes > 0 && status.sink_lost.is_empty());
}

#[test]
fn a_thread_that_does_not_follow_loses_by_count() {
    let dir = tempfile::tempdir().unwrap();
    let board = Board::default();
    let (sink, writer) = Writer::new(dir.path().join("history.db"), FOREVER, board.clone(), quiet);
    for _ in 0..5000 {
        sink.put(Box::new(at(0, "x")));
    }
    assert_eq!(board.snapshot().lost()["history"], 5000 - 4096);
    drop(writer);
    sink.put(Box::new(at(0, "x")));
    assert_eq!(board.snapshot().lost()["history"], 5000 - 4096 + 1);
}

#[test]
fn new_limits_are_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let (sink, writer) = Writer::new(path.clone(), FOREVER, Board::default(), quiet);
    let thread = std::thread::spawn(|| writer.run());
    let now = when::now_micros();
    sink.put(Box::new(at(now - 2 * HOUR, "old")));
    sink.put(Box::new(at(now, "new")));
    let deadline = Instant::now() + Duration::from_secs(20);
    while Reader::open(&path).is_err() || ids(&path).len() < 2 {
        assert!(Instant::now() < deadline);
    }
    sink.retention(Retention { age: Duration::from_secs(3600), ..FOREVER });
    drop(sink);
    thread.join().unwrap();
    assert_eq!(ids(&path), ["new"]);
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    for damage in [damage_header as fn(&Path), damage_middle] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.db");
        let now = when::now_micros();
        {
            let mut store = Store::open(&path).unwrap();
            let some: Vec<Incident> = (0..200).map(|i| at(now + i, "before")).collect();
            store.append(some.iter()).unwrap();
        }
        damage(&path);
        let board = Board::default();
        let (sink, writer) = Writer::new(path.clone(), FOREVER, board.clone(), quiet);
        let thread = std::thread::spawn(|| writer.run());
        sink.put(Box::new(at(now, "after")));
        drop(sink);
        thread.join().unwrap();
        assert_eq!(ids(&path), ["after"]);
        let aside = board.snapshot().history.set_aside.expect("said where");
        assert!(aside.contains("history.db.corrupt-2"), "{aside}");
        assert!(fs::metadata(aside).unwrap().len() > 4096);
    }
}

fn damage_header(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[..64].fill(b'#');
    fs::write(path, bytes).unwrap();
}

fn damage_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    for page in bytes.chunks_mut(4096).skip(3) {
        page[..200].fill(0xa5);
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE orders (id INTEGER)").unwrap();
    drop(other);
    assert!(matches!(Writer::check(&path), Err(HistoryError::Foreign { .. })));
    assert!(matches!(Reader::open(&path), Err(HistoryError::Foreign { .. })));

    let newer = dir.path().join("newer.db");
    Store::open(&newer).unwrap();
    rusqlite::Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = Writer::check(&newer).unwrap_err();
    assert!(matches!(error, HistoryError::Newer { found: 99, .. }), "{error}");
    assert!(matches!(Reader::open(&dir.path().join("none.db")), Err(HistoryError::Missing { .. })));
}

/// A disk of one megabyte, seen only by the thread that made it and those it starts.
fn small_disk(folder: &Path) {
    let target = std::ffi::CString::new(folder.to_str().unwrap()).unwrap();
    // SAFETY: plain system calls with strings that live; the namespace ends with the thread.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "needs root");
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null::<libc::c_char>();
        assert_eq!(libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()), 0);
        let size = c"size=1m".as_ptr().cast();
        assert_eq!(libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, size), 0);
    }
}

#[test]
fn a_full_disk_is_survived_in_memory_and_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let all = std::thread::spawn(move || {
        small_disk(&folder);
        let path = folder.join("history.db");
        let ballast = folder.join("ballast");
        let board = Board::default();
        let (sink, writer) = Writer::new(path.clone(), FOREVER, board.clone(), quiet);
        let thread = std::thread::spawn(|| writer.retry_every(Duration::from_millis(20)).run());
        let now = when::now_micros();
        sink.put(Box::new(at(now, "first")));
        wait_for(&board, |s| s.history.written == 1);
        // Fills the disk to the last block.
        let mut filler = fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut filler, &[0; 512]).is_ok() {}
        for i in 1..=600 {
            sink.put(Box::new(at(now + i, &i.to_string())));
        }
        let full = wait_for(&board, |s| s.history.trouble.is_some());
        assert!(full.history.trouble.unwrap().contains("full"));
        drop(filler);
        fs::remove_file(&ballast).unwrap();
        wait_for(&board, |s| s.history.trouble.is_none() && s.history.written == 601);
        drop(sink);
        thread.join().unwrap();
        assert_eq!(board.snapshot().lost().get("history"), None, "nothing was lost");
        ids(&path)
    });
    let ids = all.join().unwrap();
    assert_eq!(ids.len(), 601);
    assert_eq!((ids[0].as_str(), ids[600].as_str()), ("first", "600"));
}

#[test]
fn a_kill_loses_nothing_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "history::tests::writes_until_killed", "--ignored", "--nocapture"])
        .env("TRACE502_TEST_HISTORY", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let written = lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("written ")?.parse::<usize>().ok());
    let last = written.take(50).last().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut store = Store::open(&path).expect("it opens without repair");
    assert!(ids(&path).len() >= last, "{} of {last}", ids(&path).len());
    store.append([at(0, "next life")].iter()).unwrap();
}

#[test]
#[ignore = "the child of a_kill_loses_nothing_that_was_written"]
fn writes_until_killed() {
    let path = std::env::var("TRACE502_TEST_HISTORY").unwrap();
    let mut store = Store::open(Path::new(&path)).unwrap();
    for n in 1.. {
        store.append([at(n, &n.to_string())].iter()).unwrap();
        println!("written {n}");
    }
}

#[test]
fn a_summary_counts_and_stays_bounded() {
    let mut summary = Summary::over(0, 59 * HOUR);
    for i in 0..3000 {
        let mut one = at(i % 60 * HOUR, "x");
        one.cause = if i % 3 == 0 { "unattributed".into() } else { "no_listener".into() };
        one.upstream.as_mut().unwrap().addr = format!("10.0.0.1:{i}");
        summary.add(&one);
    }
    assert_eq!((summary.total, summary.attributed), (3000, 2000));
    let causes = ranked(&summary.by_cause);
    assert_eq!((causes[0].0, causes[0].1.count), ("no_listener", 2000));
    let upstreams = ranked(&summary.by_upstream);
    assert_eq!((upstreams.len(), upstreams[0].0, upstreams[0].1.count), (1001, "other", 2000));
    assert_eq!(summary.slices.iter().sum::<u64>(), 3000);
    assert_eq!(summary.peak().unwrap().1, 0);
}
