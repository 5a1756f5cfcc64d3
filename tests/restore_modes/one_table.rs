//! Of a backup that says where its tables stand, a restore of one table reads no other.

use std::path::Path;
use std::process::Command;

use backup_core::Digest;
use serde_json::{Value, json};

use super::{Live, damage_end};
use crate::support::{CLAIMS, claims_digest, target_file};

/// Some 60 MB that stand before the claims: several frames of the stored dump.
const PADDING: &str = "CREATE TABLE a_padding AS
    SELECT n, repeat(md5(n::text), 30) AS text FROM generate_series(1, 60000) AS n";

/// A database with much before the claims, backed up; and its stored dump.
async fn backed_up() -> (Live, std::path::PathBuf) {
    let mut live = Live::new(500).await;
    live.sql(PADDING).await;
    live.original = claims_digest(&live.server, CLAIMS).await;
    live.run(&["backup"]).await.expect(0);
    let stored = live.scratch.stored_files();
    let dump = stored.into_iter().find(|path| path.to_string_lossy().contains(".dump."));
    (live, dump.unwrap())
}

/// Turns a bit at so many thousandths of the file; a second time puts it back.
fn damage_at(file: &Path, thousandths: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.len() * thousandths / 1000;
    bytes[at] ^= 4;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn damage_to_others_does_not_matter_and_to_it_does() {
    let (live, dump) = backed_up().await;
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    let claims = ["restore", "latest", "--to", &to, "--table", "claims"];
    live.sql("DROP TABLE claims").await;
    // The middle belongs to the other table, the end to the message as a whole.
    damage_at(&dump, 500);
    damage_end(&dump, 3);
    let done = live.run(&claims).await.expect(0);
    assert!(done.stderr.contains("only these tables were read"), "{done:#?}");
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
    let other = ["restore", "latest", "--to", &to, "--table", "a_padding", "--into-schema", "old"];
    let refused = live.run(&other).await.expect(4);
    assert!(refused.stderr.contains("frame"), "{refused:#?}");
    assert_eq!(live.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'old'").await, "0");
    let whole = target_file(&live.scratch, &live.server, "whole");
    live.run(&["restore", "latest", "--to", &whole, "--jobs", "2"]).await.expect(4);
    damage_end(&dump, 3);
    damage_at(&dump, 500);
    target_file(&live.scratch, &live.server, CLAIMS);
    live.run(&other).await.expect(0);

    // The frames of the head and of the table itself.
    live.sql("DROP TABLE claims").await;
    for thousandths in [2, 997] {
        damage_at(&dump, thousandths);
        live.run(&claims).await.expect(4);
        assert!(!live.has_claims().await);
        damage_at(&dump, thousandths);
    }
    live.run(&claims).await.expect(0);
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
    assert_eq!(live.bytes_left(), 0);
}

/// What was written without frames, as gzip is, is read whole.
#[tokio::test]
async fn without_frames_all_of_it_is_read() {
    let live = Live::new(500).await;
    let job = "[job.database]";
    live.scratch.edit_config(job, &format!("{job}\ncompression = 'gzip'"));
    live.run(&["backup"]).await.expect(0);
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    live.sql("DROP TABLE claims").await;
    let done = live.run(&["restore", "latest", "--to", &to, "--table", "claims"]).await.expect(0);
    assert!(!done.stderr.contains("only these tables were read"), "{done:#?}");
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
}

/// Changes the contents of a backup that is neither encrypted nor signed, so that all digests fit.
fn change_contents(folder: &Path, change: impl FnOnce(&mut Value)) {
    let (packed, manifest) = (folder.join("contents.json.zst"), folder.join("manifest.json"));
    let zstd = |arguments: &[&str], file: &Path| {
        let done = Command::new("zstd").arg("-q").args(arguments).arg(file).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        done.stdout
    };
    let old = [&packed, &manifest].map(|file| Digest::of(&std::fs::read(file).unwrap()).sha256);
    let mut contents = serde_json::from_slice(&zstd(&["-dc"], &packed)).unwrap();
    change(&mut contents);
    let plain = folder.join("contents.json");
    std::fs::write(&plain, contents.to_string()).unwrap();
    zstd(&["-f", "--rm"], &plain);
    let new = Digest::of(&std::fs::read(&packed).unwrap());
    let mut json: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let parts = json["parts"].as_array_mut().unwrap();
    let part = parts.iter_mut().find(|part| part["role"] == "contents").unwrap();
    (part["bytes"], part["sha256"]) = (new.bytes.into(), new.sha256.clone().into());
    std::fs::write(&manifest, json.to_string()).unwrap();
    let listed = Digest::of(json.to_string().as_bytes()).sha256;
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let sums = sums.replace(&old[0], &new.sha256).replace(&old[1], &listed);
    std::fs::write(folder.join("SHA256SUMS"), sums).unwrap();
}

/// Contents that say something wrong of a whole dump: `verify` notices, and no other rows come back.
#[tokio::test]
async fn a_list_that_does_not_fit_is_noticed_and_costs_no_more_than_time() {
    let live = Live::new(500).await;
    let key = format!("passphrase = {{ file = '{}' }}", live.scratch.path("key").display());
    live.scratch.edit_config(&key, "");
    live.scratch.edit_config("storages = ['local']", "storages = ['local']\nencrypt = false");
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    type Change = fn(&mut Value);
    let frames: [Change; 2] = [
        |dump| dump["frames"]["list"] = json!([]),
        |dump| {
            let frame = dump["frames"]["list"][0].as_str().unwrap();
            dump["frames"]["list"][0] = json!(format!("1{frame}"));
        },
    ];
    let blocks: [Change; 2] = [
        |dump| {
            let start = dump["inventory"]["data_blocks"][0]["start"].as_u64().unwrap();
            dump["inventory"]["data_blocks"][0]["start"] = json!(start + 1);
        },
        |dump| dump["inventory"]["data_blocks"] = json!([{"entry": 1, "start": 9, "end": 10}]),
    ];
    let cases =
        frames.map(|change| (change, 0)).into_iter().chain(blocks.map(|change| (change, 4)));
    live.run(&["backup"]).await.expect(0);
    live.run(&["verify"]).await.expect(0);
    let folder = live.scratch.backup_folder().await;
    let changed =
        ["contents.json.zst", "manifest.json", "SHA256SUMS"].map(|name| folder.join(name));
    let kept = changed.each_ref().map(|file| std::fs::read(file).unwrap());
    for (n, (change, code)) in cases.enumerate() {
        changed.iter().zip(&kept).for_each(|(file, kept)| std::fs::write(file, kept).unwrap());
        change_contents(&folder, |contents| {
            let parts = contents["parts"].as_array_mut().unwrap();
            change(parts.iter_mut().find(|part| part["name"] == "claims.dump").unwrap());
        });
        live.sql("DROP TABLE IF EXISTS claims").await;
        let run = live.run(&["restore", "latest", "--to", &to, "--table", "claims"]).await;
        assert_eq!(run.code, code, "{n}: {run:#?}");
        assert!(!run.stderr.contains("only these tables were read"), "{n}: {run:#?}");
        assert_eq!(live.has_claims().await, code == 0, "{n}");
        if code == 0 {
            assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
        }
        let verified = live.run(&["verify"]).await.expect(4);
        let told = format!("{}{}", verified.stdout, verified.stderr);
        let wanted = if code == 0 { "frames do not fit" } else { "do not stand where" };
        assert!(told.contains(wanted), "{n}: {verified:#?}");
    }
    // All of it comes back whatever is said of its pieces.
    let whole = target_file(&live.scratch, &live.server, "whole");
    live.run(&["restore", "latest", "--to", &whole]).await.expect(0);
    assert_eq!(claims_digest(&live.server, "whole").await, live.original);
}
