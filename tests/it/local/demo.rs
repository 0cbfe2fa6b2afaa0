//! The default command: what a newcomer sees first.

use std::path::Path;

use super::{Folder, run, utf8};

#[test]
fn the_first_run_shows_what_the_service_does_as_the_readme_does() {
    let folder = Folder::new("demo");
    let output = run(&folder.0, &[]);
    let shown = utf8(&output.stdout);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    for expected in
        ["utm_change", "  late", "$session_merged D is one with C", "campaign ads, v5, again", "as expected"]
    {
        assert!(shown.contains(expected), "{expected} is missing:\n{shown}");
    }
    // There are no colors in a pipe.
    assert!(!shown.contains('\x1b'), "{shown}");
    let longest = shown.lines().max_by_key(|line| line.chars().count()).unwrap();
    assert!(longest.chars().count() <= 80, "{longest}");
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let story = shown.split("\n\n").nth(1).unwrap();
    assert!(story.lines().count() > 10, "{story}");
    // All of the traffic's totals but the rate of this machine.
    let totals = shown.lines().skip_while(|line| !line.starts_with("  sessions ")).take_while(|line| !line.is_empty());
    for line in story.lines().chain(totals) {
        assert!(readme.contains(line.trim_end()), "not in README.md: {line}");
    }
}
