//! Patterns of table names as pg_dump's `--table` takes them.

use backup_core::{Error, Result};

/// The longest name that is compared when the nearest one is looked for, in characters.
const LONGEST_COMPARED: usize = 200;

/// `claims`, `audit.*`, `"Odd.Name"`: `*` stands for any characters, `?` for one. What is not in
/// double quotes is taken in lower case. Other signs stand for themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    schema: Option<Vec<Sign>>,
    name: Vec<Sign>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Is(char),
    One,
    Any,
}

impl Pattern {
    /// # Errors
    /// `Usage` when it is empty, has more than one dot, or a quote that is not closed.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage("tables", format!("{text:?} is no pattern of table names: {why}"))
                .next_step(
                    "write NAME or SCHEMA.NAME, with * for anything; quote odd names: '\"A.b\"'",
                )
        };
        let mut parts = vec![Vec::new()];
        let mut quoted = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let sign = match c {
                '"' if quoted && chars.next_if_eq(&'"').is_some() => Sign::Is('"'),
                '"' => {
                    quoted = !quoted;
                    continue;
                }
                c if quoted => Sign::Is(c),
                '.' => {
                    parts.push(Vec::new());
                    continue;
                }
                '*' => Sign::Any,
                '?' => Sign::One,
                // As the server folds names: ASCII only, whatever the locale.
                c => Sign::Is(c.to_ascii_lowercase()),
            };
            if let Some(part) = parts.last_mut() {
                part.push(sign);
            }
        }
        if quoted {
            return Err(wrong("a quote is not closed"));
        }
        if parts.iter().any(Vec::is_empty) {
            return Err(wrong("a name is empty"));
        }
        let (name, schema) = (parts.pop().unwrap_or_default(), parts.pop());
        if parts.is_empty() { Ok(Self { schema, name }) } else { Err(wrong("it has two dots")) }
    }

    /// Whether a table is meant.
    pub fn matches(&self, schema: &str, name: &str) -> bool {
        self.schema.as_ref().is_none_or(|signs| fits(signs, schema)) && fits(&self.name, name)
    }
}

/// Goes back to the last `*` only: its cost is the product of both lengths at most.
fn fits(signs: &[Sign], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut sign, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match signs.get(sign) {
            Some(Sign::Any) => {
                retry = Some((sign + 1, at));
                sign += 1;
                continue;
            }
            Some(Sign::One) => (sign, at) = (sign + 1, at + 1),
            Some(Sign::Is(c)) if *c == text[at] => (sign, at) = (sign + 1, at + 1),
            _ => {
                let Some((behind, start)) = retry else { return false };
                retry = Some((behind, start + 1));
                (sign, at) = (behind, start + 1);
            }
        }
    }
    signs[sign..].iter().all(|sign| *sign == Sign::Any)
}

/// Of `schema.name`s the one that `wanted` differs least from.
pub(super) fn nearest(wanted: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let wanted: Vec<char> = wanted.to_lowercase().chars().take(LONGEST_COMPARED).collect();
    let with_schema = wanted.contains(&'.');
    names.min_by_key(|full| {
        let name = full.split_once('.').map_or(full.as_str(), |(_, name)| name);
        let compared = if with_schema { full.as_str() } else { name };
        distance(&wanted, &compared.to_lowercase())
    })
}

/// Characters to change, add or take away.
fn distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, other) in b.chars().take(LONGEST_COMPARED).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, own) in a.iter().enumerate() {
            let change = diagonal + usize::from(*own != other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_pg_dump() {
        for (pattern, yes, no) in [
            ("claims", ["a.claims", "b.claims"], ["a.Claims", "a.claims2"]),
            ("Claims", ["a.claims", "b.claims"], ["a.Claims", "a.c"]),
            ("\"Claims\"", ["a.Claims", "b.Claims"], ["a.claims", "Claims.a"]),
            ("audit.*", ["audit.a", "audit.b*"], ["audit2.a", "a.audit"]),
            ("*.log_?", ["a.log_1", "b.log_ü"], ["a.log_", "a.log_12"]),
            ("\"a.b\".\"*\"\"\"", ["a.b.*\"", "a.b.*\""], ["a.b.x\"", "a.b.*"]),
            ("a*b*c", ["x.abc", "x.aXbbYc"], ["x.abcd", "x.acb"]),
            ("*", ["x.y", "z.ü"], ["none", "none"]),
            ("tab[1]$", ["x.tab[1]$", "x.tab[1]$"], ["x.tab1", "x.tab1$"]),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            let split = |full: &str| -> (String, String) {
                let (schema, name) = full.rsplit_once('.').unwrap_or(("", ""));
                (schema.to_owned(), name.to_owned())
            };
            for full in yes {
                let (schema, name) = split(full);
                assert!(parsed.matches(&schema, &name), "{pattern} {full}");
            }
            for full in no.iter().filter(|full| full.contains('.')) {
                let (schema, name) = split(full);
                assert!(!parsed.matches(&schema, &name), "{pattern} {full}");
            }
        }
        for wrong in ["", ".", "a.", ".a", "a.b.c", "\"a", "a..b"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_time() {
        let pattern = Pattern::parse(&"*a".repeat(60)).unwrap();
        assert!(!pattern.matches("x", &"a".repeat(59)));
        assert!(pattern.matches("x", &"ba".repeat(5000)));
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let names = || ["public.claims", "audit.log", "public.patients"].map(str::to_owned);
        for (wanted, meant) in
            [("claim", "public.claims"), ("audti.log", "audit.log"), ("Patiens", "public.patients")]
        {
            assert_eq!(nearest(wanted, names().into_iter()).unwrap(), meant);
        }
        assert_eq!(nearest("x", std::iter::empty()), None);
    }
}
