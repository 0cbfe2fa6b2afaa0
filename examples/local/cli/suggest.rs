//! The suggestion for a command or an option that does not exist.

/// Returns the name that is most similar to a word, if one is similar enough.
pub fn suggestion<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let word = word.to_lowercase();
    let near = names.filter_map(|name| {
        let is_beginning = !word.is_empty() && (name.starts_with(&word) || word.starts_with(name));
        let distance = if is_beginning { 0 } else { edits(&word, name) };
        (distance <= name.len().div_ceil(3)).then_some((distance, name))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Returns the Levenshtein distance: how many letters have to be inserted, removed or replaced to turn one word into the other.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    // One row of the usual table: the distance from the letters read so far of `one` to each prefix of `other`.
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at_one, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at_one + 1;
        for (at, other_letter) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other_letter);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
