//! What the tests of the verbs share: a plan, two small transforms, a seal, and a look at what
//! a run left behind.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_compress::Zstd;
use backup_core::pipeline::{Cancel, Context, Event, Limits, Policy, Progress};
use backup_core::{
    Authenticate, BackupPlan, BackupReader, BackupReport, Catalog, CatalogEntry, Decoders, Digest,
    Error, ErrorKind, PartPlan, PartRole, Patience, Result, Source, SourceIdentity, Storage,
    Transform, VerifyReport, verify,
};
use backup_testkit::{Given, Memory, random, text};
use jiff::Timestamp;

pub const JOB: &str = "database";
/// More than a chunk of the pipeline, so that an object takes several writes.
pub const DUMP_BYTES: usize = 300_000;

/// Few and quick tries: what fails in a test fails for good.
pub const IMPATIENT: Patience = Patience {
    stall: Duration::from_secs(5),
    first_pause: Duration::from_millis(1),
    tries: 2,
    give_up: Duration::from_secs(5),
};

/// How often to repeat what is random; `MARB_SOAK=N` multiplies it.
pub fn soak(count: u64) -> u64 {
    let factor = std::env::var("MARB_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    count * factor
}

/// Stands in for encryption where only its place in the chain matters: its own inverse.
pub struct Mask;

impl Transform for Mask {
    fn name(&self) -> &str {
        "mask"
    }

    fn extension(&self) -> &str {
        "masked"
    }

    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        let mut block = [0; 8192];
        loop {
            let n = input.read(&mut block).map_err(|e| Error::from_io("mask", e))?;
            if n == 0 {
                return Ok(());
            }
            block[..n].iter_mut().for_each(|byte| *byte ^= 0x5a);
            output.write_all(&block[..n]).map_err(|e| Error::from_io("mask", e))?;
        }
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        self.encode(input, output)
    }
}

/// A keyed digest of the manifest.
pub struct Seal(pub &'static str);

impl Authenticate for Seal {
    fn sign(&self, manifest: &[u8]) -> Result<Vec<u8>> {
        Ok(Digest::of(&[self.0.as_bytes(), manifest].concat()).sha256.into_bytes())
    }

    fn verify(&self, manifest: &[u8], signature: &[u8]) -> Result<()> {
        if self.sign(manifest)? == signature {
            return Ok(());
        }
        Err(Error::refused("seal", "somebody else wrote this manifest"))
    }
}

pub const SEAL: Seal = Seal("ours");

pub fn dump() -> Arc<dyn Source> {
    Arc::new(Given::new(random(1, DUMP_BYTES), 50_000))
}

pub fn globals() -> Arc<dyn Source> {
    Arc::new(Given::new(text(2, 5_000), 1_000))
}

pub fn storages(memories: &[&Arc<Memory>]) -> Vec<Arc<dyn Storage>> {
    memories.iter().map(|&memory| Arc::clone(memory) as Arc<dyn Storage>).collect()
}

pub fn memory(name: &str) -> Arc<Memory> {
    Arc::new(Memory::new(name))
}

/// A signed backup of two parts, started at `started`.
pub fn plan_at(started: Timestamp, storages: Vec<Arc<dyn Storage>>) -> BackupPlan {
    let part = |name: &str, role, source| PartPlan {
        name: name.to_owned(),
        role,
        source,
        estimated_bytes: None,
    };
    const STEP: Duration = Duration::from_secs(10);
    BackupPlan {
        job: JOB.to_owned(),
        kind: "logical".to_owned(),
        tool: "test 1".to_owned(),
        host: "here".to_owned(),
        source: identity(Some("7300000000000000001"), "app", "db:5432"),
        app_version: Some("2.0".to_owned()),
        postgres: None,
        parts: vec![
            part("app.dump", PartRole::Database, dump()),
            part("globals.sql", PartRole::Globals, globals()),
        ],
        transforms: vec![Arc::new(Zstd { level: 1, threads: 1 }), Arc::new(Mask)],
        keys: vec!["passphrase".to_owned()],
        authenticate: Some(Arc::new(SEAL)),
        storages,
        policy: Policy::All,
        timeout: Duration::from_secs(3600),
        limits: Limits { source_stall: STEP, sink_stall: STEP, optional_stall: STEP, commit: STEP },
        adopt: false,
        started,
        notes: Vec::new(),
        rekeyed: None,
    }
}

pub fn plan(storages: Vec<Arc<dyn Storage>>) -> BackupPlan {
    plan_at(Timestamp::now(), storages)
}

/// The same without encryption, so without a signature.
pub fn open_plan(storages: Vec<Arc<dyn Storage>>) -> BackupPlan {
    BackupPlan {
        transforms: vec![Arc::new(Zstd { level: 1, threads: 1 })],
        keys: Vec::new(),
        authenticate: None,
        ..plan(storages)
    }
}

pub fn identity(system: Option<&str>, database: &str, server: &str) -> SourceIdentity {
    SourceIdentity {
        system_identifier: system.map(str::to_owned),
        database: database.to_owned(),
        server: server.to_owned(),
    }
}

/// Runs a plan, but never for ever.
pub async fn run(plan: BackupPlan, context: &Context) -> Result<BackupReport> {
    let run = backup_core::backup(plan, context);
    tokio::time::timeout(Duration::from_secs(30), run).await.expect("a run must end")
}

pub async fn run_quietly(plan: BackupPlan) -> Result<BackupReport> {
    run(plan, &Context::default()).await
}

/// Hears the warnings of a run, and interrupts it at its n-th event.
#[derive(Default)]
pub struct Ear {
    warnings: Mutex<Vec<String>>,
    events: Mutex<u64>,
    interrupt: Option<(u64, Cancel)>,
}

impl Ear {
    pub fn context() -> (Arc<Self>, Context) {
        let ear = Arc::new(Self::default());
        (Arc::clone(&ear), Context::with_progress(ear))
    }

    pub fn interrupting_at(event: u64) -> (Arc<Self>, Context) {
        let cancel = Cancel::default();
        let interrupt = Some((event, cancel.clone()));
        let ear = Arc::new(Self { interrupt, ..Self::default() });
        (Arc::clone(&ear), Context { cancel, progress: ear })
    }

    pub fn events(&self) -> u64 {
        *self.events.lock().unwrap()
    }

    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap().clone()
    }
}

impl Progress for Ear {
    fn event(&self, event: Event<'_>) {
        let mut events = self.events.lock().unwrap();
        *events += 1;
        if let Some((_, cancel)) = self.interrupt.as_ref().filter(|(at, _)| at == &*events) {
            cancel.interrupt("a test interrupted it");
        }
        if let Event::Warning { message } = event {
            self.warnings.lock().unwrap().push(message.to_owned());
        }
    }
}

pub fn decoders() -> Decoders {
    Decoders::default().with(Arc::new(Zstd { level: 1, threads: 1 })).with(Arc::new(Mask))
}

/// Verifies the copy of `entry` in `storage`.
pub async fn verify_in(entry: &CatalogEntry, storage: Arc<dyn Storage>) -> VerifyReport {
    let signed = entry.manifest.parts.iter().any(|part| !part.keys.is_empty());
    let seal = signed.then_some(&SEAL as &dyn Authenticate);
    let reader = BackupReader::new(entry, storage, decoders()).with_patience(IMPATIENT);
    verify(&reader, seal, &|_, _| None, &Context::default()).await
}

/// Fails unless every backup listed in these storages is whole in each that lists it.
pub async fn assert_all_whole(memories: &[&Arc<Memory>], what: &str) -> Catalog {
    let all = storages(memories);
    let catalog = Catalog::load(&all, None).await;
    assert!(catalog.problems.is_empty(), "{what}: {:?}", catalog.problems);
    for entry in &catalog.backups {
        for copy in &entry.copies {
            assert!(copy.damaged_parts.is_empty(), "{what}: half a backup is listed: {copy:?}");
            let storage = all.iter().find(|s| s.name() == copy.storage).unwrap();
            let report = verify_in(entry, Arc::clone(storage)).await;
            assert!(report.worst().is_none(), "{what}: listed, but {:?}", report.worst());
        }
    }
    catalog
}

/// The first promise: what a run says is what is there, and nothing half-done is listed.
pub async fn assert_honest(
    result: &Result<BackupReport>,
    memories: &[&Arc<Memory>],
    required: usize,
    what: &str,
) {
    let catalog = assert_all_whole(memories, what).await;
    match result {
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::Disconnected, "{what}: an echo: {error}");
            assert!(catalog.backups.is_empty(), "{what}: listed, though the run said {error}");
        }
        Ok(report) => {
            let [entry] = &catalog.backups[..] else { panic!("{what}: {:?}", catalog.backups) };
            assert_eq!(entry.manifest, report.manifest, "{what}");
            let there: Vec<&String> = entry.copies.iter().map(|copy| &copy.storage).collect();
            assert_eq!(there, report.stored_in.iter().collect::<Vec<_>>(), "{what}");
            let mut failed: Vec<&String> = report.failed.iter().map(|(name, _)| name).collect();
            failed.sort_unstable();
            assert_eq!(entry.missing_in.iter().collect::<Vec<_>>(), failed, "{what}");
            assert!(there.len() >= required.min(1), "{what}: nothing is stored");
        }
    }
}

/// Nothing is there, and nothing was dropped instead of aborted.
pub fn assert_empty(memory: &Memory, what: &str) {
    assert_eq!(memory.keys(), Vec::<String>::new(), "{what}: something was left");
    assert_eq!(memory.unfinished(), 0, "{what}: a writer was dropped instead of aborted");
}
