//! The consumers of `docs/output.md`, in Python and in SQL, on the lines of simulated worlds.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::consumer::Consumer;
use crate::sim;

/// Worlds that the consumers read: the first so many in which something is corrected or late.
const WORLDS: usize = 120;

#[test]
#[ignore = "needs Python with DuckDB: PATH=\"$(ci/tools):$PATH\" cargo test --test it worked_consumers -- --ignored"]
fn the_consumers_of_the_document_have_what_ours_has() {
    let worlds = (0..).map(sim::lines).filter(|lines| lines.iter().any(is_telling)).take(WORLDS);
    let worlds: Vec<String> = worlds.map(|lines| world(lines).to_string()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("consumers.jsonl");
    std::fs::write(&file, worlds.join("\n")).unwrap();
    let run = Command::new(root.join("ci/consumers")).arg(&file).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
    print!("{}", text(&run.stdout));
}

/// Whether a consumer that only takes the newest copy of everything would go wrong by this line.
fn is_telling(line: &Value) -> bool {
    line["event"] == "$session_merged" || line["event"] == "$session_split" || line["properties"]["$late"] == true
}

/// A world's lines, and what the consumer of the tests makes of them.
fn world(lines: Vec<Value>) -> Value {
    let consumer = Consumer::read(&lines);
    let events: BTreeMap<&String, &str> = consumer.events.iter().map(|(uuid, copy)| (uuid, copy.session())).collect();
    let ends: BTreeMap<&String, &Value> =
        consumer.ends.iter().map(|((_, id), end)| (id, &end["$session_version"])).collect();
    json!({ "lines": lines, "events": events, "ends": ends })
}
