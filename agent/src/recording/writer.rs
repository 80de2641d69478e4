//! Writes a recording on a thread of its own. Whoever reads the ring buffer never waits for a disk: what does not
//! fit into the channel is counted, and the count is written into the recording.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Counts, Entry, Exchange, Header, RecordingError, format};
use crate::logs::LogError;
use crate::model::Nanos;

/// Entries that may wait for the disk: about 16 MB of connection records.
const WAITING: usize = 16 * 1024;
/// How soon what was written can be read by others.
const FLUSH: Duration = Duration::from_millis(200);
/// Under which word a recording counts what it could not hold itself.
const OWN_LOSS: &str = "recording";

/// The end that is written to; copies of it write to the same recording.
#[derive(Clone)]
pub struct Tape {
    channel: SyncSender<Message>,
    lost: Arc<Loss>,
}

#[derive(Default)]
struct Loss {
    /// Since the last count that was written, and in all.
    pending: AtomicU64,
    total: AtomicU64,
}

enum Message {
    Entry(Entry),
    End(Counts),
}

/// What a recording holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub entries: u64,
    pub bytes: u64,
    /// Entries that did not fit into the channel.
    pub lost: u64,
}

pub struct Recorder {
    tape: Tape,
    writer: JoinHandle<Result<Summary, RecordingError>>,
}

impl Recorder {
    /// Overwrites the file. Only its owner may read it: it holds the first bytes of requests.
    pub fn create(path: &Path, header: &Header) -> Result<Self, RecordingError> {
        let file = |error| RecordingError::File { path: path.display().to_string(), error };
        let output = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(file)?;
        Self::start(output, header, WAITING)
    }

    /// For a pipe, or wherever standard output goes.
    pub fn to_stdout(header: &Header) -> Result<Self, RecordingError> {
        let output = std::io::stdout().as_fd().try_clone_to_owned().map_err(RecordingError::Write)?;
        Self::start(File::from(output), header, WAITING)
    }

    pub(super) fn start(output: File, header: &Header, waiting: usize) -> Result<Self, RecordingError> {
        let mut output = Output { file: BufWriter::with_capacity(256 * 1024, output), entries: 0, bytes: 0 };
        output.write(&format::preamble(header)?)?;
        output.flush()?;
        let (channel, entries) = sync_channel(waiting);
        let lost = Arc::new(Loss::default());
        let tape = Tape { channel, lost: Arc::clone(&lost) };
        let run = move || output.run(&entries, &lost);
        let writer = std::thread::Builder::new().name("recording".into()).spawn(run).map_err(RecordingError::Write)?;
        Ok(Self { tape, writer })
    }

    pub fn tape(&self) -> Tape {
        self.tape.clone()
    }

    /// Whether the writer gave up, which [`Self::finish`] explains.
    pub fn failed(&self) -> bool {
        self.writer.is_finished()
    }

    /// Writes the end and waits until all of it is in the file.
    pub fn finish(self, counters: Counts) -> Result<Summary, RecordingError> {
        // A writer that gave up does not listen any more; its reason is in its result.
        let _ = self.tape.channel.send(Message::End(counters));
        drop(self.tape);
        let broke = || RecordingError::Write(std::io::Error::other("the writer broke off"));
        self.writer.join().map_err(|_| broke())?
    }
}

impl Tape {
    pub fn event(&self, record: &[u8]) {
        self.put(Entry::Event(record.to_vec()));
    }

    pub fn lost(&self, counts: Counts) {
        self.put(Entry::Lost(counts));
    }

    pub fn tick(&self, now: Nanos) {
        self.put(Entry::Tick(now));
    }

    /// The engine is about to be told that nothing more comes.
    pub fn finish(&self) {
        self.put(Entry::Finish);
    }

    pub fn log(&self, at: Nanos, error: LogError) {
        self.put(Entry::Log { at, error: Box::new(error) });
    }

    pub fn asked(&self, exchange: Exchange) {
        self.put(Entry::Asked(Box::new(exchange)));
    }

    /// Entries that did not fit so far.
    pub fn overflow(&self) -> u64 {
        self.lost.total.load(Ordering::Relaxed)
    }

    /// Any entry, as it was read from another recording.
    pub fn put(&self, entry: Entry) {
        if self.channel.try_send(Message::Entry(entry)).is_err() {
            self.lost.pending.fetch_add(1, Ordering::Relaxed);
            self.lost.total.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Output {
    file: BufWriter<File>,
    entries: u64,
    bytes: u64,
}

impl Output {
    fn run(mut self, entries: &Receiver<Message>, lost: &Loss) -> Result<Summary, RecordingError> {
        loop {
            let message = match entries.recv_timeout(FLUSH) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => {
                    self.own_loss(lost)?;
                    self.flush()?;
                    continue;
                }
                // Nobody finished it: whoever reads it will see that it has no end.
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match message {
                Message::Entry(entry) => {
                    self.own_loss(lost)?;
                    self.entry(&entry)?;
                }
                Message::End(mut counts) => {
                    self.own_loss(lost)?;
                    *counts.entry(OWN_LOSS.to_owned()).or_default() += lost.total.load(Ordering::Relaxed);
                    self.entry(&Entry::End(counts))?;
                    break;
                }
            }
        }
        self.flush()?;
        match self.file.get_ref().sync_data() {
            // A pipe or a terminal cannot be synced.
            Err(error) if error.kind() != ErrorKind::InvalidInput => return Err(RecordingError::Write(error)),
            _ => {}
        }
        Ok(Summary { entries: self.entries, bytes: self.bytes, lost: lost.total.load(Ordering::Relaxed) })
    }

    /// The count stands about where the gap is: after what was in the channel when it overflowed, or a little before.
    fn own_loss(&mut self, lost: &Loss) -> Result<(), RecordingError> {
        match lost.pending.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            count => self.entry(&Entry::Lost(Counts::from([(OWN_LOSS.to_owned(), count)]))),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), RecordingError> {
        self.entries += 1;
        self.write(&format::entry(entry)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RecordingError> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(RecordingError::Write)
    }

    fn flush(&mut self) -> Result<(), RecordingError> {
        self.file.flush().map_err(RecordingError::Write)
    }
}
