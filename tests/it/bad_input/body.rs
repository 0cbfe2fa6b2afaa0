//! Bodies in the notation of the table.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

/// A body, or an expression that makes one that is too large or binary.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Body {
    Text(String),
    Bytes {
        /// In hexadecimal.
        bytes: String,
    },
    Repeat {
        repeat: (Box<Body>, usize),
    },
    Concat {
        concat: Vec<Body>,
    },
    Gzip {
        gzip: Box<Body>,
    },
    /// A body without the last bytes of it.
    Cut {
        cut: (Box<Body>, usize),
    },
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Body {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::Bytes { bytes } => {
                let digits = bytes.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
                digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
            }
            Self::Repeat { repeat: (part, times) } => part.bytes().repeat(*times),
            Self::Concat { concat } => concat.iter().flat_map(Self::bytes).collect(),
            Self::Gzip { gzip } => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&gzip.bytes()).unwrap();
                encoder.finish().unwrap()
            }
            Self::Cut { cut: (whole, bytes) } => {
                let mut whole = whole.bytes();
                whole.truncate(whole.len() - bytes);
                whole
            }
        }
    }
}
