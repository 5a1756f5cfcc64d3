//! What a configuration says about compression: `"zstd"`, `"zstd:9"`, `"gzip:6"`, `"none"`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use backup_core::{Error, Result, Transform};

#[cfg(feature = "gzip")]
use crate::Gzip;
#[cfg(feature = "zstd")]
use crate::Zstd;

/// A choice of codec and level.
///
/// ```
/// use backup_compress::Compression;
///
/// assert_eq!(Compression::parse("none")?, Compression::None);
/// # #[cfg(feature = "zstd")]
/// assert_eq!(Compression::parse("zstd:9")?.to_string(), "zstd:9");
/// assert!(Compression::parse("lzma").is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// The bytes as they are.
    None,
    /// gzip at this level, 1 to 9.
    #[cfg(feature = "gzip")]
    Gzip(u32),
    /// zstd at this level, 1 to 19.
    #[cfg(feature = "zstd")]
    Zstd(i32),
}

impl Compression {
    /// Reads `"zstd"`, `"zstd:9"`, `"gzip"`, `"gzip:6"` or `"none"`.
    ///
    /// # Errors
    /// A usage error that names what is allowed, for anything else: an unknown codec, one this
    /// program was built without, a level out of range.
    pub fn parse(text: &str) -> Result<Self> {
        let (codec, level) = match text.split_once(':') {
            Some((codec, level)) => (codec, Some(level)),
            None => (text, None),
        };
        match (codec, level) {
            ("none", None) => Ok(Self::None),
            #[cfg(feature = "gzip")]
            ("gzip", level) => {
                level_of(text, level, Gzip::DEFAULT_LEVEL, Gzip::LEVELS).map(Self::Gzip)
            }
            #[cfg(feature = "zstd")]
            ("zstd", level) => {
                level_of(text, level, Zstd::DEFAULT_LEVEL, Zstd::LEVELS).map(Self::Zstd)
            }
            #[cfg(not(feature = "gzip"))]
            ("gzip", _) => Err(not_built_in("gzip")),
            #[cfg(not(feature = "zstd"))]
            ("zstd", _) => Err(not_built_in("zstd")),
            _ => Err(unknown(text)),
        }
    }

    /// The transform, or `None` for [`Compression::None`]. `threads` is how many threads may
    /// compress at once; 0 counts as 1.
    pub fn transform(self, threads: usize) -> Option<Box<dyn Transform>> {
        let _ = threads;
        match self {
            Self::None => None,
            #[cfg(feature = "gzip")]
            Self::Gzip(level) => Some(Box::new(Gzip { level, threads })),
            #[cfg(feature = "zstd")]
            Self::Zstd(level) => Some(Box::new(Zstd { level, threads })),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            #[cfg(feature = "gzip")]
            Self::Gzip(level) => write!(f, "gzip:{level}"),
            #[cfg(feature = "zstd")]
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// The level after the colon; an absent one is the default.
#[cfg(any(feature = "gzip", feature = "zstd"))]
fn level_of<L>(text: &str, level: Option<&str>, default: L, allowed: RangeInclusive<L>) -> Result<L>
where
    L: FromStr + PartialOrd,
{
    let Some(level) = level else { return Ok(default) };
    match level.parse() {
        Ok(level) if allowed.contains(&level) => Ok(level),
        _ => Err(unknown(text)),
    }
}

fn unknown(text: &str) -> Error {
    Error::usage("compression", format!("{text:?} is no compression"))
        .next_step(format!("write one of {}", allowed()))
}

#[cfg(not(all(feature = "gzip", feature = "zstd")))]
fn not_built_in(codec: &str) -> Error {
    Error::usage("compression", format!("this program was built without {codec}"))
        .next_step(format!("write one of {}, or build with the feature {codec:?}", allowed()))
}

/// What may be written, for people: `"none", "gzip" or "gzip:1" to "gzip:9"`.
fn allowed() -> String {
    let choices: &[(&str, RangeInclusive<i64>)] = &[
        #[cfg(feature = "zstd")]
        ("zstd", i64::from(*Zstd::LEVELS.start())..=i64::from(*Zstd::LEVELS.end())),
        #[cfg(feature = "gzip")]
        ("gzip", i64::from(*Gzip::LEVELS.start())..=i64::from(*Gzip::LEVELS.end())),
    ];
    let mut text = String::new();
    for (codec, levels) in choices {
        let (low, high) = (levels.start(), levels.end());
        text += &format!("\"{codec}\", \"{codec}:{low}\" to \"{codec}:{high}\", ");
    }
    text + "\"none\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ErrorKind;

    #[test]
    #[cfg(all(feature = "gzip", feature = "zstd"))]
    fn every_allowed_spelling_is_read_and_written_back() {
        let spellings = [
            ("none", Compression::None, "none"),
            ("zstd", Compression::Zstd(3), "zstd:3"),
            ("zstd:1", Compression::Zstd(1), "zstd:1"),
            ("zstd:19", Compression::Zstd(19), "zstd:19"),
            ("gzip", Compression::Gzip(6), "gzip:6"),
            ("gzip:9", Compression::Gzip(9), "gzip:9"),
        ];
        for (text, expected, written) in spellings {
            assert_eq!(Compression::parse(text).unwrap(), expected, "{text}");
            assert_eq!(expected.to_string(), written);
            assert_eq!(Compression::parse(written).unwrap(), expected);
        }
    }

    #[test]
    fn nonsense_is_a_usage_error_that_names_what_is_allowed() {
        let nonsense = [
            "",
            "zst",
            "ZSTD",
            "zstd:",
            "zstd:0",
            "zstd:20",
            "zstd:-1",
            "zstd:3:4",
            "zstd: 3",
            "gzip:0",
            "gzip:10",
            "gzip:x",
            "none:1",
            " none",
            "lz4",
            "gzip:99999999999999999999",
        ];
        for text in nonsense {
            let error = Compression::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text:?}");
            assert!(error.advice().unwrap().contains("\"none\""), "{text:?}: {error:?}");
        }
        #[cfg(all(feature = "gzip", feature = "zstd"))]
        assert_eq!(
            Compression::parse("lz4").unwrap_err().advice(),
            Some(
                r#"write one of "zstd", "zstd:1" to "zstd:19", "gzip", "gzip:1" to "gzip:9", "none""#
            )
        );
    }

    #[test]
    #[cfg(not(feature = "zstd"))]
    fn a_codec_that_was_left_out_is_named() {
        let error = Compression::parse("zstd").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.message().contains("built without zstd"), "{error}");
    }
}
