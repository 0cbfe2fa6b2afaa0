//! `local cost`: its bill is that of the formula of `docs/cost.md`, and what the documents show is what it prints.

use std::collections::BTreeMap;
use std::path::Path;

use super::{run, utf8};

/// Runs `local cost` with these arguments, and returns what it prints.
fn printed(arguments: &str) -> String {
    let arguments: Vec<&str> = std::iter::once("cost").chain(arguments.split_whitespace()).collect();
    let output = run(&std::env::temp_dir(), &arguments);
    assert!(output.status.success(), "{arguments:?}: {}", utf8(&output.stderr));
    utf8(&output.stdout).to_owned()
}

/// Returns the dollars a month of each row of a bill, by its label.
fn dollars(bill: &str) -> BTreeMap<String, f64> {
    let mut service = "";
    let rows = bill.split("\n\n").nth(1).unwrap().lines().skip(1);
    rows.map(|row| {
        let (label, figures) = (row[..46].trim_end(), &row[46..]);
        service = if row.starts_with(' ') { service } else { label.split("  ").next().unwrap() };
        let label = if row.starts_with(' ') { format!("{service}: {}", label.trim()) } else { label.to_owned() };
        let month = figures.split_whitespace().next().unwrap().replace(',', "");
        (label, month.parse().unwrap())
    })
    .collect()
}

/// Returns the dollars a month of all rows of a service.
fn sum(bill: &str, service: &str) -> f64 {
    dollars(bill).iter().filter(|(label, _)| label.starts_with(service)).map(|(_, dollars)| dollars).sum()
}

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Returns the numbers of the formula: the table of letters in `docs/cost.md`.
fn letters() -> BTreeMap<String, f64> {
    let document = document("docs/cost.md");
    let rows = document.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let number = cells.get(2)?.split([' ', ';', ':']).next()?.trim_start_matches('$').parse().ok()?;
        (cells[0].len() == 1 && cells.len() == 3).then(|| (cells[0].to_owned(), number))
    });
    rows.collect()
}

#[test]
fn the_bill_is_that_of_the_formula() {
    let letters = letters();
    let [w, r, l, life, archive, i, lambda, m, g, a, q, instance, hour] =
        ["W", "r", "l", "L", "a", "I", "R", "m", "G", "A", "Q", "N", "H"].map(|name| letters[name]);
    for (events, session, batch, visitor) in [
        (10_000_000, 20, 100, 3),
        (10_000_000, 20, 100, 1),
        (1_000_000_000, 20, 1_000, 10),
        (50_000_000, 1, 100, 1),
        (3_000_000, 7, 1, 1),
        (123_456_789, 250, 600, 100),
    ] {
        let arguments = format!(
            "--events-per-month {events} --events-per-session {session} --batch {batch} --per-visitor {visitor}"
        );
        let bill = printed(&arguments);
        let [e, b] = [events as f64, batch as f64];
        let sessions = e / session as f64;
        let writes = sessions * (session as f64 / visitor as f64).ceil();
        let check = |what: &str, found: f64, expected: f64| {
            assert!((found - expected).abs() <= 0.04 + expected / 1e6, "{arguments}: {what}: {found}, not {expected}");
        };
        let life = if session > 8 { life + archive } else { life };
        let dynamodb = (writes * (1.0 + r + l) + sessions * life) * w / 1e6 + i;
        check("DynamoDB", sum(&bill, "DynamoDB"), dynamodb);
        let time = 0.01 + 0.0002 * b;
        check("Lambda", sum(&bill, "Lambda"), (e / b + 43_800.0) * lambda / 1e6 + e / b * time * m * g);
        let http = e / b * (b / 512.0).ceil() * a / 1e6;
        check("HTTP API", sum(&bill, "HTTP API"), http);
        let rows = dollars(&bill);
        let total = sum(&bill, "DynamoDB") + sum(&bill, "Lambda") + sum(&bill, "HTTP API");
        check("total", rows["total"], total);
        let sqs = e / b * (b / 64.0).ceil() * 3.0 * q / 1e6;
        check("SQS", rows["the same with SQS in place of the HTTP API"], total - http + sqs);
        let usual = total - e / b * time * m * g;
        let needed = e / b * (0.001 + 0.00007 * b) / (730.0 * 3_600.0 * 0.5);
        let instances = needed.ceil().max(instance) * 730.0 * hour * 1.15;
        check("Managed Instances", rows["the same on Lambda Managed Instances"], usual + instances);
        check("Flink", rows["Managed Flink, without a stream"], 165.6);
    }
}

/// With the same processors at a lower price, Managed Instances cost less from some number of events on, and not just below it.
#[test]
fn the_price_of_an_instance_decides_whether_it_pays() {
    let pays = |bill: &str| {
        let sentence = bill.split_once("Managed Instances do ").unwrap().1.split_once(".\n").unwrap().0.to_owned();
        sentence
            .strip_prefix("from ")
            .map(|rest| rest.split(' ').next().unwrap().replace(',', "").parse::<u64>().unwrap())
    };
    assert_eq!(pays(&printed("")), None);
    for batch in [1, 100] {
        let bill = |events: u64| {
            printed(&format!("--instance-hour 0.01 --batch {batch} --per-visitor 1 --events-per-month {events}"))
        };
        let at = pays(&bill(10_000_000)).unwrap() * 1_000_000;
        for (events, is_cheaper) in [(at - at / 50, false), (at + at / 50, true)] {
            let rows = dollars(&bill(events));
            assert_eq!(rows["the same on Lambda Managed Instances"] < rows["total"], is_cheaper, "{batch}, {events}");
        }
    }
}

#[test]
fn one_event_a_session_is_shown_beside_the_traffic() {
    let usual = dollars(&printed(""));
    let sparse = dollars(&printed("--events-per-session 1"));
    assert_eq!(usual["the same with one event a session"], sparse["total"]);
    assert_eq!(usual["a plain store, one event a session"], sparse["a plain store at DynamoDB, without an API"]);
}

#[test]
fn a_bill_fits_on_a_screen() {
    for arguments in ["", "--events-per-month 1000000000000 --events-per-session 1 --batch 1", "--events-per-month 20"]
    {
        let bill = printed(arguments);
        let longest = bill.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(longest.chars().count() <= 80, "{longest}");
        assert!(bill.contains("prices of 20"), "{bill}");
    }
}

/// Each code block that begins with a call of `local cost` shows what that call prints.
#[test]
fn the_documents_show_what_is_printed() {
    let document = document("docs/cost.md");
    let mut shown = 0;
    for (at, _) in document.match_indices("```text\n$ local cost") {
        let block = document[at..].split("```").nth(1).unwrap().strip_prefix("text\n$ local cost").unwrap();
        let (arguments, expected) = block.split_once('\n').unwrap();
        assert_eq!(printed(arguments), expected, "local cost{arguments}");
        shown += 1;
    }
    assert!(shown > 0);
}

/// The table of `docs/cost.md` for a million events, and the rows of the README's that are of the formula.
#[test]
fn the_tables_of_the_documents_are_what_is_printed() {
    let mut shown = BTreeMap::new();
    for row in document("docs/cost.md").lines().filter(|line| line.contains(" / ") && line.contains(" | $")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some((session, visitor)) = cells[0].split_once(" / ") else { continue };
        let bill =
            printed(&format!("--events-per-month 1000000000 --events-per-session {session} --per-visitor {visitor}"));
        let ours = sum(&bill, "DynamoDB") / 1000.0;
        let plain = dollars(&bill)["a plain store at DynamoDB, without an API"] / 1000.0;
        assert_eq!(
            cells[1..4],
            [format!("${ours:.2}"), format!("${plain:.2}"), format!("{:.1}", plain / ours)],
            "{row}"
        );
        shown.insert(cells[0].to_owned(), cells[1].to_owned());
    }
    let [ten, three, one, sparse] = ["20 / 10", "20 / 3", "20 / 1", "1 / 1"].map(|name| &shown[name]);
    for row in [format!("| {ten} / {three} / {one} |"), format!("| one event a session | {sparse} |")] {
        assert!(document("README.md").contains(&row), "not in README.md: {row}");
    }
}
