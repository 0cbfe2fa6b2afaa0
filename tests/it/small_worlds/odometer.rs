//! Enumerates all combinations of choices. The options of a choice may depend on the choices before it.

/// Runs through all combinations as an odometer does: the last choice turns fastest.
///
/// ```text
/// while odometer.next() { let (a, b) = (odometer.below(2), odometer.below(3)); … }   // six times
/// ```
#[derive(Debug, Default)]
pub struct Odometer {
    /// For each choice: the current option, and the number of options.
    wheels: Vec<(usize, usize)>,
    at: usize,
    is_running: bool,
}

impl Odometer {
    /// Goes to the next combination. Returns false after the last one.
    pub fn next(&mut self) -> bool {
        self.at = 0;
        if !std::mem::replace(&mut self.is_running, true) {
            return true;
        }
        while let Some((value, limit)) = self.wheels.pop() {
            if value + 1 < limit {
                self.wheels.push((value + 1, limit));
                return true;
            }
        }
        false
    }

    /// Chooses a number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        if self.at == self.wheels.len() {
            self.wheels.push((0, limit));
        }
        let (value, known) = self.wheels[self.at];
        assert_eq!(known, limit, "the options of a choice must depend only on the choices before it");
        self.at += 1;
        value
    }

    /// Chooses one of these.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[test]
fn every_combination_once() {
    let mut odometer = Odometer::default();
    let mut found = Vec::new();
    while odometer.next() {
        let first = odometer.below(3);
        found.push((first, if first == 1 { odometer.one_of(&['x', 'y']) } else { '-' }));
    }
    assert_eq!(found, [(0, '-'), (1, 'x'), (1, 'y'), (2, '-')]);
}
