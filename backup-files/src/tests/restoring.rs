//! Files that come back: into a folder, and over others.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use backup_core::{ErrorKind, FileKind};

use super::*;
use crate::Change;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Some files, and their archive.
async fn filled() -> (Place, Vec<u8>) {
    let place = Place::new();
    place.write("app/.env", "SECRET=1\n");
    set_mode(&place.path("app/.env"), 0o600);
    place.write("app/conf/site", "server {}\n");
    set_mode(&place.path("app/conf/site"), 0o640);
    set_mode(&place.path("app/conf"), 0o750);
    place.write("app/conf/read-only/x", "x");
    set_mode(&place.path("app/conf/read-only"), 0o555);
    symlink("site", place.path("app/conf/link")).unwrap();
    let (bytes, _) = archive(selection(&[&place.path("app")])).await.unwrap();
    (place, bytes)
}

fn in_place() -> FilesRestoreOptions {
    options(FilesTarget::InPlace(PathBuf::from("/")))
}

#[tokio::test]
async fn a_folder_gets_everything_with_its_attributes() {
    let (place, bytes) = filled().await;
    let to = place.path("to");
    let report = restore(&bytes, options(FilesTarget::Folder(to.clone()))).await.unwrap();
    assert_eq!((report.created, report.unset), (7, Vec::<String>::new()));
    assert_eq!(mode(&to), 0o700, "the folder may hold secrets");
    let back = |name: &str| to.join(place.path(name).strip_prefix("/").unwrap());
    for name in ["app", "app/.env", "app/conf", "app/conf/site", "app/conf/read-only"] {
        let (was, now) = (place.path(name), back(name));
        assert_eq!(mode(&was), mode(&now), "{name}");
        let [was, now] = [was, now].map(|path| std::fs::metadata(path).unwrap());
        assert_eq!((was.uid(), was.gid()), (now.uid(), now.gid()), "{name}");
        let time = |m: &std::fs::Metadata| (m.mtime(), m.mtime_nsec());
        assert_eq!(time(&was), time(&now), "{name}");
    }
    assert_eq!(std::fs::read_to_string(back("app/.env")).unwrap(), "SECRET=1\n");
    assert_eq!(std::fs::read_link(back("app/conf/link")).unwrap(), Path::new("site"));
    // Once more: nothing is replaced.
    let error = restore(&bytes, options(FilesTarget::Folder(to.clone()))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("/.env is there"), "{error}");
    open_up(&place);
}

/// So that the folder of a test can be removed.
fn open_up(place: &Place) {
    let mut folders = vec![place.folder.clone()];
    while let Some(folder) = folders.pop() {
        set_mode(&folder, 0o700);
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
}

#[tokio::test]
async fn in_place_only_what_differs_is_replaced_and_kept() {
    let (place, bytes) = filled().await;
    let report = restore(&bytes, in_place()).await.unwrap();
    assert_eq!((report.created, report.replaced, report.unchanged), (0, 0, 7));

    place.write("app/.env", "SECRET=1\n");
    let planned = plan(&bytes, in_place()).await.unwrap();
    assert_eq!(planned.counts(), (0, 0, 7), "a new time alone changes nothing");

    place.write("app/.env", "SECRET=2, longer\n");
    set_mode(&place.path("app/.env"), 0o644);
    set_mode(&place.path("app/conf"), 0o700);
    std::fs::remove_file(place.path("app/conf/link")).unwrap();
    symlink("elsewhere", place.path("app/conf/link")).unwrap();
    std::fs::remove_file(place.path("app/conf/site")).unwrap();
    place.write("app/conf/extra", "stays");

    let planned = plan(&bytes, in_place()).await.unwrap();
    assert_eq!(planned.counts(), (1, 3, 3));
    let env = planned.changes.iter().find(|c| c.path.ends_with(".env")).unwrap();
    let Change::Replaced { from: 17, to: 9, attributes } = &env.what else {
        panic!("{env:?}");
    };
    assert!(attributes[0].contains("mode 0644, was 0600"), "{attributes:?}");
    assert_eq!((env.kind, &env.text), (FileKind::File, &None), "lines may be secrets");
    assert_eq!(place.read("app/.env"), "SECRET=2, longer\n", "a plan changes nothing");

    let report = restore(&bytes, in_place()).await.unwrap();
    assert_eq!((report.created, report.replaced, report.unchanged), (1, 3, 3));
    assert_eq!(place.read("app/.env"), "SECRET=1\n");
    assert_eq!(mode(&place.path("app/.env")), 0o600);
    assert_eq!(mode(&place.path("app/conf")), 0o750);
    assert_eq!(place.read("app/.env.before-RUN"), "SECRET=2, longer\n");
    assert_eq!(mode(&place.path("app/.env.before-RUN")), 0o644);
    let kept = std::fs::read_link(place.path("app/conf/.link.before-RUN")).unwrap();
    assert_eq!(kept, Path::new("elsewhere"));
    assert_eq!(report.kept_aside.len(), 2);
    assert!(report.kept_aside.contains(&place.inside("app/.env.before-RUN")));
    assert_eq!(place.read("app/conf/extra"), "stays");
    assert_eq!(place.read("app/conf/site"), "server {}\n");
    open_up(&place);
}

#[tokio::test]
async fn lines_are_told_only_when_they_are_asked_for() {
    let (place, bytes) = filled().await;
    place.write("app/.env", "SECRET=2\n");
    let asked = FilesRestoreOptions { with_text: true, ..in_place() };
    let planned = plan(&bytes, asked).await.unwrap();
    let env = planned.changes.iter().find(|c| c.path.ends_with(".env")).unwrap();
    assert!(env.text.as_ref().unwrap().contains("-SECRET=2\n+SECRET=1\n"), "{env:?}");
    open_up(&place);
}

#[tokio::test]
async fn single_files_come_back_alone() {
    let (place, bytes) = filled().await;
    let to = place.path("to");
    let only = |pattern: &str| FilesRestoreOptions {
        paths: vec![pattern.to_owned()],
        ..options(FilesTarget::Folder(to.clone()))
    };
    let report = restore(&bytes, only(".env")).await.unwrap();
    assert_eq!(report.created, 1);
    let below = to.join(place.path("app").strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_dir(below).unwrap().count(), 1);
    let report = restore(&bytes, only(&place.inside("app/conf"))).await.unwrap();
    assert_eq!(report.created, 5);
    let error = restore(&bytes, only("/nothing/here")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    open_up(&place);
}

#[tokio::test]
async fn what_is_in_the_way_is_named_and_nothing_is_touched() {
    let (place, bytes) = filled().await;
    std::fs::remove_file(place.path("app/.env")).unwrap();
    std::fs::create_dir(place.path("app/.env")).unwrap();
    std::fs::remove_file(place.path("app/conf/site")).unwrap();
    let error = restore(&bytes, in_place()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("/.env is a folder"), "{error}");
    assert!(!place.path("app/conf/site").exists());
    open_up(&place);
}

#[tokio::test]
async fn an_aborted_restore_leaves_nothing() {
    let (place, bytes) = filled().await;
    place.write("app/.env", "other");
    std::fs::remove_file(place.path("app/conf/site")).unwrap();
    let before = [place.names("app"), place.names("app/conf")];
    for to in [in_place(), options(FilesTarget::Folder(place.path("to")))] {
        for end in [bytes.len() / 2, bytes.len()] {
            let restore = FilesRestore::new(plan(&bytes, to.clone()).await.unwrap());
            let mut writer = restore.begin("config.tar").await.unwrap();
            writer.write(bytes[..end].to_vec().into()).await.unwrap();
            writer.abort().await.unwrap();
            assert_eq!([place.names("app"), place.names("app/conf")], before);
            assert_eq!(place.read("app/.env"), "other");
            assert!(!place.path("to").exists());
            assert_eq!(restore.report(), None);
        }
    }
    open_up(&place);
}

#[tokio::test]
async fn what_a_killed_restore_left_is_removed_by_the_next() {
    let (place, bytes) = filled().await;
    place.write("app/.marb-restore-OLD-1", "half a secret");
    place.write("app/.env", "other");
    restore(&bytes, in_place()).await.unwrap();
    assert_eq!(place.names("app"), [".env", ".env.before-RUN", "conf"]);
    open_up(&place);
}

#[tokio::test]
async fn a_folder_that_closes_itself_is_filled_first() {
    let place = Place::new();
    place.write("shut/in/file", "x");
    set_mode(&place.path("shut/in"), 0o500);
    set_mode(&place.path("shut"), 0o300);
    if !is_root() {
        // Nobody but root can read such a folder; what it can be restored to is seen below.
        set_mode(&place.path("shut"), 0o500);
    }
    let (bytes, _) = archive(selection(&[&place.path("shut")])).await.unwrap();
    let was = mode(&place.path("shut"));
    open_up(&place);
    std::fs::remove_dir_all(place.path("shut")).unwrap();
    let report = restore(&bytes, in_place()).await.unwrap();
    assert_eq!((report.created, report.unset), (3, Vec::<String>::new()));
    assert_eq!(mode(&place.path("shut")), was);
    open_up(&place);
}

#[tokio::test]
async fn holes_stay_holes() {
    let place = Place::new();
    const SIZE: u64 = 64 << 20;
    let sparse = std::fs::File::create(place.path("sparse")).unwrap();
    sparse.set_len(SIZE).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", SIZE / 2).unwrap();
    let source = Arc::new(FilesSource::new(selection(&[&place.path("sparse")])));
    let to = place.path("to");
    let planner = FilesPlanner::new(options(FilesTarget::Folder(to.clone())));
    let run = async |sink: Arc<dyn Sink>| {
        let flow = Flow::new("config.tar", source.clone(), sink);
        pipeline::run(flow, &Context::default()).await.unwrap();
    };
    run(Arc::new(planner.clone())).await;
    run(Arc::new(FilesRestore::new(planner.plan().unwrap()))).await;
    let back = std::fs::metadata(to.join(place.path("sparse").strip_prefix("/").unwrap())).unwrap();
    assert_eq!(back.len(), SIZE);
    assert!(back.blocks() * 512 < SIZE / 8, "{} blocks", back.blocks());
}
