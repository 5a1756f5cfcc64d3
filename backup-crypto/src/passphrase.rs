//! The passphrase, as gpg would read it from the same file.

use std::fmt;

use backup_core::{Error, Result};
use pgp::types::Password;
use secrecy::{ExposeSecret, SecretSlice};

const STAGE: &str = "passphrase";

/// A secret that opens what it sealed. Never printed, wiped from memory when dropped.
///
/// ```
/// use backup_crypto::Passphrase;
///
/// let passphrase = Passphrase::from_file_bytes(b"correct horse battery staple\nnot this line\n")?;
/// assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Passphrase(SecretSlice<u8>);

impl Passphrase {
    /// Takes the first line of a file's content, without its line feed, exactly as
    /// `gpg --passphrase-file` does: spaces count, and so does a carriage return before the line
    /// feed (a file edited on Windows). What is in later lines does not.
    ///
    /// # Errors
    /// When the first line is empty, or holds a NUL byte, where gpg would stop reading.
    pub fn from_file_bytes(content: &[u8]) -> Result<Self> {
        let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if line.is_empty() {
            return Err(Error::usage(STAGE, "the passphrase is empty")
                .next_step("put it into the first line of the file"));
        }
        if line.contains(&0) {
            return Err(Error::usage(STAGE, "the passphrase holds a NUL byte")
                .next_step("write it as text; gpg would only use what stands before that byte"));
        }
        Ok(Self(line.to_vec().into()))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }

    pub(crate) fn as_password(&self) -> Password {
        Password::from(self.bytes())
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ErrorKind;

    fn read(content: &[u8]) -> Vec<u8> {
        Passphrase::from_file_bytes(content).unwrap().bytes().to_vec()
    }

    #[test]
    fn the_first_line_counts_without_its_line_feed() {
        assert_eq!(read(b"secret"), b"secret");
        assert_eq!(read(b"secret\n"), b"secret");
        assert_eq!(read(b" two words \nmore\n"), b" two words ");
        assert_eq!(read(b"windows\r\n"), b"windows\r");
        assert_eq!(read("Stra\u{df}e\n".as_bytes()), "Stra\u{df}e".as_bytes());
        assert_eq!(read(b"\xff\xfe\n"), b"\xff\xfe");
    }

    #[test]
    fn an_unusable_first_line_is_refused() {
        for content in [&b""[..], b"\n", b"\nsecond line\n", b"a\0b\n"] {
            let error = Passphrase::from_file_bytes(content).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{content:?}");
            assert!(!format!("{error:?}").contains("second"));
        }
    }
}
