//! Reads a recording: all of it is checked before the first entry is handed out.
//!
//! Damage and a newer version are refused with the reason. A file that was cut is good up to the cut.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::format::{self, Frame, Frames};
use super::{Counts, Entry, Header, RecordingError};

/// How a recording ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As its recorder ended it, with the counters of that moment.
    Complete(Counts),
    /// In the middle: the recorder was killed, the disk was full, or the copy is not whole. Good up to this byte.
    Cut { at: u64 },
}

pub struct Reader<R> {
    frames: Frames<R>,
    header: Header,
    ending: Ending,
    entries: u64,
    done: bool,
}

impl Reader<BufReader<File>> {
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = |error| RecordingError::File { path: path.display().to_string(), error };
        Self::new(BufReader::new(File::open(path).map_err(file)?))
    }

    /// All of it is checked first, and a pipe is read only once: it is kept in a file without a name.
    pub fn of_stdin() -> Result<Self, RecordingError> {
        let folder = std::env::temp_dir();
        let kept = OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(&folder);
        let mut kept = kept.map_err(|error| RecordingError::File { path: folder.display().to_string(), error })?;
        io::copy(&mut io::stdin().lock(), &mut kept).map_err(RecordingError::Read)?;
        kept.rewind().map_err(RecordingError::Read)?;
        Self::new(BufReader::new(kept))
    }
}

impl<R: Read + Seek> Reader<R> {
    pub fn new(mut input: R) -> Result<Self, RecordingError> {
        let (mut frames, _) = Frames::open(&mut input)?;
        let mut entries = 0;
        let mut end = None;
        let ending = loop {
            let at = frames.at;
            match frames.next()? {
                Frame::Whole(_) if end.is_some() => {
                    return Err(RecordingError::Damaged { at, why: "entries follow its end" });
                }
                Frame::Whole(payload) => match format::parse(&payload, at)? {
                    Entry::End(counts) => end = Some(counts),
                    _ => entries += 1,
                },
                Frame::None => break end.map_or(Ending::Cut { at }, Ending::Complete),
                Frame::Cut => break Ending::Cut { at },
            }
        };
        input.seek(SeekFrom::Start(0)).map_err(RecordingError::Read)?;
        let (frames, header) = Frames::open(input)?;
        Ok(Self { frames, header, ending, entries, done: false })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    /// How many entries it has before its end.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry; `None` at the end or at the cut.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, RecordingError> {
        if self.done {
            return Ok(None);
        }
        let at = self.frames.at;
        let entry = match self.frames.next()? {
            Frame::Whole(payload) => Some(format::parse(&payload, at)?).filter(|entry| !matches!(entry, Entry::End(_))),
            Frame::Cut | Frame::None => None,
        };
        self.done = entry.is_none();
        Ok(entry)
    }
}
