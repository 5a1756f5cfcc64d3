//! What the source finds, and what it refuses to leave out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use backup_core::{ErrorKind, Source};

use super::*;
use crate::archive::Tally;
use crate::folder::Folder;
use crate::reading::{Pace, Reading, WHOLE_BYTES};
use crate::select::Found;
use crate::users::Users;

fn paths(contents: &FilesContents) -> Vec<&str> {
    contents.listed.iter().map(|file| file.path.rsplit('/').next().unwrap()).collect()
}

async fn contents(selection: FilesSelection) -> Result<FilesContents> {
    let (bytes, findings) = archive(selection).await?;
    let written = findings.inventory.files.unwrap();
    assert!(written.same_files(&check(&bytes).await?), "what is read back is what was written");
    Ok(written)
}

#[tokio::test]
async fn patterns_find_hidden_names_and_names_that_are_no_text() {
    let place = Place::new();
    place.write("app/.env", "secret");
    place.write("app/b c", "");
    std::fs::write(place.path("app").join(OsStr::from_bytes(b"\xff*")), "x").unwrap();
    place.write("app/deep/er/x.conf", "");
    let found = contents(selection(&[&place.path("app/*")])).await.unwrap();
    assert_eq!(paths(&found), [".env", "b c", "deep", "er", "x.conf", "\\xFF*"]);
    let found = contents(selection(&[&place.path("**/*.conf")])).await.unwrap();
    assert_eq!(paths(&found), ["x.conf"]);
    let found = contents(selection(&[&place.path("app/{.env,b?c}")])).await.unwrap();
    assert_eq!(paths(&found), [".env", "b c"]);
    let excluding = FilesSelection {
        exclude: vec!["deep".into(), "?c".into()],
        ..selection(&[&place.path("app")])
    };
    assert_eq!(paths(&contents(excluding).await.unwrap()), ["app", ".env", "b c", "\\xFF*"]);
}

#[tokio::test]
async fn what_is_missing_is_named_and_what_is_optional_only_noted() {
    let place = Place::new();
    place.write("here", "");
    let mut wanted = selection(&[&place.path("here"), &place.path("gone"), &place.path("no*")]);
    let error = contents(wanted.clone()).await.unwrap_err();
    for name in [place.inside("gone"), place.inside("no*")] {
        assert!(error.message().contains(&name), "{error}");
    }
    assert!(!error.message().contains(&place.inside("here")), "{error}");
    wanted.optional = wanted.paths.split_off(1);
    let (_, findings) = archive(wanted).await.unwrap();
    let found = findings.inventory.files.unwrap();
    assert_eq!(found.missing, [place.inside("gone"), place.inside("no*")]);
    assert_eq!(findings.notes.len(), 1);
    assert!(!findings.notes[0].contains("gone"), "a note is public: {:?}", findings.notes);
}

#[tokio::test]
async fn what_is_excluded_does_not_stand_for_its_pattern() {
    let place = Place::new();
    place.write("app/.env", "");
    let wanted =
        FilesSelection { exclude: vec![".env".into()], ..selection(&[&place.path("app/.env")]) };
    assert!(contents(wanted).await.unwrap_err().message().contains("there is nothing at"));
}

#[tokio::test]
async fn what_is_no_file_is_skipped_and_links_are_not_followed() {
    let place = Place::new();
    place.write("app/real", "x");
    place.write("elsewhere", "y");
    symlink("real", place.path("app/inside")).unwrap();
    symlink(place.path("elsewhere"), place.path("app/outside")).unwrap();
    symlink("app", place.path("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("app/socket")).unwrap();
    let found = contents(selection(&[&place.path("app/*")])).await.unwrap();
    assert_eq!(paths(&found), ["inside", "outside", "real"]);
    assert_eq!((found.files, found.links, found.skipped_count), (1, 2, 1));
    assert_eq!(found.skipped, [place.inside("app/socket")]);
    assert_eq!(found.links_outside, [place.inside("app/outside")]);
    // The folder of a name is stored by its real path: there is no link on the way back.
    let found = contents(selection(&[&place.path("folder/real")])).await.unwrap();
    assert_eq!(format!("/{}", found.listed[0].path), place.inside("app/real"));
}

#[tokio::test]
async fn what_cannot_be_read_fails_even_when_it_is_optional() {
    if is_root() {
        // Root reads everything; the test of the whole program runs as somebody else.
        return;
    }
    let place = Place::new();
    place.write("closed/in/file", "");
    place.write("file", "");
    for name in ["file", "closed/in"] {
        std::fs::set_permissions(place.path(name), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    for pattern in ["file", "closed", "closed/in/file", "closed/in/*"] {
        let optional = vec![place.inside(pattern)];
        let wanted = FilesSelection { optional, ..FilesSelection::default() };
        let error = contents(wanted).await.unwrap_err();
        assert!(error.message().contains("can't be read"), "{pattern}: {error}");
    }
    std::fs::set_permissions(place.path("closed/in"), std::fs::Permissions::from_mode(0o700))
        .unwrap();
}

#[tokio::test]
async fn patterns_that_make_no_sense_are_refused() {
    for text in ["etc/x", "/", "/a/../b", "/a/[", "/{a/b}"] {
        let wanted = FilesSelection { paths: vec![text.into()], ..FilesSelection::default() };
        assert_eq!(wanted.check().unwrap_err().kind(), ErrorKind::Usage, "{text}");
    }
}

/// Reads a file that is written to whenever the reader waits for it to stand still, so many
/// times.
fn read_restless(place: &Place, times: u32) -> Result<FilesContents> {
    let log = place.path("log");
    let mut left = times;
    let writing = log.clone();
    let pause = move |_| {
        if left > 0 {
            left -= 1;
            std::fs::write(&writing, left.to_string().repeat(1000)).unwrap();
        }
    };
    // Whatever was written within the hour counts as written just now.
    let pace = Pace { tick: Duration::from_secs(3600), pause: Box::new(pause) };
    let (users, tally) = (Users::default(), Tally::default());
    let root = Folder::open(Path::new("/")).unwrap();
    let mut output = Vec::new();
    let mut reading = Reading { pace, root, users, tally, output: &mut output };
    reading.add(log.to_str().unwrap().trim_start_matches('/').as_bytes(), Found::File)?;
    Ok(reading.tally.finish())
}

#[test]
fn a_file_that_never_stands_still_fails_and_is_named() {
    let place = Place::new();
    place.write("log", "l");
    let found = read_restless(&place, 3).unwrap();
    assert_eq!((found.files, found.bytes), (1, 1000), "the fourth reading counts");
    let error = read_restless(&place, 4).unwrap_err();
    assert!(error.message().contains(&place.inside("log")), "{error}");
    assert!(error.advice().unwrap().contains("exclude"), "{error:?}");
}

#[tokio::test]
async fn a_large_file_that_changes_is_read_again_and_the_last_reading_counts() {
    let place = Place::new();
    let size = WHOLE_BYTES as usize + 5_000_000;
    for (new_size, changed) in [(size, b'b'), (size - 3_000_000, b's'), (size + 70_000, b'l')] {
        place.write("large", vec![b'a'; size]);
        let source = FilesSource::new(selection(&[&place.path("large")]));
        let mut stream = source.open().await.unwrap();
        let mut bytes = stream.next_chunk().await.unwrap().unwrap().to_vec();
        // The reader is a few chunks ahead and waits: the file changes under its hands.
        let before = std::fs::metadata(place.path("large")).unwrap().ino();
        let writer = std::fs::OpenOptions::new().write(true).open(place.path("large")).unwrap();
        writer.set_len(new_size as u64).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&writer, &[changed], 4_000_000).unwrap();
        drop(writer);
        assert_eq!(std::fs::metadata(place.path("large")).unwrap().ino(), before);
        while let Some(chunk) = stream.next_chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        let found = stream.findings().inventory.files.unwrap();
        assert_eq!((found.files, found.superseded), (1, 1));
        assert_eq!(found.bytes, new_size as u64);
        assert!(found.same_files(&check(&bytes).await.unwrap()));
        let to = place.path("to");
        restore(&bytes, options(FilesTarget::Folder(to.clone()))).await.unwrap();
        let back = std::fs::read(to.join(place.path("large").strip_prefix("/").unwrap())).unwrap();
        assert!(back == std::fs::read(place.path("large")).unwrap(), "{new_size}");
        std::fs::remove_dir_all(to).unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_nobody_listens_to_ends() {
    let place = Place::new();
    place.write("large", vec![b'a'; 4 * WHOLE_BYTES as usize]);
    let source = FilesSource::new(selection(&[&place.path("large")]));
    let mut stream = source.open().await.unwrap();
    stream.next_chunk().await.unwrap();
    // The runtime waits for its threads at the end of this test.
    drop(stream);
}
