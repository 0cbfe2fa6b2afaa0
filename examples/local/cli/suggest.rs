//! What somebody probably meant who wrote something that is not known.

/// Returns the name that is nearest to a word, if one is near enough.
pub fn suggestion<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let word = word.to_lowercase();
    let near = names.filter_map(|name| {
        let is_beginning = !word.is_empty() && (name.starts_with(&word) || word.starts_with(name));
        let distance = if is_beginning { 0 } else { edits(&word, name) };
        (distance <= name.len().div_ceil(3)).then_some((distance, name))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Returns how many letters have to be put in, taken out or replaced to make one word of another (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    // A row of the usual table: the edits from what was read of `one` to each beginning of `other`.
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (read, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = read + 1;
        for (at, wanted) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *wanted);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
