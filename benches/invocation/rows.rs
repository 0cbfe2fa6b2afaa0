//! Prints the figures, one row each.

use crate::series::{Kind, Series};

/// The target of a figure.
enum Target {
    AtMost(f64),
    AtLeast(f64),
    None,
}

fn row(name: &str, value: f64, target: Target, from: &str) {
    let (target, result) = match target {
        Target::AtMost(most) => (format!("≤ {most}"), if value <= most { "met" } else { "MISSED" }),
        Target::AtLeast(least) => (format!("≥ {least}"), if value >= least { "met" } else { "MISSED" }),
        Target::None => (String::new(), ""),
    };
    println!("{name:64} {value:7.2}  {target:6} {result:6}  {from}");
}

/// Prints the figures of our invocations beside those of a plain store, and beside those of another version if there is one.
pub fn print(ours: &Series, plain: &Series, before: Option<&Series>) {
    for kind in [Kind::Warm, Kind::Cold, Kind::New, Kind::First] {
        let (cpu, other) = (ours.cpu_ms(kind), plain.cpu_ms(kind));
        let target = match kind {
            Kind::Warm => Target::AtLeast(5.0),
            Kind::Cold => Target::AtLeast(4.0),
            Kind::New | Kind::First => Target::None,
        };
        let name = format!("CPU of an invocation, plain store over ours, {}", kind.name());
        row(&name, other / cpu, target, &format!("{other:.1} ms; ours {cpu:.2} ms"));
    }
    for kind in Kind::ALL {
        let name = format!("page faults, {}", kind.name());
        row(&name, ours.page_faults(kind), Target::None, &format!("plain store {}", plain.page_faults(kind)));
    }
    for kind in Kind::ALL {
        let name = format!("calls, {}", kind.name());
        let made = ours.connections(kind);
        row(
            &name,
            ours.calls(kind),
            Target::None,
            &format!("new connections {made}; plain store {}", plain.calls(kind)),
        );
    }
    let Some(before) = before else { return };
    for kind in Kind::ALL {
        let (cpu, other) = (ours.cpu_ms(kind), before.cpu_ms(kind));
        let target = if kind == Kind::First { Target::AtMost(0.4) } else { Target::None };
        let name = format!("CPU of an invocation over that of the other version, {}", kind.name());
        let faults = before.page_faults(kind);
        row(
            &name,
            cpu / other,
            target,
            &format!("{other:.2} ms; page faults {faults}; new connections {}", before.connections(kind)),
        );
    }
}

/// Prints the page faults of a warm invocation, once the process has all the memory that it will need.
pub fn print_settled(page_faults: u64) {
    row("page faults, warm, settled", page_faults as f64, Target::AtMost(20.0), "");
}
