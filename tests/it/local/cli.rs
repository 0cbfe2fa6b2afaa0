//! The command line: help, version, and errors for arguments that are not understood.

use super::{Folder, refused, run, utf8};

#[test]
fn every_command_has_help_with_its_defaults() {
    let folder = Folder::new("help");
    let overview = run(&folder.0, &["--help"]);
    assert!(overview.status.success());
    for (command, defaults) in [
        ("replay", &[("--batch N", "default: 100"), ("--rules", "default: "), ("--annotated OUT", "default: ")][..]),
        ("invoke", &[("--rules", "default: "), ("--now TIME", "2026-03-10T12:01:00Z")]),
        (
            "cost",
            &[
                ("--events-per-month N", "default: 10000000"),
                ("--events-per-session N", "default: 20"),
                ("--batch N", "default: 100"),
                ("--per-visitor N", "default: 3"),
                ("--instance-hour DOLLARS", "default: 0.0816"),
            ],
        ),
        (
            "serve",
            &[
                ("--port PORT", "default: 9000"),
                ("--dynamodb-port PORT", "default: 8000"),
                ("--close-every SECONDS", "default: 60"),
                ("--grace SECONDS", "default: 60"),
            ],
        ),
    ] {
        assert!(utf8(&overview.stdout).contains(command), "{command}");
        for args in [&[command, "--help"][..], &[command, "-h"]] {
            let help = run(&folder.0, args);
            let message = utf8(&help.stdout);
            assert!(help.status.success() && help.stderr.is_empty(), "{args:?}");
            for (option, default) in defaults {
                let option = message.find(option).unwrap_or_else(|| panic!("{option} in {message}"));
                assert!(message[option..].contains(default), "{default} in {message}");
            }
        }
    }
    for args in [["--version"], ["-V"]] {
        let version = run(&folder.0, &args);
        assert_eq!(utf8(&version.stdout), concat!("session-tracking ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[test]
fn arguments_that_are_not_understood_are_named_with_a_correction() {
    let folder = Folder::new("cli");
    folder.write("in", "");
    let batch = "`--batch` takes a whole number from 1 to 1000, not";
    for (args, expected) in [
        (&["replay", "in", "--batch", "abc"][..], &*format!("local: {batch} `abc`")),
        (&["replay", "in", "--batch", "0"], &*format!("local: {batch} `0`")),
        (&["replay", "in", "--batch=1001"], &*format!("local: {batch} `1001`")),
        (&["replay", "in", "--batch", "-5"], &*format!("local: {batch} `-5`")),
        (&["replay", "in", "--batch", "1e2"], &*format!("local: {batch} `1e2`")),
        (&["replay", "in", "--batch", "99999999999999999999999"], batch),
        (&["replay", "in", "--batch"], "`--batch` needs a value: a whole number from 1 to 1000"),
        (&["replay", "in", "--batch", "1", "--batch", "2"], "`--batch` is given twice"),
        (&["replay", "in", "--bach", "1"], "`replay` has no option `--bach`; did you mean `--batch`?"),
        (&["replay", "in", "-b"], "`replay` has no option `-b`; did you mean `--batch`?"),
        (&["replay", "in", "--zzzzzzzz"], "`local replay --help` lists its options"),
        (&["replay"], "`replay` needs a file, or `-` for standard input"),
        (&["replay", "in", "more"], "`replay` takes one file; `more` is a second one"),
        (&["invoke"], "`invoke` needs a file, or `-` for standard input"),
        (&["invoke", "in", "--now", "noon"], "`--now` takes a time such as 2026-03-10T12:00:00Z, not `noon`"),
        (&["serve", "in"], "`serve` takes no file; `in` is one too many"),
        (&["serve", "--port", "70000"], "`--port` takes a whole number from 0 to 65535, not `70000`"),
        (&["serve", "--close-every", "0"], "`--close-every` takes a whole number from 1 to 3600, not `0`"),
        (
            &["cost", "--instance-hour", "-1"],
            "`--instance-hour` takes a price in dollars from 0.0001 to 1000, not `-1`",
        ),
        (
            &["cost", "--instance-hour", "nan"],
            "`--instance-hour` takes a price in dollars from 0.0001 to 1000, not `nan`",
        ),
        (&["cost", "in"], "`cost` takes no file; `in` is one too many"),
        (
            &["cost", "--events-per-month", "0"],
            "`--events-per-month` takes a whole number from 1 to 1000000000000, not `0`",
        ),
        (
            &["cost", "--events-per-session", "2.5"],
            "`--events-per-session` takes a whole number from 1 to 1000000, not",
        ),
        (&["cost", "--batch", "1001"], "`--batch` takes a whole number from 1 to 1000, not `1001`"),
        (&["cost", "--per-visitor", "no"], "`--per-visitor` takes a whole number from 1 to 1000, not `no`"),
        (&["cost", "--batch", "2", "--per-visitor", "3"], "`--per-visitor` is 3, but a batch has 2 events (`--batch`)"),
        (&["cost", "--events-per-month", "9"], "`--events-per-session` is 20, but the month has 9 events"),
        (&["cost", "--events", "9"], "`cost` has no option `--events`; did you mean `--events-per-"),
        (&["relay"], "there is no command `relay`; did you mean `replay`?"),
        (&["Serve"], "did you mean `serve`?"),
        (&["xyzzy"], "the commands are replay, invoke, serve, cost"),
        (&["--batch", "1"], "`--batch` is no option here"),
    ] {
        let message = refused(&folder.0, args, 2);
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}

#[test]
fn rules_are_json_or_a_file_of_it() {
    let folder = Folder::new("rules");
    folder.write("in", "");
    folder.write("good.json", "{\n  \"timeout_seconds\": 600\n}\n");
    folder.write("broken.json", "{\"timeout_seconds\": 600,\n}");
    folder.write("wrong.json", "{\"timeout_seconds\":0}");
    for rules in ["good.json", "./good.json", "{}", " {\"boundary\":\"exclusive\"} "] {
        assert!(run(&folder.0, &["replay", "in", "--rules", rules]).status.success(), "{rules}");
    }
    for command in ["replay", "invoke"] {
        for (rules, expected) in [
            ("none.json", "`none.json` cannot be read: there is no such file"),
            ("none.json", "`--rules` takes a JSON object such as '{\"timeout_seconds\":600}', or the path of a file"),
            (".", "`.` cannot be read: it is a folder"),
            ("broken.json", "`--rules`: `broken.json` is not JSON: trailing comma at line 2"),
            ("{\"timeout_seconds\":", "`--rules` is not JSON"),
            ("wrong.json", "`--rules`: `wrong.json`: timeout_seconds is 0; it must be"),
            ("{\"timeout_seconds\":\"soon\"}", "`--rules`: timeout_seconds"),
            ("{\"max_events\":-1}", "`--rules`: max_events"),
            ("{\"utm_fields\":\"source\"}", "`--rules`: utm_fields"),
            ("{\"boundary\":3}", "`--rules`: boundary"),
            ("{\"nonsense\":3}", "`--rules`: nonsense"),
            ("[]", "`--rules`: the rules are not a JSON object"),
        ] {
            let message = refused(&folder.0, &[command, "in", "--rules", rules], 2);
            assert!(message.contains(expected), "{rules}: {message}");
        }
    }
}

#[test]
fn profiles_and_projects_are_named_or_refused() {
    let folder = Folder::new("projects");
    folder.write("in", "");
    folder.write("projects.json", "{\"shop\": {\"keys\": [\"k\"], \"profile\": \"ga4\"}}");
    for args in [
        &["--profile", "matomo"][..],
        &["--profile", "matomo", "--rules", "{\"midnight\":null}", "--projects", "projects.json"],
        &["--projects", "{}"],
    ] {
        assert!(run(&folder.0, &[&["replay", "in"], args].concat()).status.success(), "{args:?}");
    }
    for command in ["replay", "invoke"] {
        for (args, expected) in [
            (&["--profile", "ga3"][..], "`--profile`: `ga3` is no profile; the profiles are `ga4`"),
            (&["--profile"], "`--profile` needs a value: one of ga4, universal-analytics"),
            (&["--projects", "none.json"], "`none.json` cannot be read: there is no such file"),
            (&["--projects", "[]"], "`--projects`: the projects cannot be read: a JSON object is expected"),
            (&["--projects", "{\"shop\":{\"key\":1}}"], "`--projects`: project `shop`: `key` is unknown; the members"),
            (
                &["--profile", "matomo", "--rules", "{\"passive_events\":[\"$ping\"]}"],
                "`--rules`: keep_alive_events and",
            ),
            (&["--projects", "{}", "--rules", "{\"timeout_seconds\":0}"], "`--rules`: timeout_seconds is 0"),
        ] {
            let message = refused(&folder.0, &[&[command, "in"], args].concat(), 2);
            assert!(message.contains(expected), "{args:?}: {message}");
        }
    }
}
