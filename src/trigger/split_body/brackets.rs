//! The brackets that are open at a place in a body. What is between them is not validated.

/// The brackets that are open.
#[derive(Default)]
pub(super) struct Brackets {
    open: Vec<u8>,
    /// How many of them are `{`.
    objects: usize,
}

impl Brackets {
    /// Returns how many brackets are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.open.clear();
        self.objects = 0;
    }

    /// Opens or closes a bracket. Any other byte changes nothing.
    pub fn pass(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.objects += usize::from(byte == b'{');
                self.open.push(byte);
            }
            b'}' if self.objects > 0 => self.close(b'{'),
            b']' if self.objects < self.open.len() => self.close(b'['),
            // A closing bracket without an opening one changes nothing either.
            _ => {}
        }
    }

    /// Closes the last bracket of this kind, and all brackets that were opened after it.
    fn close(&mut self, bracket: u8) {
        while let Some(closed) = self.open.pop() {
            self.objects -= usize::from(closed == b'{');
            if closed == bracket {
                return;
            }
        }
    }

    /// Returns whether an object cannot begin after the byte `last`, because in an object it can only follow a colon.
    pub fn rules_out_object_after(&self, last: u8) -> bool {
        self.open.last() == Some(&b'{') && last != b':'
    }
}
