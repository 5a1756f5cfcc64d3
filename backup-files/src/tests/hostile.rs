//! Archives that somebody else wrote: nothing outside the target is touched.

use std::os::unix::fs::symlink;

use backup_core::ErrorKind;

use super::*;

/// A target with a neighbour that must stay as it is.
fn target() -> Place {
    let place = Place::new();
    place.write("neighbour/file", "mine");
    std::fs::create_dir(place.path("target")).unwrap();
    place
}

fn assert_untouched(place: &Place, what: &str) {
    assert_eq!(place.names(""), ["neighbour", "target"], "{what}");
    assert_eq!(place.names("neighbour"), ["file"], "{what}");
    assert_eq!(place.read("neighbour/file"), "mine", "{what}");
}

fn both(place: &Place) -> [FilesTarget; 2] {
    [FilesTarget::Folder(place.path("target")), FilesTarget::InPlace(place.path("target"))]
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let place = target();
    let absolute = place.inside("neighbour/file");
    for name in
        ["../neighbour/file", "a/../../neighbour/file", &absolute, "..", "a/..", "./a", "a//b", ""]
    {
        let bytes = by_hand(&[(name.as_bytes(), file(b"evil"), b"evil")]);
        for target in both(&place) {
            let error = restore(&bytes, options(target)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{name:?}: {error}");
            assert_untouched(&place, name);
            assert_eq!(place.names("target"), Vec::<String>::new());
        }
        assert!(check(&bytes).await.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn a_link_of_the_archive_is_no_way_out() {
    let place = target();
    let neighbour = link(&place.path("neighbour"));
    let up = link(Path::new("../neighbour"));
    for out in [neighbour, up] {
        let through: [&[ByHand<'_>]; 3] = [
            &[(b"a", out.clone(), b""), (b"a/file", file(b"evil"), b"evil")],
            &[(b"a/file", file(b"evil"), b"evil"), (b"a", out.clone(), b"")],
            &[(b"d/a", out.clone(), b""), (b"d/a/x/y", file(b"evil"), b"evil")],
        ];
        for entries in through {
            for target in both(&place) {
                let error = restore(&by_hand(entries), options(target)).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
                assert_untouched(&place, "link");
                assert_eq!(place.names("target"), Vec::<String>::new());
            }
        }
    }
    // Of two entries with one name the last counts: a link that a folder replaces is none.
    let replaced = by_hand(&[
        (b"a", link(&place.path("neighbour")), b""),
        (b"a", Kind::Directory, b""),
        (b"a/file", file(b"good"), b"good"),
    ]);
    restore(&replaced, options(FilesTarget::InPlace(place.path("target")))).await.unwrap();
    assert_untouched(&place, "replaced link");
    assert_eq!(place.read("target/a/file"), "good");
}

#[tokio::test]
async fn a_link_that_is_there_is_no_way_out() {
    let place = target();
    symlink(place.path("neighbour"), place.path("target/etc")).unwrap();
    let bytes = by_hand(&[(b"etc/file", file(b"evil"), b"evil")]);
    for target in both(&place) {
        let error = restore(&bytes, options(target)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.message().contains("/etc/file lies behind a link"), "{error}");
        assert_untouched(&place, "existing link");
    }
    // A link in the very place is replaced, not followed.
    let bytes = by_hand(&[(b"etc", file(b"plain"), b"plain")]);
    let in_place = options(FilesTarget::InPlace(place.path("target")));
    restore(&bytes, in_place).await.unwrap();
    assert_untouched(&place, "replaced");
    assert_eq!(place.read("target/etc"), "plain");
    assert!(place.path("target/.etc.before-RUN").is_symlink());
}

#[tokio::test]
async fn a_link_that_appears_between_the_two_readings_is_no_way_out() {
    let place = target();
    let bytes = by_hand(&[(b"etc/file", file(b"evil"), b"evil")]);
    let in_place = options(FilesTarget::InPlace(place.path("target")));
    let planned = plan(&bytes, in_place).await.unwrap();
    symlink(place.path("neighbour"), place.path("target/etc")).unwrap();
    feed(&bytes, Arc::new(FilesRestore::new(planned))).await.unwrap_err();
    assert_untouched(&place, "link that appeared");
}

#[tokio::test]
async fn an_archive_that_changed_between_the_two_readings_replaces_nothing() {
    let place = target();
    place.write("target/a", "old");
    place.write("target/b", "old");
    let names: [&[u8]; 2] = [b"a", b"b"];
    let archive = |b: &[u8]| by_hand(&[(names[0], file(b"new"), b"new"), (names[1], file(b), b)]);
    let in_place = options(FilesTarget::InPlace(place.path("target")));
    for other in [&b"bad"[..], b"worse"] {
        let planned = plan(&archive(b"new"), in_place.clone()).await.unwrap();
        let error = feed(&archive(other), Arc::new(FilesRestore::new(planned))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert_eq!(place.names("target"), ["a", "b"], "nothing is left");
        assert_eq!((place.read("target/a"), place.read("target/b")), ("old".into(), "old".into()));
    }
    let planned = plan(&archive(b"new"), in_place).await.unwrap();
    let half = by_hand(&[(names[0], file(b"new"), b"new")]);
    feed(&half, Arc::new(FilesRestore::new(planned))).await.unwrap_err();
    assert_eq!(place.names("target"), ["a", "b"], "nothing is left");
    assert_eq!(place.read("target/a"), "old");
}

#[tokio::test]
async fn a_cut_or_changed_archive_is_damaged() {
    let bytes = by_hand(&[
        (b"etc", Kind::Directory, b""),
        (b"etc/a", file(b"hello"), b"hello"),
        ([b'n'; 150].as_slice(), file(b"long"), b"long"),
    ]);
    check(&bytes).await.unwrap();
    for cut in (0..bytes.len()).step_by(256) {
        assert!(check(&bytes[..cut]).await.is_err(), "cut at {cut}");
    }
    let end = bytes.len() - END.len();
    assert!(check(&[&bytes[..], b"x"].concat()).await.is_err(), "something behind the end");
    check(&[&bytes[..], &[0; 8192]].concat()).await.unwrap();
    assert!(check(&bytes[..end + 512]).await.is_err(), "one block of zeros is no end");
    // Every byte of a header is guarded by its sum.
    for at in (0..512).filter(|at| !(500..512).contains(at)) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let found = check(&changed).await;
        assert!(found.is_err(), "byte {at} of a header: {found:?}");
    }
}

#[tokio::test]
async fn what_this_version_does_not_know_is_not_called_good() {
    for kind in [b'1', b'3', b'4', b'6', b'7', b'g', b'L', b'S'] {
        let mut bytes = by_hand(&[(b"a", file(b""), b"")]);
        bytes[156] = kind;
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&bytes[..512]);
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        let error = check(&bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unchecked, "{}", char::from(kind));
    }
    let place = target();
    let mut tar = std::process::Command::new("tar");
    let made = tar.args(["--format=gnu", "-cf", "-", "-C"]).arg(&place.folder).arg("neighbour");
    let error = check(&made.output().unwrap().stdout).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unchecked, "{error}");
}
