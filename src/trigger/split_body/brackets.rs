//! Brackets, as far as they can be told without validating what is between them.

/// The brackets that are open.
#[derive(Default)]
pub(super) struct Brackets {
    open: Vec<u8>,
    /// How many of them are `{`.
    objects: usize,
}

impl Brackets {
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Opens or closes a bracket; any other byte is passed over.
    pub fn pass(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.objects += usize::from(byte == b'{');
                self.open.push(byte);
            }
            b'}' if self.objects > 0 => self.close(b'{'),
            b']' if self.objects < self.open.len() => self.close(b'['),
            // A closing bracket without a partner.
            _ => {}
        }
    }

    /// Closes the last bracket of this kind, and with it those left open inside.
    fn close(&mut self, bracket: u8) {
        while let Some(closed) = self.open.pop() {
            self.objects -= usize::from(closed == b'{');
            if closed == bracket {
                return;
            }
        }
    }

    /// Whether an object cannot begin here: in an object it can only follow a colon.
    pub fn rules_out_object_after(&self, last: u8) -> bool {
        self.open.last() == Some(&b'{') && last != b':'
    }
}
