//! The user a server runs as when the caller is root: PostgreSQL refuses to be root.

use std::fs;
use std::path::Path;

use backup_core::{Error, Result};

use super::{STAGE, cannot};

/// Accounts a server may run as when the caller is root, best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The unprivileged user a server of root's runs as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Somebody other than root whom a server may run as.
pub(super) fn unprivileged_account() -> Result<Account> {
    let passwd = fs::read_to_string("/etc/passwd")
        .map_err(|e| cannot("read", Path::new("/etc/passwd"), e))?;
    UNPRIVILEGED.iter().find_map(|name| account_in(&passwd, name)).ok_or_else(|| {
        Error::failed(STAGE, "PostgreSQL does not run as root, and there is no user to run it as")
            .next_step("run this as another user, or `adduser --system postgres`")
    })
}

fn account_in(passwd: &str, name: &str) -> Option<Account> {
    let mut fields = passwd.lines().find(|l| l.split(':').next() == Some(name))?.split(':').skip(2);
    let account = Account { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? };
    (account.uid != 0).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_whole_name_and_never_root() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:/bin/sh\n\
                      postgres:x:101:104::/var/lib/postgresql:/bin/bash\ntoor:x:0:0::/:/bin/sh\n";
        let found = account_in(passwd, "postgres").unwrap();
        assert_eq!((found.uid, found.gid), (101, 104));
        assert!(account_in(passwd, "toor").is_none());
        assert!(account_in(passwd, "nobody").is_none());
    }
}
