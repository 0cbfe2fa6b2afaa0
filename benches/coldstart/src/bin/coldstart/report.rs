//! The figures, for people and for programs.

use serde_json::json;

/// A figure and what it should be.
pub struct Row {
    name: String,
    value: f64,
    target: f64,
    is_limit_above: bool,
    /// What it was computed from.
    from: String,
}

impl Row {
    pub fn at_most(name: String, value: f64, target: f64) -> Self {
        Self { name, value, target, is_limit_above: true, from: String::new() }
    }

    pub fn at_least(name: String, value: f64, target: f64) -> Self {
        Self { is_limit_above: false, ..Self::at_most(name, value, target) }
    }

    pub fn because(self, from: String) -> Self {
        Self { from, ..self }
    }

    fn is_met(&self) -> bool {
        if self.is_limit_above { self.value <= self.target } else { self.value >= self.target }
    }

    fn sign(&self) -> &'static str {
        if self.is_limit_above { "≤" } else { "≥" }
    }
}

pub fn print(rows: &[Row], as_json: bool) {
    if as_json {
        let of = |row: &Row| {
            let Row { name, value, target, from, .. } = row;
            json!({ "name": name, "value": value, "sign": row.sign(), "target": target, "met": row.is_met(), "from": from })
        };
        println!("{}", json!(rows.iter().map(of).collect::<Vec<_>>()));
        return;
    }
    for row in rows {
        let met = if row.is_met() { "met" } else { "MISSED" };
        println!("{:62} {:6.2}  {} {:<4} {met:6}  {}", row.name, row.value, row.sign(), row.target, row.from);
    }
}
