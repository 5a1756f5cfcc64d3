//! What exactly is damaged: which file, at which of its bytes, and who has it whole.

use std::fmt;

use serde::Serialize;

use super::compare::Difference;

/// A damaged file of one copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file, in the backup's folder.
    pub file: String,
    /// Where in it, as far as that can be told.
    pub place: Place,
    /// The storages that hold it whole, as this run found.
    pub good_in: Vec<String>,
}

/// Which bytes of a file are damaged. They are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub enum Place {
    /// The file is not there.
    Missing,
    /// It was compared byte for byte with what it should be.
    Compared {
        /// The first byte that differs.
        first: u64,
        /// How many differ, among those that are there and should be.
        differing: u64,
        /// The last one of them.
        last: u64,
        /// How many are missing at its end.
        missing: u64,
        /// How many are too many at its end.
        extra: u64,
        /// How many there should be.
        bytes: u64,
    },
    /// Only its length is known to be wrong.
    Length {
        /// Bytes that are there.
        there: u64,
        /// Bytes that should be.
        bytes: u64,
    },
    /// Decoding failed when so many bytes had been read: at or before the last of them.
    Within {
        /// Bytes that had been read.
        read: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// Somewhere in its bytes.
    Somewhere {
        /// Bytes of the file.
        bytes: u64,
    },
}

impl Place {
    /// Where a file differs from what it should be; `None` when it doesn't.
    pub(super) fn of(difference: &Difference) -> Option<Self> {
        if difference.is_none() {
            return None;
        }
        let Difference { changed, differing, there, expected } = *difference;
        let shorter = there.min(expected);
        let (first, last) = changed.unwrap_or((shorter, shorter));
        let (missing, extra) = (expected.saturating_sub(there), there.saturating_sub(expected));
        Some(Self::Compared { first, differing, last, missing, extra, bytes: expected })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the file is not there"),
            Self::Compared { first, differing, last, missing, extra, bytes } => {
                match differing {
                    0 => {}
                    1 => write!(f, "byte {first} of {bytes} differs")?,
                    n => write!(f, "{n} of {bytes} bytes differ, byte {first} to byte {last}")?,
                }
                let and = if *differing == 0 { "" } else { "; " };
                match (missing, extra) {
                    (0, 0) => Ok(()),
                    (0, extra) => write!(f, "{and}{extra} bytes too many after its {bytes}"),
                    (missing, _) => {
                        let there = bytes - missing;
                        write!(f, "{and}cut off at byte {there}: {missing} of {bytes} are missing")
                    }
                }
            }
            Self::Length { there, bytes } => write!(f, "it has {there} bytes instead of {bytes}"),
            Self::Within { read, bytes } => {
                write!(f, "somewhere in the first {read} of its {bytes} bytes")
            }
            Self::Somewhere { bytes } => write!(f, "somewhere in its {bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_well() {
        let place = |changed, differing, there, expected| {
            let difference = Difference { changed, differing, there, expected };
            Place::of(&difference).map(|place| place.to_string())
        };
        assert_eq!(place(None, 0, 9, 9), None);
        assert_eq!(place(Some((4, 4)), 1, 9, 9).unwrap(), "byte 4 of 9 differs");
        assert_eq!(place(Some((4, 7)), 3, 9, 9).unwrap(), "3 of 9 bytes differ, byte 4 to byte 7");
        assert_eq!(place(None, 0, 5, 9).unwrap(), "cut off at byte 5: 4 of 9 are missing");
        assert_eq!(place(None, 0, 11, 9).unwrap(), "2 bytes too many after its 9");
        assert_eq!(
            place(Some((1, 1)), 1, 5, 9).unwrap(),
            "byte 1 of 9 differs; cut off at byte 5: 4 of 9 are missing"
        );
    }
}
