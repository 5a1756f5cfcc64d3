//! Which tools are found and chosen, with programs that are really run.

use std::os::unix::fs::{PermissionsExt, symlink};

use backup_core::ErrorKind;
use tempfile::TempDir;

use super::*;

/// A folder with four programs that print `version`.
fn tools(parent: &TempDir, name: &str, version: &str) -> PathBuf {
    let folder = parent.path().join(name);
    fs::create_dir_all(&folder).unwrap();
    for program in PROGRAMS {
        let path = folder.join(program);
        fs::write(&path, format!("#!/bin/sh\necho '{program} {version}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::canonicalize(folder).unwrap()
}

fn version(text: &str) -> Version {
    Version::from_program(text).unwrap()
}

#[test]
fn versions_of_all_vendors_are_read_and_ordered() {
    let debian = version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
    assert_eq!((debian.major, debian.minor), (15, Some(18)));
    assert_eq!(debian.to_string(), "15.18");
    let beta = version("pg_dump (PostgreSQL) 17beta1");
    assert_eq!((beta.major, beta.minor), (17, None));
    assert_eq!(version("pg_dump (EnterpriseDB) 16.2.0").minor, Some(2));
    assert_eq!(version("pg_dump (PostgreSQL) 18devel").major, 18);
    assert!(beta < version("pg_dump (PostgreSQL) 17.0"));
    assert!(version("pg_dump (PostgreSQL) 9.6.24") < debian);
    assert_eq!(Version::from_program("command not found"), None);
    assert_eq!(Version::parse("15.4 (Debian 15.4-1)").unwrap().to_string(), "15.4");
}

#[tokio::test]
async fn the_servers_own_major_else_the_next_higher() {
    let parent = tempfile::tempdir().unwrap();
    let sixteen = tools(&parent, "16", "(PostgreSQL) 16.4");
    let newer_sixteen = tools(&parent, "16b", "(PostgreSQL) 16.9");
    let eighteen = tools(&parent, "18", "(PostgreSQL) 18.1");
    let mut installed = Vec::new();
    for folder in [&eighteen, &newer_sixteen, &sixteen] {
        installed.push(ClientTools::in_folder(folder).await.unwrap());
    }
    let search = ToolSearch::default();
    let chosen = |major| search.pick(&installed, major).unwrap().folder().to_owned();
    assert_eq!(chosen(14), newer_sixteen);
    assert_eq!(chosen(16), newer_sixteen);
    assert_eq!(chosen(17), eighteen);
    assert_eq!(chosen(18), eighteen);

    let too_new = search.pick(&installed, 19).unwrap_err();
    assert_eq!(too_new.kind(), ErrorKind::Refused);
    assert!(too_new.message().contains("18.1"), "{too_new}");
    assert!(too_new.advice().unwrap().contains("apt-get install postgresql-client-19"));

    let too_old = search.pick(&installed, 13).unwrap_err();
    assert_eq!(too_old.kind(), ErrorKind::Refused);
    assert!(too_old.message().contains("PostgreSQL 13") && too_old.message().contains("14"));

    let none = search.pick(&[], 15).unwrap_err();
    assert!(none.advice().unwrap().contains("apt-get install postgresql-client"));
}

#[tokio::test]
async fn a_configured_folder_is_the_only_one() {
    let parent = tempfile::tempdir().unwrap();
    let old = tools(&parent, "old", "(PostgreSQL) 14.1");
    let search = ToolSearch { configured: Some(old.clone()), ..ToolSearch::default() };
    assert_eq!(search.newest().await.unwrap().folder(), old);
    let refused = search.for_server(15).await.unwrap_err();
    assert!(refused.advice().unwrap().contains("configuration"), "{refused:?}");

    fs::remove_file(old.join("pg_restore")).unwrap();
    let incomplete = search.installed().await.unwrap_err();
    assert_eq!(incomplete.kind(), ErrorKind::Refused);
    assert!(incomplete.message().ends_with("pg_restore is missing"), "{incomplete}");
}

#[tokio::test]
async fn folders_of_the_path_are_searched_and_dispatchers_passed_over() {
    let parent = tempfile::tempdir().unwrap();
    let real = tools(&parent, "real", "(PostgreSQL) 99.2");
    let linked = parent.path().join("linked");
    fs::create_dir(&linked).unwrap();
    symlink(real.join("pg_dump"), linked.join("pg_dump")).unwrap();
    let silent = tools(&parent, "silent", "says nothing of use");
    let dispatched = tools(&parent, "dispatched", "(PostgreSQL) 99.3");
    fs::rename(dispatched.join("psql"), dispatched.join(DISPATCHER)).unwrap();
    symlink(dispatched.join(DISPATCHER), dispatched.join("psql")).unwrap();

    let path = std::env::join_paths([Path::new("/nowhere"), &linked, &silent, &dispatched]);
    let search = ToolSearch { path: Some(path.unwrap()), ..ToolSearch::default() };
    // Newer than any real one: only the search itself can have found it.
    let found: Vec<PathBuf> = search
        .installed()
        .await
        .unwrap()
        .iter()
        .filter(|tools| tools.version().major == 99)
        .map(|tools| tools.folder().to_owned())
        .collect();
    assert_eq!(found, [real]);
}

#[tokio::test]
async fn the_packaged_tools_of_this_machine_are_found() {
    let found = ToolSearch::default().installed().await.unwrap();
    let here = crate::test_server::bin_dir();
    assert!(found.iter().any(|tools| tools.folder() == here), "{found:?}");
    assert!(
        found
            .iter()
            .all(|tools| tools.folder() != Path::new("/usr/bin") || tools.pg_dump().is_file())
    );
}
