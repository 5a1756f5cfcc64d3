//! Pax records: `LENGTH KEY=VALUE\n`, where a value may hold any bytes.

use std::collections::BTreeMap;

use backup_core::{Error, Result};

use super::{Attributes, Entry, Kind, Mtime};

const XATTR: &[u8] = b"SCHILY.xattr.";
const ACL: &[u8] = b"SCHILY.acl.access";
const DEFAULT_ACL: &[u8] = b"SCHILY.acl.default";

/// The records of one entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    pub(super) fn set(&mut self, key: &str, value: impl AsRef<[u8]>) {
        self.0.insert(key.as_bytes().to_vec(), value.as_ref().to_vec());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What no header block has room for.
    pub(super) fn of_attributes(attributes: &Attributes) -> Self {
        let mut records = Self::default();
        let Mtime { seconds, nanos } = attributes.mtime;
        if nanos > 0 || seconds < 0 {
            records.set("mtime", decimal(attributes.mtime));
        }
        for (name, value) in &attributes.xattrs {
            records.0.insert([XATTR, &escaped(name)].concat(), value.clone());
        }
        for (key, acl) in [(ACL, &attributes.acl), (DEFAULT_ACL, &attributes.default_acl)] {
            if let Some(acl) = acl {
                records.0.insert(key.to_vec(), acl.as_bytes().to_vec());
            }
        }
        records
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in &self.0 {
            let rest = 1 + key.len() + 1 + value.len() + 1;
            // The length counts its own digits.
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            bytes.extend_from_slice(format!("{length} ").as_bytes());
            for piece in [key, &b"="[..], value, b"\n"] {
                bytes.extend_from_slice(piece);
            }
        }
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self> {
        let broken = || Error::damaged("tar", "a pax record is broken");
        let mut records = BTreeMap::new();
        while !bytes.is_empty() {
            let blank = bytes.iter().position(|b| *b == b' ').ok_or_else(broken)?;
            let length: usize = number(&bytes[..blank]).ok_or_else(broken)?;
            let record = bytes.get(blank + 1..length).ok_or_else(broken)?;
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
            records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
            bytes = &bytes[length..];
        }
        Ok(Self(records))
    }

    /// Lets the records have their say over what the header block said.
    pub(super) fn apply(self, entry: &mut Entry) -> Result<()> {
        let broken = |key: &[u8]| {
            Error::damaged("tar", format!("the pax record {} is broken", super::shown(key)))
        };
        for (key, value) in self.0 {
            let text = || std::str::from_utf8(&value).map_err(|_| broken(&key)).map(str::to_owned);
            let a = &mut entry.attributes;
            match &key[..] {
                b"path" => entry.path = value,
                b"linkpath" => {
                    if let Kind::Link { target } = &mut entry.kind {
                        *target = value;
                    }
                }
                // Read before the entry was made: it says where the next one begins.
                b"size" => {}
                b"uid" => a.owner.id = number(&value).ok_or_else(|| broken(&key))?,
                b"gid" => a.group.id = number(&value).ok_or_else(|| broken(&key))?,
                b"uname" => a.owner.name = Some(text()?),
                b"gname" => a.group.name = Some(text()?),
                b"mtime" => a.mtime = time(&value).ok_or_else(|| broken(&key))?,
                ACL => a.acl = Some(text()?),
                DEFAULT_ACL => a.default_acl = Some(text()?),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        a.xattrs.insert(unescaped(name), value);
                    }
                }
            }
        }
        Ok(())
    }

    /// GNU tar's form of a file with holes, whose data is a map and pieces.
    pub(super) fn are_of_a_sparse_file(&self) -> bool {
        self.0.keys().any(|key| key.starts_with(b"GNU.sparse."))
    }

    pub(super) fn size(&self) -> Result<Option<u64>> {
        let broken = || Error::damaged("tar", "the pax record size is broken");
        self.0.get(&b"size"[..]).map(|value| number(value).ok_or_else(broken)).transpose()
    }
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn decimal(Mtime { seconds, nanos }: Mtime) -> String {
    // A second before 1970 and a half is -0.5, not -1.5.
    let (sign, seconds, nanos) = match (seconds < 0, nanos) {
        (false, nanos) => ("", seconds, nanos),
        (true, 0) => ("-", -seconds, 0),
        (true, nanos) => ("-", -(seconds + 1), 1_000_000_000 - nanos),
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn time(text: &[u8]) -> Option<Mtime> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = number(whole.as_bytes())?;
    let nanos: u32 = number(format!("{part:0<9}").get(..9)?.as_bytes())?;
    Some(match (negative, nanos) {
        (false, _) => Mtime { seconds, nanos },
        (true, 0) => Mtime { seconds: -seconds, nanos },
        (true, _) => Mtime { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// A name in a key must hold no `=`; GNU tar writes it like this.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::new();
    for byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            byte => key.push(*byte),
        }
    }
    key
}

fn unescaped(mut key: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    while let Some((first, rest)) = key.split_first() {
        let (byte, rest) = match key {
            [b'%', b'3', b'D', rest @ ..] => (b'=', rest),
            [b'%', b'2', b'5', rest @ ..] => (b'%', rest),
            _ => (*first, rest),
        };
        name.push(byte);
        key = rest;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_any_bytes_and_count_their_own_length() {
        for length in (0..200).chain([985, 986, 987, 988, 9_990, 9_995]) {
            let mut records = Records::default();
            records.set("key", vec![b'\n'; length]);
            records.set("path", b"a\n12 b=c\n\xff");
            assert_eq!(Records::decode(&records.encode()).unwrap(), records, "{length}");
        }
        assert_eq!(
            {
                let mut records = Records::default();
                records.set("mtime", "1.5");
                records.encode()
            },
            b"13 mtime=1.5\n"
        );
    }

    #[test]
    fn broken_records_are_damage() {
        for bytes in [&b"x"[..], b"9 a=b\n", b"5 a=b\n", b"6 a=b", b"6 abb\n", b"-6 a=b\n", b"0 "] {
            assert!(Records::decode(bytes).is_err(), "{}", super::super::shown(bytes));
        }
    }

    #[test]
    fn times_before_1970_and_parts_of_seconds_survive() {
        for (seconds, nanos, text) in [
            (1_700_000_000, 123_456_789, "1700000000.123456789"),
            (5, 0, "5"),
            (10, 500_000_000, "10.5"),
            (-1, 500_000_000, "-0.5"),
            (-2, 0, "-2"),
            (-3, 250_000_000, "-2.75"),
        ] {
            let mtime = Mtime { seconds, nanos };
            assert_eq!(decimal(mtime), text);
            assert_eq!(time(text.as_bytes()), Some(mtime));
        }
        assert_eq!(time(b"1.1234567891"), Some(Mtime { seconds: 1, nanos: 123_456_789 }));
        assert_eq!(time(b"soon"), None);
    }

    #[test]
    fn names_of_attributes_survive() {
        for name in [&b"user.a"[..], b"user.a=b", b"user.100%", b"user.%3D"] {
            let key = escaped(name);
            assert!(!key.contains(&b'='));
            assert_eq!(unescaped(&key), name);
        }
    }
}
