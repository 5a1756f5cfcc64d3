//! `verify` as a user runs it: its levels, which backups, and `--repair`, also killed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use backup_core::{ByteRange, Storage};
use backup_testkit::servers::{S3Access, S3Server};
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::stores::{STORES, Service, s3_section};
use crate::support::{CLAIMS, Finished, Scratch, cases, claims_server, finish_started, seed};

/// A scratch with two storages, and one backup in both.
async fn twice(rows: u32) -> Scratch {
    let server = claims_server(15, rows).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let second = scratch.path("second").display().to_string();
    scratch.edit_config("storages = ['local']", "storages = ['local', 'second']");
    let section = format!("[storage.second]\nurl = 'file://{second}'\n[encryption]");
    scratch.edit_config("[encryption]", &section);
    scratch.run(&["backup"]).await.expect(0);
    scratch
}

/// A file of the only backup, in one storage.
async fn file(scratch: &Scratch, storage: &str, name: &str) -> PathBuf {
    let folder = scratch.backup_folder().await;
    let below = folder.strip_prefix(scratch.path("backups")).unwrap();
    let storage = if storage == "local" { "backups" } else { storage };
    scratch.path(storage).join(below).join(name)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

fn copy_of<'a>(document: &'a Value, storage: &str) -> &'a Value {
    let copies = document["verified"][0]["copies"].as_array().unwrap();
    copies.iter().find(|copy| copy["storage"] == storage).unwrap()
}

/// The names of the proofs in the first storage, without their times.
async fn proofs(scratch: &Scratch) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(file(scratch, "local", "proofs").await) else {
        return Vec::new();
    };
    let mut names: Vec<String> =
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.iter().map(|name| name["20261122T020000Z".len()..].to_owned()).collect()
}

const DUMP: &str = "claims.dump.zst.gpg";

#[tokio::test]
async fn checksums_need_no_key_and_say_what_they_are_worth() {
    let server = claims_server(15, 300).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let from = format!("file://{}", scratch.path("backups").display());
    let stranger = ["verify", "--from", &from, "--level", "checksums"];
    let checksums = ["verify", "--level", "checksums"];

    let run = scratch.run(&stranger).await.expect(0);
    assert!(run.stdout.contains("no key at hand can prove"), "{run:#?}");
    assert_eq!(proofs(&scratch).await, ["-checksums.json"]);
    let list = scratch.run(&["list"]).await.expect(0);
    assert!(list.stdout.contains("never verified"), "{list:#?}");
    let run = scratch.run(&[&stranger[..], &["--json"]].concat()).await.expect(0).json();
    let copy = copy_of(&run, "local");
    assert_eq!((&copy["origin"], &copy["level"]), (&"no_key".into(), &"checksums".into()));
    // The content is not known without a key.
    scratch.run(&stranger[..3]).await.expect(8);
    let run = scratch.run(&checksums).await.expect(0);
    assert!(run.stdout.contains("which a key proves"), "{run:#?}");

    // A wrong key can't tell either.
    let key = std::fs::read_to_string(scratch.path("key")).unwrap();
    scratch.write("key", "another passphrase\n");
    scratch.run(&checksums).await.expect(8);
    scratch.run(&["verify"]).await.expect(8);
    scratch.write("key", &key);

    let dump = file(&scratch, "local", DUMP).await;
    flip(&dump, 500);
    let bytes = std::fs::metadata(&dump).unwrap().len();
    for verify in [&stranger[..], &checksums, &["verify"]] {
        let run = scratch.run(verify).await.expect(4);
        assert!(run.stdout.contains("DAMAGED") && run.stdout.contains(DUMP), "{run:#?}");
        assert!(run.stdout.contains(&format!("its {bytes} bytes")), "{run:#?}");
        assert!(run.stdout.contains("no storage has it whole"), "{run:#?}");
    }
    // Nothing to repair it from.
    let run = scratch.run(&["verify", "--repair"]).await.expect(4);
    assert!(run.stderr.contains("no storage has it whole"), "{run:#?}");
}

#[tokio::test]
async fn a_forgery_is_no_ones_at_either_level() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let manifest = file(&scratch, "local", "manifest.json").await;
    let text = std::fs::read_to_string(&manifest).unwrap();
    let forged = text.replace("\"job\": \"database\"", "\"job\": \"database\" ");
    assert_ne!(text, forged);
    std::fs::write(&manifest, &forged).unwrap();
    // Whoever forges a manifest makes the list anew.
    let folder = manifest.parent().unwrap();
    let list = folder.join("SHA256SUMS");
    let sums = std::fs::read_to_string(&list).unwrap();
    let digest = |text: &str| backup_core::Digest::of(text.as_bytes()).sha256;
    std::fs::write(&list, sums.replace(&digest(&text), &digest(&forged))).unwrap();
    for level in ["checksums", "content"] {
        let run = scratch.run(&["verify", "--level", level]).await.expect(6);
        assert!(run.stdout.contains("NOT OURS"), "{run:#?}");
    }
    // Who can't tell says so, and finds the bytes to be those of the manifest.
    let from = format!("file://{}", scratch.path("backups").display());
    let run = scratch.run(&["verify", "--from", &from, "--level", "checksums"]).await.expect(0);
    assert!(run.stdout.contains("no key at hand can prove"), "{run:#?}");
}

#[tokio::test]
async fn damage_is_named_to_the_byte_and_repaired() {
    let scratch = twice(300).await;
    let (first, second) =
        (file(&scratch, "local", DUMP).await, file(&scratch, "second", DUMP).await);
    let bytes = std::fs::metadata(&first).unwrap().len();
    flip(&first, 700);
    let run = scratch.run(&["verify"]).await.expect(4);
    assert!(run.stdout.contains(&format!("byte 700 of {bytes} differs")), "{run:#?}");
    assert!(run.stdout.contains("storage second has it whole"), "{run:#?}");
    let json = scratch.run(&["verify", "--json"]).await.expect(4).json();
    let damage = &copy_of(&json, "local")["damage"][0];
    assert_eq!((&damage["file"], &damage["good_in"][0]), (&DUMP.into(), &"second".into()));
    assert_eq!(
        (&damage["place"]["first"], &damage["place"]["differing"]),
        (&700.into(), &1.into())
    );
    assert_eq!(copy_of(&json, "second")["passed"], true);

    let run = scratch.run(&["verify", "--repair"]).await.expect(0);
    assert!(run.stdout.contains("repaired") && run.stdout.contains("from second"), "{run:#?}");
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    scratch.run(&["verify"]).await.expect(0);
    let list = scratch.run(&["list"]).await.expect(0);
    assert!(list.stdout.contains("complete, verified"), "{list:#?}");
    let proofs = proofs(&scratch).await;
    assert!(proofs.contains(&"-verify-failed.json".to_owned()), "{proofs:?}");

    // A missing file is damage; stored bytes can be brought back without a key.
    std::fs::remove_file(&first).unwrap();
    let from = |name: &str| format!("file://{}", scratch.path(name).display());
    let (here, there) = (from("backups"), from("second"));
    let stranger = ["verify", "--from", &here, "--from", &there, "--level", "checksums"];
    let run = scratch.run(&stranger).await.expect(4);
    assert!(run.stdout.contains("the file is not there"), "{run:#?}");
    let json = scratch.run(&[&stranger[..], &["--repair", "--json"]].concat()).await.expect(0);
    let json = json.json();
    assert_eq!(json["verified"][0]["repaired"][0]["file"], DUMP);
    assert_eq!(json["verified"][0]["before"][0]["passed"], false);
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
}

#[tokio::test]
async fn a_manifest_that_is_none_any_more_is_damage_and_repaired() {
    let scratch = twice(20).await;
    for name in ["manifest.json", "manifest.json.sig", "SHA256SUMS", "RESTORE.md"] {
        let first = file(&scratch, "local", name).await;
        let whole = std::fs::read(&first).unwrap();
        let damages = [&b"{"[..], &whole[..whole.len() / 2], b""];
        let damages = if name == "manifest.json" { &damages[..] } else { &damages[1..2] };
        for damaged in damages {
            std::fs::write(&first, damaged).unwrap();
            let run = scratch.run(&["verify"]).await.expect(4);
            assert!(run.stdout.contains("DAMAGED"), "{name}: {run:#?}");
            assert!(run.stdout.contains("storage second has it whole"), "{name}: {run:#?}");
            let run = scratch.run(&["verify", "--repair"]).await.expect(0);
            assert!(run.stdout.contains("repaired"), "{name}: {run:#?}");
            assert_eq!(std::fs::read(&first).unwrap(), whole, "{name}");
        }
    }
    // Of one copy alone, there is nothing to go by.
    std::fs::write(file(&scratch, "local", "manifest.json").await, "{").unwrap();
    let local = format!("file://{}", scratch.path("backups").display());
    let key = scratch.path("key").display().to_string();
    let alone = ["verify", "--from", &local, "--passphrase-file", &key];
    scratch.run(&alone).await.expect(4).explains("catalog", "manifest.json");
}

#[tokio::test]
async fn some_or_all_backups_are_verified_in_order() {
    let server = claims_server(15, 20).await;
    let scratch = Scratch::of(&server, CLAIMS);
    for _ in 0..6 {
        scratch.run(&["backup"]).await.expect(0);
    }
    let ids = scratch.listed().await;
    let told = |run: &Finished| -> Vec<String> {
        let lines = run.stdout.lines().filter(|line| line.contains(" in local"));
        lines
            .map(|line| ids.iter().find(|id| line.contains(&format!("{id} "))).unwrap().clone())
            .collect()
    };
    for jobs in ["1", "3", "16"] {
        let run = scratch.run(&["verify", "--all", "--jobs", jobs]).await.expect(0);
        assert_eq!(told(&run), ids, "{run:#?}");
    }
    let since = scratch.run(&["verify", "--since", "1h", "--level", "checksums"]).await.expect(0);
    assert_eq!(told(&since), ids);
    scratch.run(&["verify", "--since", "2999-01-01"]).await.expect(5);

    let sample = ["verify", "--sample", "30%", "--seed", "7", "--json"];
    let one = scratch.run(&sample).await.expect(0).json();
    assert_eq!((&one["sample"]["of"], &one["sample"]["seed"]), (&6.into(), &7.into()));
    let taken = one["sample"]["taken"].as_array().unwrap().clone();
    assert_eq!((taken.len(), one["verified"].as_array().unwrap().len()), (2, 2));
    assert_eq!(scratch.run(&sample).await.json()["sample"], one["sample"]);
    let run = scratch.run(&["verify", "--sample", "1%"]).await.expect(0);
    assert!(run.stdout.contains("1 of 6 backups, by --seed"), "{run:#?}");
    // In the long run each is taken.
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let seed = seed.to_string();
        let flags = ["verify", "--sample", "1%", "--seed", &seed, "--level", "checksums", "--json"];
        let run = scratch.run(&flags).await.expect(0).json();
        seen.insert(run["sample"]["taken"][0].as_str().unwrap().to_owned());
        if seen.len() == ids.len() {
            break;
        }
    }
    assert_eq!(seen.len(), ids.len());

    for wrong in [
        &["--sample", "10"][..],
        &["--sample", "0%"],
        &["--seed", "1"],
        &["--jobs", "0"],
        &["--jobs", "17"],
        &["--since", "yesterday"],
        &["--level", "all"],
        &["--all", "latest"],
        &["./a-file", "--repair"],
    ] {
        scratch.run(&[&["verify"], wrong].concat()).await.expect(2);
    }

    let bad = &ids[2];
    let folder = scratch.path("backups").join("database").join(&bad[..4]).join(&bad[4..6]);
    flip(&folder.join(bad).join(DUMP), 200);
    let run = scratch.run(&["verify", "--all", "--jobs", "3"]).await.expect(4);
    assert_eq!(told(&run), ids, "what is damaged hides no other: {run:#?}");
    // What belongs to one backup stands together.
    let lines: Vec<&str> = run.stdout.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("DAMAGED")).unwrap();
    assert!(lines[at].contains(bad.as_str()) && lines[at + 1].contains(DUMP), "{run:#?}");
}

#[tokio::test]
async fn a_repair_that_is_killed_leaves_nothing_worse() {
    let scratch = twice(40_000).await;
    let mut random = StdRng::seed_from_u64(seed());
    let names = [DUMP, "globals.sql.zst.gpg", "manifest.json.sig", "manifest.json"];
    let mut whole = Vec::new();
    for name in names {
        let path = file(&scratch, "local", name).await;
        whole.push((std::fs::read(&path).unwrap(), path));
    }
    let spoil = |random: &mut StdRng| -> Vec<Vec<u8>> {
        let spoiled = whole.iter().map(|(bytes, path)| {
            let mut bytes = bytes.clone();
            let at = random.gen_range(0..bytes.len());
            bytes[at] ^= 1;
            std::fs::write(path, &bytes).unwrap();
            bytes
        });
        spoiled.collect()
    };
    let repair = ["verify", "--repair"];
    spoil(&mut random);
    let started = Instant::now();
    scratch.run(&repair).await.expect(0);
    let usual = started.elapsed();
    for _ in 0..cases(6, 60) {
        let spoiled = spoil(&mut random);
        let child = scratch.start(&repair);
        let id = Pid::from_raw(child.id().unwrap().try_into().unwrap());
        tokio::time::sleep(usual.mul_f64(random.gen_range(0.0..0.9))).await;
        kill(id, Signal::SIGKILL).unwrap();
        let run = finish_started(child).await;
        let mut mended = 0;
        for ((good, path), bad) in whole.iter().zip(&spoiled) {
            let now = std::fs::read(path).unwrap();
            mended += usize::from(now == *good);
            assert!(now == *good || now == *bad, "{} is neither", path.display());
        }
        println!("killed after a while: {}, {mended} files were repaired", run.code);
        scratch.run(&repair).await.expect(0);
        for (good, path) in &whole {
            assert!(std::fs::read(path).unwrap() == *good, "{}", path.display());
        }
    }
    scratch.run(&["verify"]).await.expect(0);
}

async fn read(storage: &dyn Storage, key: &str) -> Vec<u8> {
    let mut stream = storage.open(key, ByteRange::ALL).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

async fn write(storage: &dyn Storage, key: &str, bytes: &[u8]) {
    let mut writer = storage.begin(key).await.unwrap();
    writer.write(Bytes::copy_from_slice(bytes)).await.unwrap();
    writer.commit().await.unwrap();
}

/// On real servers of every kind.
#[tokio::test]
async fn every_kind_of_storage_is_repaired() {
    let server = claims_server(15, 2_000).await;
    for name in STORES {
        let service = Service::start(name).await;
        let scratch = Scratch::of(&server, CLAIMS);
        scratch.edit_config("storages = ['local']", &format!("storages = ['local', '{name}']"));
        let section = format!("{}[encryption]", service.section());
        scratch.edit_config("[encryption]", &section);
        scratch.run(&["backup"]).await.expect(0);
        let storage = service.storage("backups", service.address());
        let folder = scratch.backup_folder().await;
        let key = |file: &str| {
            let path = folder.join(file);
            path.strip_prefix(scratch.path("backups")).unwrap().display().to_string()
        };
        let mut whole = Vec::new();
        for file in [DUMP, "manifest.json", "SHA256SUMS"] {
            let bytes = read(storage.as_ref(), &key(file)).await;
            let mut spoiled = bytes.clone();
            spoiled[bytes.len() / 3] ^= 16;
            write(storage.as_ref(), &key(file), &spoiled).await;
            whole.push((file, bytes));
        }
        storage.delete(&key("globals.sql.zst.gpg")).await.unwrap();
        let run = scratch.run(&["verify"]).await.expect(4);
        assert!(run.stdout.contains(&format!(" in {name}\n")), "{run:#?}");
        let run = scratch.run(&["verify", "--repair", "--json"]).await.expect(0).json();
        assert_eq!(run["verified"][0]["repaired"].as_array().unwrap().len(), 4, "{name}: {run:#}");
        for (file, bytes) in whole {
            assert!(read(storage.as_ref(), &key(file)).await == bytes, "{name}: {file}");
        }
        scratch.run(&["verify"]).await.expect(0);
        assert_eq!(service.pending("backups").await, 0, "{name}");
    }
}

#[tokio::test]
async fn credentials_that_may_not_write_repair_nothing_and_say_so() {
    let server = claims_server(15, 20).await;
    let s3 = S3Server::start().await.unwrap();
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.edit_config("storages = ['local']", "storages = ['local', 's3']");
    let section = s3_section(&s3, &s3.endpoint());
    scratch.edit_config("[encryption]", &format!("{section}[encryption]"));
    scratch.run(&["backup"]).await.expect(0);
    let (admin, reader) = (s3.keys(S3Access::Admin), s3.keys(S3Access::ReadOnly));
    scratch.edit_config(admin.access_key, reader.access_key);
    scratch.edit_config(admin.secret_key, reader.secret_key);
    let service = Service::S3(s3);
    let storage = service.storage("backups", service.address());
    let folder = scratch.backup_folder().await;
    let key = folder.join(DUMP);
    let key = key.strip_prefix(scratch.path("backups")).unwrap().display().to_string();
    let mut spoiled = read(storage.as_ref(), &key).await;
    spoiled[100] ^= 1;
    write(storage.as_ref(), &key, &spoiled).await;
    let run = scratch.run(&["verify", "--repair"]).await.expect(4);
    let told = ["not repaired:", DUMP, "in storage s3 stays damaged", "may replace objects"];
    assert!(told.iter().all(|text| run.stderr.contains(text)), "{run:#?}");
    assert!(read(storage.as_ref(), &key).await == spoiled);
}
