//! Prints the figures as a table or as JSON.

use serde_json::json;

/// A figure, and its target if there is one.
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
    /// Returns a row without a target.
    pub fn of(name: String, value: f64) -> Self {
        Self { name, value, target: None, from: String::new() }
    }

    /// Sets the target: at most this value.
    pub fn at_most(self, target: f64) -> Self {
        Self { target: Some(Target::AtMost(target)), ..self }
    }

    /// Sets the target: at least this value.
    pub fn at_least(self, target: f64) -> Self {
        Self { target: Some(Target::AtLeast(target)), ..self }
    }

    /// Sets what the figure was computed from.
    pub fn from(self, from: String) -> Self {
        Self { from, ..self }
    }

    /// Returns the target as a string, and whether it is met.
    fn target_and_result(&self) -> (String, &'static str) {
        let (target, is_met) = match self.target {
            None => return (String::new(), ""),
            Some(Target::AtMost(most)) => (format!("≤ {most}"), self.value <= most),
            Some(Target::AtLeast(least)) => (format!("≥ {least}"), self.value >= least),
        };
        (target, if is_met { "met" } else { "MISSED" })
    }
}

/// Prints the rows as a table, or as one array of JSON.
pub fn print(rows: &[Row], as_json: bool) {
    if as_json {
        let of = |row: &Row| {
            let (target, result) = row.target_and_result();
            json!({ "name": row.name, "value": row.value, "target": target, "verdict": result, "from": row.from })
        };
        println!("{}", json!(rows.iter().map(of).collect::<Vec<_>>()));
        return;
    }
    for row in rows {
        let (target, result) = row.target_and_result();
        println!("{:78} {:6.2}  {target:5} {result:6}  {}", row.name, row.value, row.from);
    }
}
