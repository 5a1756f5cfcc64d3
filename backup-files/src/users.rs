//! Names of users and groups, as this host knows them; each is asked for once.

use std::collections::HashMap;

use nix::unistd::{Gid, Group, Uid, User};

use crate::archive::Owner;

/// What was asked so far.
#[derive(Debug, Default)]
pub(crate) struct Users {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
    user_ids: HashMap<String, Option<u32>>,
    group_ids: HashMap<String, Option<u32>>,
}

impl Users {
    pub(crate) fn user(&mut self, id: u32) -> Owner {
        let ask = || User::from_uid(Uid::from_raw(id)).ok().flatten().map(|user| user.name);
        Owner { id, name: self.users.entry(id).or_insert_with(ask).clone() }
    }

    pub(crate) fn group(&mut self, id: u32) -> Owner {
        let ask = || Group::from_gid(Gid::from_raw(id)).ok().flatten().map(|group| group.name);
        Owner { id, name: self.groups.entry(id).or_insert_with(ask).clone() }
    }

    pub(crate) fn user_named(&mut self, name: &str) -> Option<u32> {
        let ask = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        *self.user_ids.entry(name.to_owned()).or_insert_with(ask)
    }

    pub(crate) fn group_named(&mut self, name: &str) -> Option<u32> {
        let ask = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
        *self.group_ids.entry(name.to_owned()).or_insert_with(ask)
    }

    /// The number that an owner has on this host: by name where there is one, else the recorded.
    pub(crate) fn user_id(&mut self, owner: &Owner) -> u32 {
        owner.name.as_deref().and_then(|name| self.user_named(name)).unwrap_or(owner.id)
    }

    pub(crate) fn group_id(&mut self, owner: &Owner) -> u32 {
        owner.name.as_deref().and_then(|name| self.group_named(name)).unwrap_or(owner.id)
    }
}
