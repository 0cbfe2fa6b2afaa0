//! The consumers of `docs/output.md`, in Python and in SQL, read the lines of simulated worlds.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::consumer::Consumer;
use crate::sim;

/// How many worlds the consumers read: the first ones with corrections or late events.
const WORLDS: usize = 120;

#[test]
#[ignore = "needs Python with DuckDB: PATH=\"$(ci/tools):$PATH\" cargo test --test it worked_consumers -- --ignored"]
fn the_documented_consumers_agree_with_ours() {
    let worlds = (0..).map(sim::lines).filter(|lines| lines.iter().any(needs_the_rules)).take(WORLDS);
    let worlds: Vec<String> = worlds.map(|lines| world(lines).to_string()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("consumers.jsonl");
    std::fs::write(&file, worlds.join("\n")).unwrap();
    let run = Command::new(root.join("ci/consumers")).arg(&file).output().unwrap();
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(run.status.success(), "{}{}", string(&run.stdout), string(&run.stderr));
    print!("{}", string(&run.stdout));
}

/// Returns whether a consumer that only keeps the newest copy of everything would misread this line.
fn needs_the_rules(line: &Value) -> bool {
    line["event"] == "$session_merged" || line["event"] == "$session_split" || line["properties"]["$late"] == true
}

/// Returns a world's lines, and what the consumer of the tests has after them.
fn world(lines: Vec<Value>) -> Value {
    let consumer = Consumer::read(&lines);
    let events: BTreeMap<&String, &str> = consumer.events.iter().map(|(uuid, copy)| (uuid, copy.session())).collect();
    let ends: BTreeMap<&String, &Value> =
        consumer.ends.iter().map(|((_, id), end)| (id, &end["$session_version"])).collect();
    json!({ "lines": lines, "events": events, "ends": ends })
}
