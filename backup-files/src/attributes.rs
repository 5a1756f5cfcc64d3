//! What belongs to a file beside its content: read from it, set on another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use crate::archive::{Attributes, Kind, Mtime, acl, shown};
use crate::folder::{Folder, Look};
use crate::users::Users;

/// Set-user-id, set-group-id: meant for the owner they had, and for nobody else.
const SET_ID_BITS: u32 = 0o6000;
/// What is not set where the group is another one.
const GROUP_RIGHTS: &str = "the rights of its group";

/// The attributes of an open file or folder.
pub(crate) fn of_open(file: &File, look: &Look, users: &mut Users) -> io::Result<Attributes> {
    let mut attributes = of_look(look, users);
    let mut xattrs = xattrs(file)?;
    let mut acl = |name: &[u8]| match xattrs.remove(name) {
        Some(raw) => match acl::to_text(&raw, users) {
            Some(text) => Ok(Some(text)),
            None => Err(io::Error::other("it has an ACL that is not understood")),
        },
        None => Ok(None),
    };
    attributes.acl = acl(acl::ACCESS)?;
    attributes.default_acl = acl(acl::DEFAULT)?;
    attributes.xattrs = xattrs;
    Ok(attributes)
}

/// The attributes that no file needs to be opened for: all that a symbolic link has.
pub(crate) fn of_look(look: &Look, users: &mut Users) -> Attributes {
    Attributes {
        mode: look.mode,
        owner: users.user(look.uid),
        group: users.group(look.gid),
        mtime: Mtime { seconds: look.mtime.0, nanos: look.mtime.1 },
        ..Attributes::default()
    }
}

fn xattrs(file: &File) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let names = match read_growing(|buffer| rustix::fs::flistxattr(file, buffer)) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(found),
        Err(e) => return Err(e.into()),
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match read_growing(|buffer| rustix::fs::fgetxattr(file, name, buffer)) {
            Ok(value) => {
                found.insert(name.to_vec(), value);
            }
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

/// Calls with more and more room: the kernel holds at most 64 KiB of either.
fn read_growing(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 1024];
    loop {
        match read(&mut buffer) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() <= 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            Err(e) => return Err(e),
        }
    }
}

/// Sets everything on an open file or folder. Answers what could not be set, in words; the
/// file is never more open than it was meant to be.
pub(crate) fn set_on_open(
    file: &File,
    attributes: &Attributes,
    users: &mut Users,
) -> io::Result<Vec<String>> {
    let mut unset = Vec::new();
    let (uid, gid) = (users.user_id(&attributes.owner), users.group_id(&attributes.group));
    let mut mode = attributes.mode;
    // Before the mode: a change of owner clears set-user-id.
    let owned = own(file, uid, gid)?;
    if owned != Owned::Both {
        unset.push(not_owned(attributes));
        if mode & SET_ID_BITS != 0 {
            mode &= !SET_ID_BITS;
            unset.push("set-user-id and set-group-id, without their owner".to_owned());
        }
    }
    // Another group must not get what was meant for that one.
    let for_strangers = mode & 0o007;
    if attributes.acl.is_some() {
        // These bits are the ACL's mask, not what the group may: only the ACL itself sets them.
        mode &= !0o070;
    } else if owned == Owned::Neither && mode & 0o070 & !(for_strangers << 3) != 0 {
        mode &= !0o070 | for_strangers << 3;
        unset.push(GROUP_RIGHTS.to_owned());
    }
    for name in xattrs(file)?.keys() {
        let is_acl = name == acl::ACCESS || name == acl::DEFAULT;
        if !is_acl && !attributes.xattrs.contains_key(name) && name.starts_with(b"user.") {
            let _ = rustix::fs::fremovexattr(file, &name[..]);
        }
    }
    for (name, value) in &attributes.xattrs {
        if rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()).is_err() {
            unset.push(format!("the extended attribute {}", shown(name)));
        }
    }
    // What a folder's default ACL gave to it; with the mode it would come to life.
    let _ = rustix::fs::fremovexattr(file, acl::ACCESS);
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    // After the mode, which would change the mask.
    let acls = [
        (acl::ACCESS, &attributes.acl, "ACL"),
        (acl::DEFAULT, &attributes.default_acl, "default ACL"),
    ];
    for (name, text, what) in acls {
        let foreign_group = owned == Owned::Neither && name == acl::ACCESS;
        set_acl(file, name, text.as_deref(), what, foreign_group, users, &mut unset);
    }
    set_mtime_on_open(file, attributes.mtime)?;
    Ok(unset)
}

fn set_acl(
    file: &File,
    name: &[u8],
    text: Option<&str>,
    what: &str,
    foreign_group: bool,
    users: &mut Users,
    unset: &mut Vec<String>,
) {
    let Some(text) = text else {
        // None to remove is as good.
        let _ = rustix::fs::fremovexattr(file, name);
        return;
    };
    match acl::from_text(text, users) {
        Ok(mut raw) => {
            if foreign_group && acl::close_to_group(&mut raw) {
                unset.push(GROUP_RIGHTS.to_owned());
            }
            if rustix::fs::fsetxattr(file, name, &raw, XattrFlags::empty()).is_err() {
                unset.push(format!("the {what}"));
            }
        }
        Err(entry) => unset.push(format!("the {what}, for {entry}")),
    }
}

pub(crate) fn set_mtime_on_open(file: &File, mtime: Mtime) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &times(mtime))?)
}

/// Sets what a symbolic link has.
pub(crate) fn set_on_link(
    folder: &Folder,
    name: &[u8],
    attributes: &Attributes,
    users: &mut Users,
) -> io::Result<Vec<String>> {
    let (uid, gid) = (users.user_id(&attributes.owner), users.group_id(&attributes.group));
    let mut unset = Vec::new();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::chownat(folder, name, Some(uid), Some(gid), nofollow) {
        Ok(()) => {}
        Err(Errno::PERM | Errno::INVAL) => unset.push(not_owned(attributes)),
        Err(e) => return Err(e.into()),
    }
    rustix::fs::utimensat(folder, name, &times(attributes.mtime), nofollow)?;
    Ok(unset)
}

/// What of an owner could be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owned {
    Both,
    Group,
    Neither,
}

/// Gives a file away, or at least to its group, as far as this user may.
fn own(file: &impl AsFd, uid: u32, gid: u32) -> io::Result<Owned> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    match rustix::fs::fchown(file, Some(uid), Some(gid)) {
        Ok(()) => Ok(Owned::Both),
        // INVAL: in a user namespace that has no such number.
        Err(Errno::PERM | Errno::INVAL) => {
            let group = rustix::fs::fchown(file, None, Some(gid));
            Ok(if group.is_ok() { Owned::Group } else { Owned::Neither })
        }
        Err(e) => Err(e.into()),
    }
}

fn not_owned(attributes: &Attributes) -> String {
    format!("the owner {}:{}", attributes.owner.label(), attributes.group.label())
}

fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) },
    }
}

/// Which attributes differ, in words; nothing where they are the same. The time alone is no
/// reason to replace a file.
pub(crate) fn differences(
    now: &Attributes,
    wanted: &Attributes,
    kind: &Kind,
    users: &mut Users,
) -> Vec<String> {
    let mut differ = Vec::new();
    if now.mode != wanted.mode && !matches!(kind, Kind::Link { .. }) {
        differ.push(format!("mode {:04o}, was {:04o} in the backup", now.mode, wanted.mode));
    }
    let owner = (users.user_id(&wanted.owner), users.group_id(&wanted.group));
    if (now.owner.id, now.group.id) != owner {
        differ.push(format!(
            "owner {}:{}, was {}:{}",
            now.owner.label(),
            now.group.label(),
            wanted.owner.label(),
            wanted.group.label()
        ));
    }
    if now.xattrs != wanted.xattrs {
        differ.push("extended attributes".to_owned());
    }
    if now.acl != wanted.acl || now.default_acl != wanted.default_acl {
        differ.push("ACL".to_owned());
    }
    differ
}
