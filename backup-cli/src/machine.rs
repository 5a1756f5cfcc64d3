//! Which machine this is, for backups of files: so that two hosts with one config never mix.

use backup_core::SourceIdentity;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::wiring;

/// Where Linux keeps the number of an installation; it is to be kept from the outside.
const MACHINE_ID: &str = "/etc/machine-id";
/// What the number is mixed with, so that nothing else derives the same name from it.
const PURPOSE: &[u8] = b"marb-backup files source";
/// So many bytes of the digest make the name.
const NAME_BYTES: usize = 16;

/// This host, as the source of files.
pub(crate) fn machine_identity() -> SourceIdentity {
    let id = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
    SourceIdentity {
        system_identifier: machine_name(id.trim()),
        database: String::new(),
        server: wiring::host_name(),
    }
}

/// A name that tells nothing of the number; `None` where a host has none.
fn machine_name(id: &str) -> Option<String> {
    if id.is_empty() || id == "uninitialized" {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(id.as_bytes()).ok()?;
    mac.update(PURPOSE);
    let digest = mac.finalize().into_bytes();
    Some(format!("machine-{}", hex::encode(&digest[..NAME_BYTES])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_machines_apart_and_not_their_number() {
        let [a, b] = ["0123456789abcdef0123456789abcdef", "1123456789abcdef0123456789abcdef"];
        let name = machine_name(a).unwrap();
        assert_eq!(machine_name(a).unwrap(), name);
        assert_ne!(machine_name(b).unwrap(), name);
        assert!(!name.contains(&a[..8]) && name.len() == "machine-".len() + 2 * NAME_BYTES);
        assert_eq!(machine_name(""), None);
    }
}
