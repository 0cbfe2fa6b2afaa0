//! The figures, for people and for programs.

use serde_json::json;

/// A figure, and what it should be where there is a target.
pub struct Row {
    name: String,
    value: f64,
    target: Option<Target>,
    /// What it was computed from.
    from: String,
}

enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    pub fn of(name: String, value: f64) -> Self {
        Self { name, value, target: None, from: String::new() }
    }

    pub fn at_most(self, target: f64) -> Self {
        Self { target: Some(Target::AtMost(target)), ..self }
    }

    pub fn at_least(self, target: f64) -> Self {
        Self { target: Some(Target::AtLeast(target)), ..self }
    }

    pub fn because(self, from: String) -> Self {
        Self { from, ..self }
    }

    /// The target in words, and what came of it.
    fn verdict(&self) -> (String, &'static str) {
        let (words, is_met) = match self.target {
            None => return (String::new(), ""),
            Some(Target::AtMost(most)) => (format!("≤ {most}"), self.value <= most),
            Some(Target::AtLeast(least)) => (format!("≥ {least}"), self.value >= least),
        };
        (words, if is_met { "met" } else { "MISSED" })
    }
}

pub fn print(rows: &[Row], as_json: bool) {
    if as_json {
        let of = |row: &Row| {
            let (target, verdict) = row.verdict();
            json!({ "name": row.name, "value": row.value, "target": target, "verdict": verdict, "from": row.from })
        };
        println!("{}", json!(rows.iter().map(of).collect::<Vec<_>>()));
        return;
    }
    for row in rows {
        let (target, verdict) = row.verdict();
        println!("{:78} {:6.2}  {target:5} {verdict:6}  {}", row.name, row.value, row.from);
    }
}
