//! Tells an encrypted OpenPGP message from everything else by its first bytes.

/// Bytes that [`recognise`] wants to see; fewer are enough where the data is shorter.
pub const RECOGNISE_BYTES: usize = 64;

/// `Some("openpgp")`, the name of the transform, when data starting with `prefix` is an encrypted
/// OpenPGP message, binary or armored.
///
/// A first byte proves little (in UTF-8 text every `é` would pass), so the packet behind it must
/// look like one that opens an encrypted message: a session key packet of a known version, with
/// algorithms that exist, or the encrypted data itself.
///
/// Absent on purpose: the "symmetrically encrypted data" of the nineties (tag 9) standing alone.
/// It has nothing to be known by, and is refused anyway.
///
/// ```
/// use backup_crypto::recognise;
/// assert_eq!(recognise(b"-----BEGIN PGP MESSAGE-----\n"), Some("openpgp"));
/// assert_eq!(recognise(b"PGDMP\x01\x0e"), None);
/// ```
pub fn recognise(prefix: &[u8]) -> Option<&'static str> {
    (is_armored(prefix) || is_binary(prefix).unwrap_or(false)).then_some("openpgp")
}

fn is_armored(prefix: &[u8]) -> bool {
    prefix.trim_ascii_start().starts_with(b"-----BEGIN PGP MESSAGE")
}

/// `None` when the prefix is too short to tell.
fn is_binary(prefix: &[u8]) -> Option<bool> {
    let (tag, body) = first_packet(prefix)?;
    let body = |index: usize| body.get(index).copied();
    Some(match tag {
        // Public-key encrypted session key: version, eight bytes of key id, algorithm.
        1 => match body(0)? {
            3 => matches!(body(9)?, 1 | 2 | 16 | 18 | 25 | 26),
            6 => matches!(body(1)?, 0 | 21 | 33),
            _ => false,
        },
        // Symmetric-key encrypted session key: version, cipher, the way to the key.
        3 => match body(0)? {
            4 => is_cipher(body(1)?) && is_way_to_key(body(2)?, body(3)?),
            5 => is_cipher(body(1)?) && matches!(body(2)?, 1..=3),
            6 => is_cipher(body(2)?) && matches!(body(3)?, 1..=3),
            _ => false,
        },
        // Encrypted data with integrity protection.
        18 => match body(0)? {
            1 => true,
            2 => is_cipher(body(1)?) && matches!(body(2)?, 1..=3),
            _ => false,
        },
        // GnuPG's own AEAD.
        20 => body(0)? == 1 && is_cipher(body(1)?) && matches!(body(2)?, 1 | 2),
        _ => false,
    })
}

fn is_cipher(number: u8) -> bool {
    matches!(number, 1..=4 | 7..=13)
}

/// Simple, salted or iterated with a hash that exists, or Argon2.
fn is_way_to_key(way: u8, hash: u8) -> bool {
    match way {
        0 | 1 | 3 => matches!(hash, 1..=3 | 8..=14),
        4 => true,
        _ => false,
    }
}

/// Tag and beginning of the body of the packet that stands first.
fn first_packet(prefix: &[u8]) -> Option<(u8, &[u8])> {
    let (&first, rest) = prefix.split_first()?;
    let (tag, length_bytes) = match first {
        0xc0.. => {
            let bytes = match rest.first()? {
                192..=223 => 2,
                255 => 5,
                // One byte, or a partial length, which is one byte as well.
                _ => 1,
            };
            (first & 0x3f, bytes)
        }
        0x80..=0xbf => ((first >> 2) & 0xf, [1, 2, 4, 0][usize::from(first & 3)]),
        _ => return None,
    };
    Some((tag, rest.get(length_bytes..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backup_folder_holds_besides_is_not_taken_for_openpgp() {
        let mut tar = [0; 512];
        tar[..8].copy_from_slice(b"etc/conf");
        tar[257..262].copy_from_slice(b"ustar");
        let others: [&[u8]; 12] = [
            b"",
            b"\xc3",
            b"PGDMP\x01\x0e\x00\x04\x08",
            b"-- PostgreSQL database dump\n",
            b"--\n-- PostgreSQL database cluster dump\n",
            "\u{e9}l\u{e8}ve,note\n".as_bytes(),
            "\u{d2}\u{1}".as_bytes(),
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
            b"\x28\xb5\x2f\xfd\x04\x58",
            b"\xef\xbb\xbfCREATE TABLE",
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----",
            &tar,
        ];
        for other in others {
            assert_eq!(recognise(other), None, "{other:.20?}");
        }
    }

    #[test]
    fn text_in_any_script_is_not_taken_for_openpgp() {
        for first in 0x80..0x3000u32 {
            for second in ["\t", "a", "\u{e9}", "\r\n"] {
                let Some(first) = char::from_u32(first) else { continue };
                let text = format!("{first}{second} some text behind it");
                assert_eq!(recognise(text.as_bytes()), None, "{text:?}");
            }
        }
    }

    #[test]
    fn packets_that_open_a_message_are_known() {
        let rsa = b"\x85\x01\x8c\x03\x01\x02\x03\x04\x05\x06\x07\x08\x01\x0c\x00";
        assert_eq!(recognise(rsa), Some("openpgp"));
        assert_eq!(recognise(b"\x8c\x0d\x04\x09\x03\x02\xaa\xbb"), Some("openpgp"));
        assert_eq!(recognise(b"\xc3\x2e\x04\x09\x03\x08"), Some("openpgp"));
        assert_eq!(recognise(b"\xd2\xea\x01\x11\x22"), Some("openpgp"));
        assert_eq!(recognise(b"\r\n-----BEGIN PGP MESSAGE-----\r\n"), Some("openpgp"));
    }
}
