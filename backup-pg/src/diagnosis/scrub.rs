//! Takes secrets out of what client programs say.

use secrecy::{ExposeSecret, SecretString};

use crate::Connection;

/// What stands where a secret stood.
const MASK: &str = "***";

/// Shorter secrets are not looked for: masking every "a" would only show where they stand.
const SHORTEST_SECRET: usize = 3;

/// Knows a connection's secrets, and what stored passwords look like.
pub(crate) struct Scrubber {
    secrets: Vec<SecretString>,
}

impl Scrubber {
    /// For messages of programs that run on this connection.
    pub(crate) fn new(connection: &Connection) -> Self {
        Self { secrets: connection.secrets() }
    }

    /// The text without the connection's secrets and without stored passwords: psql quotes the
    /// statement that failed, and that may be `ALTER ROLE ... PASSWORD '...'`.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in &self.secrets {
            let secret = secret.expose_secret();
            if secret.len() >= SHORTEST_SECRET {
                clean = clean.replace(secret, MASK);
            }
        }
        mask_after_keyword(&mask_stored(&clean))
    }
}

/// Masks the words `SCRAM-SHA-256$...` and `md5` with 32 hex digits.
fn mask_stored(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "$:+/=-".contains(c);
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_word(c)).unwrap_or(from.len()));
        let md5 = word.len() == 35
            && word.starts_with("md5")
            && word[3..].bytes().all(|b| b.is_ascii_hexdigit());
        clean.push_str(before);
        clean.push_str(if md5 || word.starts_with("SCRAM-SHA-256$") { MASK } else { word });
        rest = after;
    }
    clean + rest
}

/// Masks the literal after `PASSWORD`.
fn mask_after_keyword(text: &str) -> String {
    const KEYWORD: &str = "password '";
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.to_ascii_lowercase().find(KEYWORD) {
        let (before, literal) = rest.split_at(at + KEYWORD.len());
        clean.push_str(before);
        clean.push_str(MASK);
        let mut end = literal.find('\'').unwrap_or(literal.len());
        while literal[end..].starts_with("''") {
            end = literal[end + 2..].find('\'').map_or(literal.len(), |next| end + 2 + next);
        }
        rest = &literal[end..];
    }
    clean + rest
}
