//! Each direct dependency has a reason, in a comment above it.

const MANIFEST: &str = include_str!("../../Cargo.toml");

#[test]
fn every_dependency_has_a_reason() {
    let (mut section, mut before, mut checked) = ("", "", 0);
    for line in MANIFEST.lines() {
        if line.starts_with('[') {
            section = line;
        } else if ["[dependencies]", "[dev-dependencies]"].contains(&section) && line.contains(" = ") {
            assert!(before.starts_with("# ") && before.len() > 10, "{line}: write above it what it is for");
            checked += 1;
        }
        before = line;
    }
    assert!(checked > 30, "{checked}");
}
