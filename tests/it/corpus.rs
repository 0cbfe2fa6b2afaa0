//! Runs every file of the fuzz targets' corpus through the same checks, so that faults that fuzzing has found do not come back.

use std::fs;
use std::path::PathBuf;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use session_tracking::session::Visitor;
use session_tracking::stored::{FORMAT, decode_session, decode_timeline, encode_session, encode_timeline};

use crate::stored::{self, World};
use crate::{bad_input, fuzz};

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 5] = [
    ("body", fuzz::body),
    ("envelope", fuzz::envelope),
    ("event", fuzz::event),
    ("stored_session", fuzz::stored_session),
    ("stored_timeline", fuzz::stored_timeline),
];

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn check(target: &str) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let files: Vec<_> = fs::read_dir(corpus(target)).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 20, "{target} has {} seeds", files.len());
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let outcome = std::panic::catch_unwind(|| check(&bytes));
        assert!(outcome.is_ok(), "{}", file.display());
    }
}

#[test]
fn bodies() {
    check("body");
}

#[test]
fn envelopes() {
    check("envelope");
}

#[test]
fn events() {
    check("event");
}

#[test]
fn stored_sessions() {
    check("stored_session");
}

#[test]
fn stored_timelines() {
    check("stored_timeline");
}

/// After a change of the stored form the seeds must be written anew, or no code would read them.
#[test]
fn seeds_are_read() {
    let visitor = Visitor::new("u");
    for file in fs::read_dir(corpus("stored_timeline")).unwrap().chain(fs::read_dir(corpus("stored_session")).unwrap())
    {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("seed-") {
            let bytes = fs::read(&path).unwrap();
            let is_read = decode_timeline(FORMAT, &bytes, visitor.clone()).is_ok()
                || decode_session(FORMAT, &bytes, visitor.bits()).is_ok();
            assert!(is_read, "{}", path.display());
        }
    }
}

#[test]
#[ignore = "writes the seeds in fuzz/corpus: after a change of the stored form, or of the tables they come from"]
fn write_seeds() {
    let write = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), bytes).unwrap();
    };
    // The small bodies of the table of bad input: whole bodies, and single events.
    for (id, body, events) in bad_input::bodies().filter(|(_, body, _)| body.len() <= 300) {
        let group = id.split('-').next().unwrap_or_default();
        if matches!(group, "body" | "events" | "lines" | "gzip" | "base64") {
            write("body", &id, &body);
        } else if events == 1 {
            write("event", &id, &body);
        }
    }
    let samples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("events");
    for file in fs::read_dir(samples).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".json") && name != "expected.json" {
            write("envelope", name, &fs::read(&path).unwrap());
        }
    }
    let mut runner = TestRunner::deterministic();
    let mut sessions = 0;
    for number in 0..40 {
        let World { timeline, closed } = stored::world().new_tree(&mut runner).unwrap().current();
        write("stored_timeline", &format!("seed-{number:02}"), &encode_timeline(&timeline));
        for session in closed.iter().chain(&timeline.ended).take(2) {
            write("stored_session", &format!("seed-{sessions:02}"), &encode_session(session));
            sessions += 1;
        }
    }
}
