//! Bytes of a recording. Numbers are little-endian.
//!
//! ```text
//! magic (8) · format (2) · zero (2) · version of the kernel's records (4) · frame with the header as JSON · frames
//! frame: length (4) · its complement (4) · CRC-32 of the payload (4) · payload (an entry)
//! ```
//! The complement tells a damaged length from a file that was cut.

use std::io::{self, Read};

use super::{Entry, Header, RecordingError};

const MAGIC: [u8; 8] = *b"T502REC\n";
pub const FORMAT: u16 = 1;
/// No entry is larger; a length above it is damage, not a reason to allocate.
pub const LARGEST: usize = 4 << 20;
const FRAME: usize = 12;

pub fn preamble(header: &Header) -> Result<Vec<u8>, RecordingError> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&trace502_ebpf::ABI.to_le_bytes());
    let json = serde_json::to_vec(header).map_err(|error| RecordingError::Write(error.into()))?;
    bytes.extend_from_slice(&framed(&json)?);
    Ok(bytes)
}

pub fn entry(entry: &Entry) -> Result<Vec<u8>, RecordingError> {
    framed(&postcard::to_stdvec(entry).map_err(|error| RecordingError::Write(io::Error::other(error)))?)
}

fn framed(payload: &[u8]) -> Result<Vec<u8>, RecordingError> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length as usize <= LARGEST);
    let length = length.ok_or_else(|| RecordingError::Write(io::Error::other("an entry is too large")))?;
    let mut bytes = Vec::with_capacity(FRAME + payload.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&(!length).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// What is at the current place of a file.
pub enum Frame {
    Whole(Vec<u8>),
    /// The file ends inside it.
    Cut,
    /// The file ends before it.
    None,
}

/// A file, and how far it was read.
pub struct Frames<R> {
    input: R,
    pub at: u64,
}

impl<R: Read> Frames<R> {
    /// Checks magic and versions, and hands back the header.
    pub fn open(input: R) -> Result<(Self, Header), RecordingError> {
        let mut frames = Self { input, at: 0 };
        let start = frames.take(16)?;
        if start.len() < 8 || start[..8] != MAGIC {
            return Err(RecordingError::Foreign);
        }
        let cut = |at| RecordingError::Damaged { at, why: "it ends inside its header" };
        let Some(version) = start.get(8..10).and_then(|bytes| bytes.try_into().ok()) else { return Err(cut(8)) };
        let found = u16::from_le_bytes(version);
        if found > FORMAT {
            return Err(RecordingError::Newer { found, known: FORMAT });
        }
        if found == 0 {
            return Err(RecordingError::Damaged { at: 8, why: "format 0 does not exist" });
        }
        let Some(abi) = start.get(12..16).and_then(|bytes| bytes.try_into().ok()) else { return Err(cut(12)) };
        let found = u32::from_le_bytes(abi);
        if found != trace502_ebpf::ABI {
            return Err(RecordingError::OtherRecords { found, known: trace502_ebpf::ABI });
        }
        let at = frames.at;
        let Frame::Whole(json) = frames.next()? else { return Err(cut(at)) };
        let header = serde_json::from_slice(&json);
        let header = header.map_err(|_| RecordingError::Damaged { at, why: "its header is not what it should be" })?;
        Ok((frames, header))
    }

    pub fn next(&mut self) -> Result<Frame, RecordingError> {
        let start = self.at;
        let damaged = |why| Err(RecordingError::Damaged { at: start, why });
        let head = self.take(FRAME)?;
        let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let (Some(length), Some(complement), Some(sum)) = (word(0), word(4), word(8)) else {
            return Ok(if head.is_empty() { Frame::None } else { Frame::Cut });
        };
        if length != !complement || length as usize > LARGEST {
            return damaged("the length of an entry is not what it should be");
        }
        let payload = self.take(length as usize)?;
        if payload.len() < length as usize {
            return Ok(Frame::Cut);
        }
        if crc32fast::hash(&payload) != sum {
            return damaged("the checksum of an entry does not match");
        }
        Ok(Frame::Whole(payload))
    }

    /// Up to `most` bytes; fewer at the end of the file.
    fn take(&mut self, most: usize) -> Result<Vec<u8>, RecordingError> {
        let mut bytes = Vec::with_capacity(most.min(64 * 1024));
        self.input.by_ref().take(most as u64).read_to_end(&mut bytes).map_err(RecordingError::Read)?;
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

pub fn parse(payload: &[u8], at: u64) -> Result<Entry, RecordingError> {
    match postcard::take_from_bytes(payload) {
        Ok((entry, [])) => Ok(entry),
        _ => Err(RecordingError::Damaged { at, why: "an entry is not what it should be" }),
    }
}
