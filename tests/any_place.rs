//! Parts that are read at any place: what comes is what was stored, or nothing.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

use backup_compress::{Gzip, Zstd};
use backup_core::pipeline::Context;
use backup_core::{
    BackupPlan, BackupReader, BackupReport, Catalog, CatalogEntry, Contents, Decoders, ErrorKind,
    FramedOutput, PartAt, PartPlan, PartRole, RekeyPlan, Result, Storage, Transform, rekey, verify,
};
use backup_crypto::{OpenPgp, Passphrase};
use backup_testkit::{FaultyReads, Given, Memory, ReadFault, random, text};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::rig::{Ear, IMPATIENT, Mask, SEAL, memory, plan, run, run_quietly, storages};

/// Plain bytes in a frame.
const FRAME: usize = 16 << 20;
/// Plain bytes of three frames, the last one short.
const THREE: usize = 2 * FRAME + 100_000;

fn openpgp(passphrase: &str) -> Arc<dyn Transform> {
    let passphrase = Passphrase::from_file_bytes(passphrase.as_bytes()).unwrap();
    Arc::new(OpenPgp::new().with_passphrase(passphrase))
}

fn zstd() -> Arc<dyn Transform> {
    Arc::new(Zstd { level: 1, threads: 2 })
}

fn sealed() -> Vec<Arc<dyn Transform>> {
    vec![zstd(), openpgp("old")]
}

fn decoders() -> Decoders {
    let gzip = Arc::new(Gzip::default());
    let known = Decoders::default().with(zstd()).with(gzip).with(openpgp("old"));
    known.with(Arc::new(Mask))
}

fn plan_of(plain: &[u8], transforms: Vec<Arc<dyn Transform>>, to: &[&Arc<Memory>]) -> BackupPlan {
    let dump = PartPlan {
        name: "app.dump".to_owned(),
        role: PartRole::Database,
        source: Arc::new(Given::new(plain.to_vec(), 200_000)),
        estimated_bytes: None,
    };
    BackupPlan { parts: vec![dump], transforms, ..plan(storages(to)) }
}

async fn store(
    plain: &[u8],
    transforms: Vec<Arc<dyn Transform>>,
    to: &[&Arc<Memory>],
) -> BackupReport {
    run_quietly(plan_of(plain, transforms, to)).await.unwrap()
}

async fn entry_in(all: &[Arc<dyn Storage>]) -> CatalogEntry {
    Catalog::load(all, None).await.backups.pop().unwrap()
}

async fn open_with(all: &[Arc<dyn Storage>], context: &Context) -> Result<Option<PartAt>> {
    let entry = entry_in(all).await;
    let reader = BackupReader::best(&entry, all, decoders()).unwrap();
    let reader = reader.with_patience(IMPATIENT).telling(context);
    let contents = reader.contents(context).await?;
    reader.at_any_place(&reader.manifest().parts[0], &contents).await
}

async fn open(to: &[&Arc<Memory>]) -> PartAt {
    open_with(&storages(to), &Context::default()).await.unwrap().expect("it has frames")
}

async fn assert_range(there: &PartAt, plain: &[u8], range: Range<usize>, what: &str) {
    let read = there.read(range.start as u64..range.end as u64).await.unwrap();
    assert!(read == plain[range.clone()], "{what}: {range:?} of {}", plain.len());
}

fn dump_key(memory: &Memory) -> String {
    memory.keys().into_iter().find(|key| key.contains("app.dump")).unwrap()
}

/// Flips a bit about so many thousandths into the encoded bytes of a frame.
fn flip(memory: &Memory, contents: &Contents, frame: usize, thousandths: u64) {
    let frames = contents.parts[0].frames.as_ref().unwrap();
    let key = dump_key(memory);
    let mut stored = memory.object(&key).unwrap().to_vec();
    let before: u64 = frames.list[..frame].iter().map(|frame| frame.bytes).sum();
    // What is around the frames takes some bytes, nearly all of them in front.
    let around = stored.len() as u64 - frames.encoded_bytes();
    let at = before + around + frames.list[frame].bytes * thousandths / 1000;
    stored[at as usize] ^= 0x10;
    memory.plant(&key, stored);
}

#[tokio::test]
async fn every_range_is_what_was_stored() {
    let mut rng = StdRng::seed_from_u64(41);
    let plain = text(41, THREE);
    for length in [0, 1, FRAME - 1, FRAME, FRAME + 1, THREE] {
        let plain = &plain[..length];
        for transforms in [sealed(), vec![zstd()]] {
            let here = memory("here");
            let what = format!("{length} bytes, {} transforms", transforms.len());
            let report = store(plain, transforms, &[&here]).await;
            let frames = report.contents.parts[0].frames.as_ref().unwrap();
            assert_eq!(frames.list.len(), length.div_ceil(FRAME).max(1), "{what}");
            let there = open(&[&here]).await;
            assert_eq!(there.bytes(), length as u64);
            for _ in 0..6 {
                let (a, b) = (rng.gen_range(0..=length), rng.gen_range(0..=length));
                assert_range(&there, plain, a.min(b)..a.max(b), &what).await;
            }
            for border in [0, FRAME, 2 * FRAME, length].into_iter().filter(|at| *at <= length) {
                let near = border.saturating_sub(3)..(border + 3).min(length);
                assert_range(&there, plain, near, &what).await;
                assert_range(&there, plain, border..border, &what).await;
            }
            assert!(there.read(0..length as u64 + 1).await.is_err(), "{what}");
        }
    }
}

#[tokio::test]
async fn only_the_frames_that_are_needed_are_fetched_each_with_one_request() {
    let (here, plain) = (memory("here"), text(42, THREE));
    let report = store(&plain, sealed(), &[&here]).await;
    let counted = FaultyReads::new(here.clone(), ReadFault::Open).times(0);
    let all: Vec<Arc<dyn Storage>> = vec![Arc::new(counted.clone())];
    let there = open_with(&all, &Context::default()).await.unwrap().unwrap();
    let of_dump = || counted.opened().iter().filter(|(key, _)| key.contains("app.dump")).count();
    let opening = of_dump();
    assert!(opening <= 8, "{opening} requests to open it");
    assert_range(&there, &plain, FRAME + 5..FRAME + 900, "one").await;
    assert_eq!(of_dump() - opening, 1);
    assert_range(&there, &plain, FRAME + 900..2 * FRAME, "its neighbours").await;
    assert_eq!(of_dump() - opening, 1, "a frame that is at hand is not fetched again");
    assert_range(&there, &plain, FRAME + 5..THREE, "two").await;
    assert_eq!(of_dump() - opening, 2);
    let frames = report.contents.parts[0].frames.as_ref().unwrap();
    let (_, at) = counted.opened().pop().unwrap();
    assert!(at >= frames.list[0].bytes + frames.list[1].bytes, "not from the beginning");
}

#[tokio::test]
async fn a_flipped_bit_is_damage_in_its_frame_and_nowhere_else() {
    let (here, plain) = (memory("here"), text(43, THREE));
    for transforms in [sealed(), vec![zstd()]] {
        let report = store(&plain, transforms, &[&here]).await;
        let whole = here.object(&dump_key(&here)).unwrap();
        for (frame, thousandths) in [(0, 5), (0, 990), (1, 5), (1, 500), (2, 10), (2, 900)] {
            flip(&here, &report.contents, frame, thousandths);
            let there = open(&[&here]).await;
            for other in 0..3 {
                let range = other * FRAME + 7..other * FRAME + 5000;
                if other != frame {
                    assert_range(&there, &plain, range, "another frame").await;
                    continue;
                }
                let error = there.read(range.start as u64..range.end as u64).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                let start = frame * FRAME;
                for word in [
                    "app.dump",
                    "storage here",
                    &format!("frame {} of 3", frame + 1),
                    &format!("plain bytes {start} to"),
                ] {
                    assert!(error.message().contains(word), "{word}: {error}");
                }
                assert!(error.advice().unwrap().contains("another storage's copy"));
            }
            here.plant(&dump_key(&here), whole.clone());
        }
        here.keys().iter().for_each(|key| here.remove(key));
    }
}

/// zstd's own checksum is right in a frame of another place, or of another backup.
#[tokio::test]
async fn a_whole_frame_in_the_place_of_another_is_damage() {
    let (here, plain) = (memory("here"), random(50, 2 * FRAME));
    let report = store(&plain, vec![zstd()], &[&here]).await;
    let frames = report.contents.parts[0].frames.as_ref().unwrap();
    let each = frames.list[0].bytes as usize;
    assert_eq!(frames.list[1].bytes as usize, each, "noise is stored as it is");
    let stored = here.object(&dump_key(&here)).unwrap();
    here.plant(&dump_key(&here), [&stored[each..], &stored[..each]].concat());
    let there = open(&[&here]).await;
    for at in [0, FRAME as u64] {
        let error = there.read(at..at + 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
}

#[tokio::test]
async fn another_copy_takes_the_place_of_a_damaged_one() {
    let (first, second, plain) = (memory("first"), memory("second"), text(44, THREE));
    let report = store(&plain, sealed(), &[&first, &second]).await;
    flip(&first, &report.contents, 1, 500);
    let (ear, context) = Ear::context();
    let all = storages(&[&first, &second]);
    let there = open_with(&all, &context).await.unwrap().unwrap();
    assert_range(&there, &plain, FRAME + 1..FRAME + 100, "damaged in one").await;
    let warnings = ear.warnings();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("trying the copy in storage second"), "{warning}");

    flip(&second, &report.contents, 1, 600);
    let there = open_with(&all, &context).await.unwrap().unwrap();
    let error = there.read(FRAME as u64..FRAME as u64 + 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_range(&there, &plain, 0..100, "whole in both").await;

    // One that can't be reached is no better than a damaged one, and no worse.
    let silent = FaultyReads::new(second, ReadFault::Open).only_keys_with("app.dump");
    let all: Vec<Arc<dyn Storage>> = vec![Arc::new(silent), first];
    let there = open_with(&all, &context).await.unwrap().unwrap();
    assert_range(&there, &plain, 0..100, "one is silent").await;
    let error = there.read(FRAME as u64..FRAME as u64 + 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.advice().unwrap().contains("another copy is in storage second"), "{error:?}");
}

#[tokio::test]
async fn without_frames_or_a_way_in_there_is_none() {
    let (here, plain) = (memory("here"), text(45, 100_000));
    let context = Context::default();
    let gzip: Arc<dyn Transform> = Arc::new(Gzip { level: 1, threads: 1 });
    for transforms in [vec![gzip.clone(), openpgp("old")], vec![zstd(), Arc::new(Mask)], Vec::new()]
    {
        store(&plain, transforms, &[&here]).await;
        assert!(open_with(&storages(&[&here]), &context).await.unwrap().is_none());
        here.keys().iter().for_each(|key| here.remove(key));
    }
    // Its frames hold what another transform made of the plain bytes.
    let report = store(&plain, vec![Arc::new(Mask), zstd()], &[&here]).await;
    assert_eq!(report.contents.parts[0].frames, None);
    here.keys().iter().for_each(|key| here.remove(key));
    // As an older version wrote them.
    store(&plain, sealed(), &[&here]).await;
    let entry = entry_in(&storages(&[&here])).await;
    let reader = BackupReader::new(&entry, here.clone(), decoders());
    let mut contents = reader.contents(&context).await.unwrap();
    contents.parts[0].frames = None;
    let contents = Contents::from_json(&contents.to_json().unwrap()).unwrap();
    let opened = reader.at_any_place(&entry.manifest.parts[0], &contents).await;
    assert!(opened.unwrap().is_none());
    // Frames that are not all of what is stored.
    let mut contents = reader.contents(&context).await.unwrap();
    contents.parts[0].frames.as_mut().unwrap().list[0].bytes += 1;
    let opened = reader.at_any_place(&entry.manifest.parts[0], &contents).await;
    assert_eq!(opened.err().unwrap().kind(), ErrorKind::Damaged);
    // A wrong key is no reason to read everything.
    let other = Decoders::default().with(zstd()).with(openpgp("another"));
    let other = BackupReader::new(&entry, here, other);
    let contents = reader.contents(&context).await.unwrap();
    let opened = other.at_any_place(&entry.manifest.parts[0], &contents).await;
    assert_eq!(opened.err().unwrap().kind(), ErrorKind::Unchecked);
}

/// zstd, with a list of frames that is not true.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// The first frame ends a byte later.
    Late,
    /// All is one frame.
    Merged,
    /// As many frames, but with a byte more in each.
    Larger,
    /// No lie.
    None,
}

impl Transform for Lie {
    fn name(&self) -> &str {
        "zstd"
    }

    fn extension(&self) -> &str {
        "zst"
    }

    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        zstd().encode(input, output)
    }

    fn encode_in_frames(&self, input: &mut dyn Read, output: &mut FramedOutput<'_>) -> Result<()> {
        let mut packed = Vec::new();
        let mut honest = FramedOutput::new(&mut packed);
        zstd().encode_in_frames(input, &mut honest)?;
        let frames = honest.finish().unwrap();
        output.in_frames_of(FRAME as u64 + u64::from(matches!(self, Lie::Larger)));
        let last = frames.list.len() - 1;
        let mut rest = &packed[..];
        for (index, frame) in frames.list.iter().enumerate() {
            let bytes = match self {
                Lie::Late if index == 0 && last > 0 => frame.bytes as usize + 1,
                _ => (frame.bytes as usize).min(rest.len()),
            };
            let (piece, behind) = rest.split_at(bytes);
            output.write_all(piece).unwrap();
            rest = behind;
            if !matches!(self, Lie::Merged) || index == last {
                output.end_frame();
            }
        }
        Ok(())
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        zstd().decode(input, output)
    }
}

#[tokio::test]
async fn a_verification_notices_frames_that_are_not_those_of_the_data() {
    let plain = text(46, THREE);
    for lie in [Lie::None, Lie::Late, Lie::Merged, Lie::Larger] {
        let here = memory("here");
        store(&plain, vec![Arc::new(lie), openpgp("old")], &[&here]).await;
        let entry = entry_in(&storages(&[&here])).await;
        let reader = BackupReader::new(&entry, here.clone(), decoders());
        let report = verify(&reader, Some(&SEAL), &|_, _| None, &Context::default()).await;
        let worst = report.worst();
        let Some(error) = worst else {
            assert!(matches!(lie, Lie::None), "{lie:?}");
            continue;
        };
        assert!(!matches!(lie, Lie::None), "{error}");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{lie:?}: {error}");
        assert!(error.message().contains("frames do not fit"), "{lie:?}: {error}");
        // And nobody gets a byte by it.
        if let Some(there) = open_with(&storages(&[&here]), &Context::default()).await.unwrap() {
            let error = there.read(0..10).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{lie:?}");
        }
    }
}

#[tokio::test]
async fn a_backup_under_new_keys_has_frames_of_its_own() {
    let (here, plain) = (memory("here"), text(47, THREE));
    let all = storages(&[&here]);
    let old = run(plan_of(&plain, sealed(), &[&here]), &Context::default()).await.unwrap();
    let entry = entry_in(&all).await;
    let better: Arc<dyn Transform> = Arc::new(Zstd { level: 5, threads: 1 });
    let now = Decoders::default().with(zstd()).with(openpgp("new"));
    let plan = RekeyPlan {
        entry: &entry,
        successor: None,
        storages: &all,
        decoders: decoders(),
        reading_back: now.clone(),
        trusted: Some(&SEAL),
        transforms: vec![better, openpgp("new")],
        keys: vec!["passphrase".to_owned()],
        sign: Some(Arc::new(SEAL)),
        accept_unsigned: false,
        tool: "test 2".to_owned(),
        host: "there".to_owned(),
        limits: Default::default(),
        patience: IMPATIENT,
    };
    assert!(rekey(&plan, &Context::default()).await.unwrap().created);
    let entry = entry_in(&all).await;
    let reader = BackupReader::new(&entry, here, now);
    let contents = reader.contents(&Context::default()).await.unwrap();
    assert_ne!(contents.parts[0].frames, old.contents.parts[0].frames);
    let there = reader.at_any_place(&entry.manifest.parts[0], &contents).await.unwrap().unwrap();
    assert_range(&there, &plain, FRAME - 10..FRAME + 10, "rekeyed").await;
}

#[tokio::test]
async fn the_stock_programs_read_several_frames() {
    let (here, plain) = (memory("here"), text(48, THREE));
    let report = store(&plain, sealed(), &[&here]).await;
    assert_eq!(report.contents.parts[0].frames.as_ref().unwrap().list.len(), 3);
    let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap();
    let file = home.path().join("stored");
    std::fs::write(&file, here.object(&dump_key(&here)).unwrap()).unwrap();
    let script = "set -o pipefail; gpg --batch --quiet --pinentry-mode loopback --passphrase old \
         --decrypt \"$0\" | zstd -d -c";
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", script]).arg(&file).env("GNUPGHOME", home.path());
    let output = command.output().await.unwrap();
    let ended = tokio::process::Command::new("gpgconf")
        .args(["--kill", "all"])
        .env("GNUPGHOME", home.path())
        .status()
        .await;
    assert!(ended.is_ok());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == plain);
}
