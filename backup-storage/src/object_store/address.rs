//! The bucket and prefix that a URL names, and the options beside it.

use backup_core::layout::check_key;
use backup_core::{Error, Result};
use secrecy::ExposeSecret;

use crate::Settings;

/// Largest `part_size` that makes sense, in bytes.
const LARGEST_PART_SIZE: u64 = 5 << 30;
/// Smallest part that the services take in the middle of an object, in bytes.
const SMALLEST_PART_SIZE: u64 = 5 << 20;

/// `scheme://bucket/prefix`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) bucket: String,
    /// Without slashes around it; "" for the whole bucket.
    pub(super) prefix: String,
}

impl Address {
    /// Takes a URL apart.
    pub(super) fn of(stage: &str, scheme: &str, url: &str) -> Result<Self> {
        let wrong = |why: &str| {
            // Never the URL itself: people put secrets into it.
            Error::usage(stage.to_owned(), format!("its url {why}"))
                .next_step(format!("write it as {scheme}://bucket/prefix"))
        };
        let (found, rest) = url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        if !found.eq_ignore_ascii_case(scheme) {
            return Err(wrong(&format!("is no {scheme}:// URL")));
        }
        if rest.contains(['?', '#']) {
            return Err(wrong("has a query or a fragment: options go beside the url"));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains(['@', ':']) {
            return Err(Error::usage(
                stage.to_owned(),
                "a user, a password or a port is no part of a bucket's url",
            )
            .next_step(format!(
                "write {scheme}://bucket/prefix; an endpoint and secrets have settings of their own"
            )));
        }
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || !bucket.chars().all(fine) {
            return Err(wrong("names no bucket"));
        }
        let prefix = percent_encoding::percent_decode_str(prefix.trim_end_matches('/'))
            .decode_utf8()
            .map_err(|_| wrong("has a prefix that is not UTF-8"))?
            .into_owned();
        if !prefix.is_empty() && check_key(&prefix).is_err() {
            return Err(wrong("has a prefix that can't be a folder"));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix })
    }
}

/// A storage's settings, read by name.
#[derive(Clone, Copy)]
pub(super) struct Options<'a> {
    pub(super) stage: &'a str,
    pub(super) settings: &'a Settings,
}

impl Options<'_> {
    /// An option's text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.settings.options.get(name).cloned()
    }

    /// A secret's text.
    pub(super) fn secret(&self, name: &str) -> Option<String> {
        self.settings.secrets.get(name).map(|secret| secret.expose_secret().to_owned())
    }

    fn wrong(&self, name: &str, value: &str, want: &str) -> Error {
        Error::usage(self.stage.to_owned(), format!("the option {name} can't be {value:?}"))
            .next_step(format!("set it to {want}"))
    }

    /// An option that is "yes" or "no".
    pub(super) fn yes(&self, name: &str, default: bool) -> Result<bool> {
        match self.settings.options.get(name).map(String::as_str) {
            None => Ok(default),
            Some("yes" | "true") => Ok(true),
            Some("no" | "false") => Ok(false),
            Some(other) => Err(self.wrong(name, other, "\"yes\" or \"no\"")),
        }
    }

    /// An option that is one of a few words; the first is the default.
    pub(super) fn word<'w>(&self, name: &str, words: &[&'w str]) -> Result<&'w str> {
        let Some(value) = self.settings.options.get(name) else {
            return Ok(words.first().copied().unwrap_or_default());
        };
        let known = words.iter().find(|word| *word == value).copied();
        known.ok_or_else(|| self.wrong(name, value, &format!("one of: {}", words.join(", "))))
    }

    /// The option `part_size`, in bytes.
    pub(super) fn part_size(&self) -> Result<Option<u64>> {
        let Some(value) = self.settings.options.get("part_size") else { return Ok(None) };
        let want = "a size from 5MiB to 5GiB, such as \"64MiB\"";
        let size = bytes_of(value).ok_or_else(|| self.wrong("part_size", value, want))?;
        if (SMALLEST_PART_SIZE..=LARGEST_PART_SIZE).contains(&size) {
            return Ok(Some(size));
        }
        Err(self.wrong("part_size", value, want))
    }

    /// An endpoint, without a slash at its end. A bare host means https.
    pub(super) fn endpoint(&self) -> Result<Option<String>> {
        let Some(given) = self.text("endpoint") else { return Ok(None) };
        let want = "a URL such as https://storage.example.com";
        let url = if given.contains("://") { given.clone() } else { format!("https://{given}") };
        let parsed = reqwest::Url::parse(&url);
        let fine = parsed.is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
        });
        // A wrong endpoint may hold a password: it is not repeated.
        if !fine {
            return Err(Error::usage(self.stage.to_owned(), "the option endpoint is no plain URL")
                .next_step(format!("set it to {want}")));
        }
        Ok(Some(url.trim_end_matches('/').to_owned()))
    }
}

/// "64MiB", "100MB", "5242880".
fn bytes_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "B" => 1,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls() {
        for (url, bucket, prefix) in [
            ("s3://marb2-backups/production", "marb2-backups", "production"),
            ("S3://b.c/", "b.c", ""),
            ("s3://bucket", "bucket", ""),
            ("s3://bucket/a/b%20c/", "bucket", "a/b c"),
        ] {
            let address = Address::of("storage x", "s3", url).unwrap();
            assert_eq!((address.bucket.as_str(), address.prefix.as_str()), (bucket, prefix));
        }
    }

    #[test]
    fn bad_urls_say_why() {
        for (url, why) in [
            ("gs://bucket", "no s3:// URL"),
            ("bucket", "no scheme"),
            ("s3://", "no bucket"),
            ("s3:///prefix", "no bucket"),
            ("s3://bucket?region=x", "options go beside"),
            ("s3://bucket/a/../b", "can't be a folder"),
            ("s3://bucket//a", "can't be a folder"),
        ] {
            let error = Address::of("storage x", "s3", url).unwrap_err();
            assert!(error.message().contains(why), "{url}: {error}");
        }
        let error = Address::of("storage x", "s3", "s3://key:hunter2@bucket/a").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("5242880", 5 << 20), ("64MiB", 64 << 20), ("1 GiB", 1 << 30), ("8MB", 8_000_000)]
        {
            assert_eq!(bytes_of(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "8 parsecs", "99999999999GiB"] {
            assert_eq!(bytes_of(text), None, "{text}");
        }
    }
}
