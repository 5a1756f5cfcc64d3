//! POSIX ACLs: between what the kernel keeps in an extended attribute and the text that stock
//! `tar --acls` writes and reads.

use crate::users::Users;

/// The extended attribute that holds a file's ACL.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The one that a directory hands on to new files.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// `user::rw-,user:www-data:r--,group::r--,mask::r--,other::---`. Names where the host has them.
/// `None` when these bytes are no ACL.
pub(crate) fn to_text(raw: &[u8], users: &mut Users) -> Option<String> {
    let (version, entries) = raw.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY_BYTES != 0 {
        return None;
    }
    let mut text = Vec::new();
    for entry in entries.chunks_exact(ENTRY_BYTES) {
        let [t0, t1, p0, p1, i0, i1, i2, i3] = *entry else { return None };
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let (kind, who) = match u16::from_le_bytes([t0, t1]) {
            USER_OBJ => ("user", String::new()),
            USER => ("user", users.user(id).label()),
            GROUP_OBJ => ("group", String::new()),
            GROUP => ("group", users.group(id).label()),
            MASK => ("mask", String::new()),
            OTHER => ("other", String::new()),
            _ => return None,
        };
        let permissions = u16::from_le_bytes([p0, p1]);
        let bit = |mask: u16, c: char| if permissions & mask != 0 { c } else { '-' };
        text.push(format!("{kind}:{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')));
    }
    Some(text.join(","))
}

/// The reverse. `Err` names the part that can't be said here: a user that this host lacks.
pub(crate) fn from_text(text: &str, users: &mut Users) -> Result<Vec<u8>, String> {
    let mut entries = Vec::new();
    for entry in text.split([',', '\n']).filter(|entry| !entry.trim().is_empty()) {
        entries.push(parse(entry.trim(), users).ok_or_else(|| entry.to_owned())?);
    }
    // The kernel wants them in this order.
    entries.sort_unstable_by_key(|(tag, _, id)| (*tag, *id));
    let mut raw = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        raw.extend_from_slice(&tag.to_le_bytes());
        raw.extend_from_slice(&permissions.to_le_bytes());
        raw.extend_from_slice(&id.to_le_bytes());
    }
    Ok(raw)
}

/// Leaves the owning group no more than what everybody may. Answers whether that took something.
pub(crate) fn close_to_group(raw: &mut [u8]) -> bool {
    let Some((_, entries)) = raw.split_first_chunk_mut::<4>() else { return false };
    let is = |entry: &[u8], tag: u16| entry.starts_with(&tag.to_le_bytes());
    let others = entries.chunks_exact(ENTRY_BYTES).find(|entry| is(entry, OTHER));
    // All permissions are in the first byte.
    let others = others.map_or(0, |entry| entry[2]);
    let mut took = false;
    for entry in entries.chunks_exact_mut(ENTRY_BYTES).filter(|entry| is(entry, GROUP_OBJ)) {
        took |= entry[2] & !others != 0;
        entry[2] &= others;
    }
    took
}

fn parse(entry: &str, users: &mut Users) -> Option<(u16, u16, u32)> {
    let mut parts = entry.splitn(3, ':');
    let (kind, who, word) = (parts.next()?, parts.next()?, parts.next()?);
    let mut permissions = 0;
    for c in word.chars() {
        permissions |= match c {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return None,
        };
    }
    let (tag, id) = match (kind, who) {
        ("user", "") => (USER_OBJ, NO_ID),
        ("user", who) => (USER, who.parse().ok().or_else(|| users.user_named(who))?),
        ("group", "") => (GROUP_OBJ, NO_ID),
        ("group", who) => (GROUP, who.parse().ok().or_else(|| users.group_named(who))?),
        ("mask", "") => (MASK, NO_ID),
        ("other", "") => (OTHER, NO_ID),
        _ => return None,
    };
    Some((tag, permissions, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_survives_as_text() {
        let mut users = Users::default();
        let text = "user::rw-,user:root:r--,user:4294900000:rwx,group::r--,group:4294900001:--x,mask::rwx,other::---";
        let raw = from_text(text, &mut users).unwrap();
        assert_eq!(raw.len(), 4 + 7 * ENTRY_BYTES);
        assert_eq!(to_text(&raw, &mut users).unwrap(), text);
    }

    #[test]
    fn a_foreign_group_gets_no_more_than_others() {
        let mut users = Users::default();
        let mut closed = |group: &str, other: &str| {
            let text = |group: &str| {
                format!("user::rwx,user:root:r--,group::{group},mask::rwx,other::{other}")
            };
            let mut raw = from_text(&text(group), &mut users).unwrap();
            let took = close_to_group(&mut raw);
            let now = to_text(&raw, &mut users).unwrap();
            (took, now.split(',').nth(2).unwrap().to_owned())
        };
        assert_eq!(closed("rw-", "r--"), (true, "group::r--".to_owned()));
        assert_eq!(closed("rwx", "---"), (true, "group::---".to_owned()));
        assert_eq!(closed("r--", "rwx"), (false, "group::r--".to_owned()));
    }

    #[test]
    fn what_this_host_lacks_is_named() {
        let text = "user::rw-,user:no-such-user-here:r--,group::r--,mask::r--,other::---";
        let fault = from_text(text, &mut Users::default()).unwrap_err();
        assert_eq!(fault, "user:no-such-user-here:r--");
        assert_eq!(to_text(b"\x01\0\0\0", &mut Users::default()), None);
        assert_eq!(to_text(b"\x02\0\0\0abc", &mut Users::default()), None);
    }
}
