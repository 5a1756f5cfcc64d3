//! Archives that stock tar wrote, in its own formats.

use std::process::Command;

use backup_core::ErrorKind;

use super::*;

/// What `tar ARGUMENTS` writes, run in a folder.
fn tar(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let made = Command::new("tar").current_dir(folder).args(["-cf", "-"]).args(arguments).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

/// A deployment's files, with everything that a format has to write in a way of its own.
fn deployment() -> Place {
    let place = Place::new();
    place.write("from/.env", "SECRET=42\n");
    place.write("from/etc/nginx/sites-available/marb", "server {}\n");
    std::fs::create_dir_all(place.path("from/etc/nginx/sites-enabled")).unwrap();
    let enabled = place.path("from/etc/nginx/sites-enabled/marb");
    std::os::unix::fs::symlink("../sites-available/marb", enabled).unwrap();
    let long = format!("from/{}/{}", "folder".repeat(20), "name".repeat(40));
    place.write(&long, "x".repeat(3_000));
    std::os::unix::fs::symlink("t/".repeat(120), place.path("from/long-link")).unwrap();
    place.write("from/empty", "");
    place
}

/// Name, and content, target or nothing, of everything below a folder.
fn tree(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            let content = if path.is_symlink() {
                Some(std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
            } else if path.is_dir() {
                folders.push(path.clone());
                None
            } else {
                Some(std::fs::read(&path).unwrap())
            };
            found.push((path.strip_prefix(folder).unwrap().to_owned(), content));
        }
    }
    found.sort();
    found
}

fn as_stock(place: &Place, to: &str) -> FilesRestoreOptions {
    let target = FilesTarget::Folder(place.path(to));
    FilesRestoreOptions { dialect: Dialect::Stock, ..options(target) }
}

#[tokio::test]
async fn what_stock_tar_writes_comes_back_in_every_format() {
    let place = deployment();
    let from = place.path("from");
    let was = tree(&from);
    let absolute = place.inside("from");
    for format in ["gnu", "oldgnu", "posix"] {
        let format = format!("--format={format}");
        for (arguments, below) in [
            (&["."][..], ""),
            (&["./"], ""),
            (&["-P", &absolute], &absolute[1..]),
            (&[".//etc/", "./etc/.", "."], ""),
        ] {
            let bytes = tar(&from, &[&[&*format], arguments].concat());
            let to = format!("to-{}", bytes.len());
            let found = check_as(Dialect::Stock, &bytes).await.unwrap();
            assert_eq!((found.files, found.links), (4, 2), "{arguments:?}");
            restore(&bytes, as_stock(&place, &to)).await.unwrap();
            let same = tree(&place.path(&to).join(below)) == was;
            assert!(same, "{format} {arguments:?}");
            std::fs::remove_dir_all(place.path(&to)).unwrap();
        }
    }
}

/// GNU tar stores a file a second time as another name of the first.
#[tokio::test]
async fn second_names_of_a_file_become_files() {
    let place = deployment();
    let from = place.path("from");
    std::fs::hard_link(from.join(".env"), from.join("other.env")).unwrap();
    std::fs::hard_link(from.join("long-link"), from.join("other-link")).unwrap();
    let sites = "etc/nginx/sites-available/marb";
    // -h: what a link leads to is the same file as the one that lies there.
    let followed = ["-h", "--exclude=*link", ".env", "other.env", "etc", sites, ".env"];
    let kept = [".env", "other.env", "long-link", "other-link", sites, sites];
    for (case, arguments) in [&followed[..], &kept].into_iter().enumerate() {
        let bytes = tar(&from, arguments);
        let all = format!("all-{case}");
        restore(&bytes, as_stock(&place, &all)).await.unwrap();
        for name in [".env", "other.env", sites] {
            let restored = place.read(&format!("{all}/{name}"));
            assert_eq!(restored, place.read(&format!("from/{name}")), "{name}");
        }
        // The second name alone, whose data comes with the first one.
        let only = FilesRestoreOptions {
            paths: vec!["other.env".to_owned()],
            ..as_stock(&place, &format!("only-{case}"))
        };
        let report = restore(&bytes, only).await.unwrap();
        assert_eq!(report.bytes, 10);
        assert_eq!(place.names(&format!("only-{case}")), ["other.env"]);
        assert_eq!(place.read(&format!("only-{case}/other.env")), "SECRET=42\n");
    }
    assert_eq!(place.read("all-0/etc/nginx/sites-enabled/marb"), "server {}\n");
    assert_eq!(
        std::fs::read_link(place.path("all-1/other-link")).unwrap(),
        std::fs::read_link(place.path("from/long-link")).unwrap()
    );

    // In place, only what differs is written, whichever name has the data.
    let bytes = tar(&from, &[".env", "other.env"]);
    place.write("place/.env", "SECRET=42\n");
    place.write("place/other.env", "wrong\n");
    let target = FilesTarget::InPlace(place.path("place"));
    let in_place = FilesRestoreOptions { dialect: Dialect::Stock, ..options(target) };
    restore(&bytes, in_place).await.unwrap();
    assert_eq!(place.read("place/other.env"), "SECRET=42\n");
    assert_eq!(place.read("place/.other.env.before-RUN"), "wrong\n");
}

#[tokio::test]
async fn a_second_name_of_nothing_is_damage() {
    let place = deployment();
    std::fs::hard_link(place.path("from/.env"), place.path("from/a.env")).unwrap();
    let mut bytes = tar(&place.path("from"), &["a.env", ".env"]);
    // The first entry gets another name.
    bytes[0] = b'b';
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    let error = check_as(Dialect::Stock, &bytes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.message().contains("\".env\" is the same file as \"a.env\""), "{error}");
}

#[tokio::test]
async fn a_name_that_leads_out_is_refused_of_stock_tar_too() {
    let place = deployment();
    std::fs::create_dir(place.path("inside")).unwrap();
    let inside = place.path("inside");
    let bytes = tar(&inside, &["-P", "../from/.env"]);
    for to in [FilesTarget::Folder(inside.clone()), FilesTarget::InPlace(inside)] {
        let how = FilesRestoreOptions { dialect: Dialect::Stock, ..options(to) };
        let error = restore(&bytes, how).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    }
    // Of a name that this program would not write it is no different.
    assert!(check(&tar(&place.path("from"), &["--format=posix", "./.env"])).await.is_err());
}

#[tokio::test]
async fn a_cut_or_changed_archive_of_stock_tar_is_damaged() {
    let place = deployment();
    let bytes = tar(&place.path("from"), &["."]);
    let end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let end = end.next_multiple_of(512);
    for cut in (0..end + 1_024).step_by(256) {
        let found = check_as(Dialect::Stock, &bytes[..cut]).await;
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Damaged, "cut at {cut} of {end}");
    }
    check_as(Dialect::Stock, &bytes[..end + 1_024]).await.unwrap();
    // A blank ends the sum itself; it says nothing.
    for at in (0..512).filter(|at| *at != 155) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let found = check_as(Dialect::Stock, &changed).await;
        assert!(found.is_err(), "byte {at} of a header: {found:?}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_not_called_good() {
    let place = Place::new();
    let file = std::fs::File::create(place.path("holes")).unwrap();
    file.set_len(1 << 20).unwrap();
    let mkfifo = Command::new("mkfifo").arg(place.path("fifo")).status().unwrap();
    assert!(mkfifo.success());
    for arguments in [
        &["--sparse", "--format=gnu", "holes"][..],
        &["--sparse", "--format=posix", "holes"],
        &["--format=v7", "holes"],
        &["--label=old", "holes"],
        &["fifo"],
    ] {
        let bytes = tar(&place.folder, arguments);
        let error = check_as(Dialect::Stock, &bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unchecked, "{arguments:?}: {error}");
    }
}

/// An argument that leads through a link which is in the archive, too.
#[tokio::test]
async fn a_name_below_a_link_of_the_archive_is_no_whole_archive() {
    let place = Place::new();
    place.write("from/m/release/.env", "SECRET=42\n");
    place.write("from/elsewhere/.env", "SECRET=43\n");
    for leads_to in ["release", "../elsewhere"] {
        let current = place.path("from/m/current");
        std::os::unix::fs::symlink(leads_to, &current).unwrap();
        let bytes = tar(&place.path("from"), &["m", "m/current/.env"]);
        let error = check_as(Dialect::Stock, &bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unchecked, "{error}");
        let wanted = "\"m/current/.env\" lies below \"m/current\", which is no folder";
        assert!(error.message().contains(wanted), "{error}");
        let error = restore(&bytes, as_stock(&place, "to")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        // What else there is comes back.
        let paths = vec!["/m/release".to_owned()];
        let rest = FilesRestoreOptions { paths, ..as_stock(&place, "to") };
        restore(&bytes, rest).await.unwrap();
        assert_eq!(place.read("to/m/release/.env"), "SECRET=42\n");

        // Each of them without the other is whole.
        for arguments in [&["m"][..], &["m/current/.env"]] {
            let bytes = tar(&place.path("from"), arguments);
            check_as(Dialect::Stock, &bytes).await.unwrap();
        }
        std::fs::remove_file(current).unwrap();
        std::fs::remove_dir_all(place.path("to")).unwrap();
    }
}

#[tokio::test]
async fn more_second_names_than_may_be_open_at_once_come_back() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const NAMES: u64 = 600;
    let place = Place::new();
    let content = [vec![b'x'; 70_000], vec![0; 140_000], vec![b'y'; 10]].concat();
    place.write("from/0", &content);
    for number in 1..NAMES {
        let second = place.path(&format!("from/{number}"));
        std::fs::hard_link(place.path("from/0"), second).unwrap();
    }
    let bytes = tar(&place.path("from"), &["."]);
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(NAMES / 2), ..limit };
    setrlimit(Resource::Nofile, few).unwrap();
    let report = restore(&bytes, as_stock(&place, "to")).await;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(report.unwrap().bytes, NAMES * content.len() as u64);
    for number in 0..NAMES {
        let restored = std::fs::read(place.path(&format!("to/{number}"))).unwrap();
        assert!(restored == content, "{number}");
    }
}

/// A pax record has room for millions of bytes, and so have a million entries.
#[tokio::test]
async fn a_link_that_leads_further_than_a_path_is_long_is_refused() {
    for (length, is_read) in [(4_096, true), (4_097, false), (1 << 20, false)] {
        let kind = Kind::Link { target: vec![b'a'; length] };
        let bytes = by_hand(&[(b"link", kind, b"")]);
        for dialect in [Dialect::Own, Dialect::Stock] {
            let found = check_as(dialect, &bytes).await;
            assert_eq!(found.is_ok(), is_read, "{length}: {found:?}");
            if let Err(error) = found {
                assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            }
        }
    }
}
