//! A restore in place that is killed: each file is the old one or the new one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::places::Files;
use crate::support::{cases, seed};

/// Files that are replaced.
const FILES: usize = 100;
/// Long enough that a write of it can be cut.
const LINES: usize = 2_000;
/// About as long as such a restore takes, in milliseconds.
const LONGEST: u64 = 600;

fn content(generation: &str, n: usize) -> String {
    format!("{generation} {n}\n").repeat(LINES)
}

#[tokio::test]
async fn killed_in_place_each_file_is_old_or_new_and_the_next_run_finishes() {
    let files = Files::small();
    files.configure(&["app"]);
    for n in 0..FILES {
        files.write(&format!("app/{n}"), &content("good", n), 0o600);
    }
    files.run(&["backup"]).await.expect(0);
    let mut random = StdRng::seed_from_u64(seed());
    let (mut between, mut leftovers) = (0, 0);
    for case in 0..cases(6, 200) {
        for n in 0..FILES {
            files.write(&format!("app/{n}"), &content("bad", n), 0o640);
        }
        let mut child = files.scratch.start(&["restore", "latest", "--in-place"]);
        if case % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(random.gen_range(0..LONGEST))).await;
        } else {
            until_first_is_replaced(&files).await;
        }
        child.kill().await.unwrap();

        let mut restored = 0;
        for n in 0..FILES {
            let path = files.file(&format!("app/{n}"));
            let now = std::fs::read_to_string(&path).unwrap();
            let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
            if now == content("good", n) {
                assert_eq!(mode & 0o777, 0o600, "app/{n}");
                restored += 1;
            } else {
                assert!(now == content("bad", n), "app/{n} is neither old nor new");
                assert_eq!(mode & 0o777, 0o640, "app/{n}");
            }
        }
        between += u32::from(restored > 0 && restored < FILES);
        leftovers += names(&files).iter().filter(|name| name.starts_with(".marb-")).count();

        files.run(&["restore", "latest", "--in-place"]).await.expect(0);
        // One that was killed between keeping a file and replacing it is kept twice.
        let mut kept = BTreeSet::new();
        for name in names(&files) {
            assert!(!name.starts_with(".marb-"), "{name} is left");
            if let Some((n, _)) = name.trim_start_matches('.').split_once(".before-") {
                let aside = files.file(&format!("app/{name}"));
                let expected = content("bad", n.parse().unwrap());
                assert!(std::fs::read_to_string(&aside).unwrap() == expected, "{name}");
                std::fs::remove_file(aside).unwrap();
                kept.insert(n.to_owned());
            }
        }
        assert_eq!(kept.len(), FILES, "what was replaced is kept");
    }
    assert!(between > 0, "no kill struck between two files");
    println!("killed between two files {between} times, {leftovers} leftovers were removed");
}

/// The renames at the end take milliseconds: chance alone would miss them.
async fn until_first_is_replaced(files: &Files) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !names(files).iter().any(|name| name.contains(".before-")) {
        assert!(Instant::now() < deadline, "nothing is replaced");
        tokio::task::yield_now().await;
    }
}

fn names(files: &Files) -> Vec<String> {
    let entries = std::fs::read_dir(files.file("app")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
