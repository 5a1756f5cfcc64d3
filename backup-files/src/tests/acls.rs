//! Files with an ACL never come back more open than they were.

use std::os::unix::fs::MetadataExt;

use super::*;

/// With an ACL the group's bits of a mode are the mask: what `deploy` may, not the group.
#[tokio::test]
async fn an_acl_that_cannot_be_set_opens_nothing_to_the_group() {
    let place = Place::new();
    let deploy = "user:no-such-user-here:rwx,group::---,mask::r-x,other::---";
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut bytes = Vec::new();
    for (name, kind, mode) in [("etc", Kind::Directory, 0o750), ("etc/key", file(b""), 0o650)] {
        let attributes = Attributes {
            mode,
            owner: Owner { id: me.0, name: None },
            group: Owner { id: me.1, name: None },
            acl: Some(format!("user::rwx,{deploy}")),
            ..Attributes::default()
        };
        let path = name.as_bytes().to_vec();
        bytes.extend(head(&Entry { path, kind, attributes }).unwrap());
    }
    bytes.extend(END);

    let to = place.path("to");
    let report = restore(&bytes, options(FilesTarget::Folder(to.clone()))).await.unwrap();
    assert_eq!(report.unset.len(), 2, "{:?}", report.unset);
    assert!(report.unset.iter().all(|line| line.contains("the ACL, for user:no-such")));
    let mode = |name: &str| std::fs::metadata(to.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("etc"), mode("etc/key")), (0o700, 0o600));
}
