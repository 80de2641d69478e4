use std::fs;
use std::io::Cursor;
use std::path::Path;

use super::*;
use crate::host::{Host, TableHost};

fn header() -> Header {
    Header {
        version: "0.1.0".into(),
        kernel: "6.18.0".into(),
        started_wall_micros: 1_800_000_000_000_000,
        started: 5_000,
        names: serde_json::json!({"drop": {"2": "NOT_SPECIFIED"}}),
        settings: serde_json::json!({"proxies": ["nginx"]}),
    }
}

fn table() -> TableHost {
    let facts = ProcessFacts { pid: 7, name: "uvicorn".into(), alive: true, ..ProcessFacts::default() };
    TableHost { boot_micros: 1_000, ..TableHost::default() }
        .with_process(facts.clone())
        .with_process(ProcessFacts { pid: 8, ..facts })
        .with_memory(7, MemoryFacts { cgroup: "/shop".into(), limit: Some(1), usage: None, kills: Some(2) })
        .with_symbol(9, "nft_do_chain")
        .with_descriptors(7, DescriptorFacts { open: 5, limit: 6 })
}

/// What an engine might do with an event: it asks, and says something.
fn work(host: &mut dyn Host, event: &[u8]) -> String {
    let facts = host.process(7);
    let siblings = facts.as_ref().map(|facts| host.siblings(facts));
    let address = "127.0.0.1".parse().unwrap();
    format!(
        "{event:?} {facts:?} {siblings:?} {:?} {:?} {:?} {:?} {} {:?}",
        host.memory(7),
        host.listeners(0),
        host.path(7, "/run/x.sock"),
        host.netns_of(address, 3),
        host.wall_micros(u64::from(event[0])),
        (host.symbol(9), host.activity(7), host.descriptors(7)),
    )
}

fn recorded(path: &Path) -> Vec<String> {
    let recorder = Recorder::create(path, &header()).unwrap();
    let tape = recorder.tape();
    let mut host = RecordingHost::new(table(), Some(recorder.tape()));
    let mut said = Vec::new();
    for event in [[1, 0, 255], [2, 0, 0]] {
        tape.event(&event);
        said.push(work(&mut host, &event));
        tape.tick(77);
        tape.lost(Counts::from([("ring".into(), 3)]));
    }
    drop((tape, host));
    let summary = recorder.finish(Counts::from([("events".into(), 2)])).unwrap();
    assert_eq!((summary.entries, summary.lost), (2 * (3 + 10) + 1, 0));
    assert_eq!(summary.bytes, fs::metadata(path).unwrap().len());
    said
}

fn whole() -> (Vec<u8>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rec");
    let said = recorded(&path);
    (fs::read(path).unwrap(), said)
}

fn replayed(bytes: &[u8]) -> Result<(Vec<String>, Ending, u64), RecordingError> {
    let mut replay = Replay::new(Reader::new(Cursor::new(bytes))?);
    let mut said = Vec::new();
    while let Some(entry) = replay.next_step()? {
        if let Entry::Event(event) = entry {
            said.push(work(&mut replay, &event));
        }
    }
    Ok((said, replay.reader().ending().clone(), replay.mismatches()))
}

#[test]
fn a_replay_says_what_was_said_when_it_was_recorded() {
    let (bytes, said) = whole();
    let (again, ending, mismatches) = replayed(&bytes).unwrap();
    assert_eq!(again, said);
    let counts = Counts::from([("events".into(), 2), ("recording".into(), 0)]);
    assert_eq!((ending, mismatches), (Ending::Complete(counts), 0));
    let reader = Reader::new(Cursor::new(&bytes)).unwrap();
    assert_eq!((reader.header(), reader.entries()), (&header(), 26));
}

#[test]
fn only_its_owner_may_read_a_recording() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rec");
    recorded(&path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_cut_recording_is_used_up_to_the_cut_and_says_so() {
    let (bytes, said) = whole();
    let mut used = 0;
    let body = 16 + 12 + serde_json::to_vec(&header()).unwrap().len();
    for cut in 0..bytes.len() {
        match replayed(&bytes[..cut]) {
            Ok((again, Ending::Cut { at }, _)) => {
                assert!(cut >= body && at as usize <= cut);
                // Only the last event can lack answers that were behind the cut.
                let sure = again.len().saturating_sub(1);
                assert_eq!(again[..sure], said[..sure], "cut at {cut}");
                used = used.max(again.len());
            }
            Ok((_, Ending::Complete(_), _)) => panic!("cut at {cut} and not noticed"),
            Err(error) => assert!(cut < body, "cut at {cut}: {error}"),
        }
    }
    assert_eq!(used, said.len());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (bytes, said) = whole();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            match replayed(&damaged) {
                Err(_) => {}
                // Two bytes of the preamble are kept for later and mean nothing yet.
                Ok((again, _, _)) => assert!((10..12).contains(&at) && again == said, "bit {bit} of byte {at}"),
            }
        }
    }
}

#[test]
fn what_it_cannot_read_is_refused_with_the_reason() {
    let (bytes, _) = whole();
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        replayed(&bytes).unwrap_err()
    };
    assert!(matches!(refused(&|b| b[0] = b'X'), RecordingError::Foreign));
    assert!(matches!(refused(&|b| b.clear()), RecordingError::Foreign));
    assert!(matches!(refused(&|b| b[8] = 9), RecordingError::Newer { found: 9, .. }));
    let abi = trace502_ebpf::ABI;
    assert!(matches!(refused(&|b| b[12] ^= 0x40), RecordingError::OtherRecords { known, .. } if known == abi));
    assert!(matches!(refused(&|b| b.extend_from_within(16..)), RecordingError::Damaged { .. }));
    assert!(Reader::open(Path::new("/nowhere/x.rec")).is_err_and(|e| e.to_string().contains("/nowhere/x.rec")));
}

/// Frames that are whole, with payloads that are hostile: huge counts, endless numbers, noise.
#[test]
fn hostile_entries_cost_little_memory_and_no_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let preamble = format::preamble(&header()).unwrap();
    for round in 0..2000 {
        let mut payload: Vec<u8> = (0..random() % 40).map(|_| random() as u8).collect();
        payload.insert(0, (round % 7) as u8);
        if round % 3 == 0 {
            payload.splice(1..1, [0xff, 0xff, 0xff, 0xff, 0x0f]);
        }
        let mut bytes = preamble.clone();
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(!(payload.len() as u32)).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        if let Ok(reader) = Reader::new(Cursor::new(&bytes)) {
            let mut replay = Replay::new(reader);
            while replay.next_step().unwrap().is_some() {}
        }
    }
    // A length that promises more than the file has does not allocate it.
    let mut bytes = preamble;
    let length = format::LARGEST as u32;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&(!length).to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    assert!(matches!(Reader::new(Cursor::new(&bytes)).unwrap().ending(), Ending::Cut { .. }));
}

#[test]
fn other_questions_than_the_recorded_ones_are_not_known_and_told() {
    let (bytes, _) = whole();
    let mut replay = Replay::new(Reader::new(Cursor::new(&bytes)).unwrap());
    assert!(matches!(replay.next_step().unwrap(), Some(Entry::Event(_))));
    assert_eq!(replay.process(99), None);
    assert!(matches!(replay.mismatch(), Some(Mismatch::NoAnswer { step: 1, asked: Question::Process(99) })));
    // Out of order the answer is still the right one.
    assert_eq!(replay.symbol(9).as_deref(), Some("nft_do_chain"));
    assert!(replay.process(7).is_some());
    assert_eq!(replay.mismatches(), 2);
    assert!(matches!(replay.next_step().unwrap(), Some(Entry::Tick(77))));
    assert_eq!(replay.mismatches(), 3, "what was not asked for is a mismatch too");
    // The wall clock can be reckoned.
    assert_eq!(replay.wall_micros(6_000), 1_800_000_000_000_001);
}

/// The reader of the ring buffer never waits: what a slow disk cannot take is counted in the file.
#[test]
fn an_overflow_is_counted_in_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("slow");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let read = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::File::open(pipe).unwrap())
    };
    let output = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let mut slow = read.join().unwrap();
    let recorder = Recorder::start(output, &header(), 4).unwrap();
    let tape = recorder.tape();
    let event = vec![1; 64 * 1024];
    // Nobody reads the pipe: it holds one event, the buffer four, the channel four.
    while tape.overflow() < 3 {
        tape.event(&event);
    }
    let drained = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut slow, &mut bytes).unwrap();
        bytes
    });
    let lost = tape.overflow();
    drop(tape);
    let summary = recorder.finish(Counts::new()).unwrap();
    let bytes = drained.join().unwrap();
    assert_eq!(summary.lost, lost);
    let mut reader = Reader::new(Cursor::new(&bytes)).unwrap();
    assert_eq!(reader.ending(), &Ending::Complete(Counts::from([("recording".into(), lost)])));
    let mut counted = 0;
    while let Some(entry) = reader.next_entry().unwrap() {
        if let Entry::Lost(counts) = entry {
            counted += counts["recording"];
        }
    }
    assert_eq!(counted, lost);
}

#[test]
fn a_full_disk_is_told_at_the_end() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    match Recorder::start(full, &header(), 4) {
        Err(error) => assert!(matches!(error, RecordingError::Write(_))),
        Ok(_) => panic!("nothing can be written there"),
    }
}

#[test]
fn what_was_passed_over_is_a_fact_lost_and_what_could_not_be_read_is_none() {
    let count = |places: &[(&str, u64)]| {
        super::facts_lost(&places.iter().map(|(place, count)| ((*place).to_owned(), *count)).collect())
    };
    assert_eq!(count(&[("ring_attempt", 2), ("table_flows", 3), ("skipped_state", 4)]), 9);
    assert_eq!(count(&[("unreadable_payload", 5), ("recording", 6)]), 0);
}
