//! What every storage must do.

use backup_core::{ByteRange, Creation, Error, ErrorKind, ObjectInfo, Result, Storage};
use jiff::{SignedDuration, Timestamp};

use super::sink::sink_in;
use super::{BAD_KEYS, Must, broken, fresh_folder, listing, read_object, read_to_end, require};
use super::{require_same, store};
use crate::random;

/// How far the clock of a storage may be off, in seconds.
const CLOCK_SLACK_SECONDS: i64 = 600;
/// How often two callers race for one key.
const RACES: usize = 20;

/// Checks `storage`: everything that [`sink`](super::sink) checks, and
///
/// - `stat` and `list` tell a committed object's key, size and time; of what isn't there they
///   say `None` and nothing, and `open` says [`ErrorKind::NotFound`],
/// - ranges give exactly their bytes, past the end what there is,
/// - listings are sorted by key, complete, and show neither folders nor unfinished objects;
///   a prefix is a folder: "a" holds "a/b", neither "ab/c" nor the object "a" itself,
/// - `delete` removes one object only, and what isn't there gladly,
/// - `create_new` creates once: of two racers one wins, the loser changes nothing (where the
///   storage says that it [excludes](Storage::excludes)),
/// - `sweep` removes what crashed writers left, of the given folder and age only, and never a
///   committed object nor the work of a younger writer.
///
/// Everything it stored is deleted again when it passes.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use backup_testkit::{Memory, conformance};
/// conformance::storage(&Memory::new("memory")).await?;
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// The first promise found broken.
pub async fn storage(storage: &dyn Storage) -> Result<()> {
    check(storage, true).await
}

/// The same for a service behind which an emulator stands that keeps no preconditions: all of it
/// but what `create_new` promises.
///
/// # Errors
/// The first promise found broken.
pub async fn storage_without_preconditions(storage: &dyn Storage) -> Result<()> {
    check(storage, false).await
}

async fn check(storage: &dyn Storage, preconditions: bool) -> Result<()> {
    let folder = fresh_folder();
    let checks = Checks { storage, folder: folder.clone() };
    let seen = storage.list(&folder).await.must("list a folder that isn't there")?;
    require(seen.is_empty(), || "a folder that isn't there lists nothing".into())?;

    let keys = sink_in(&format!("{folder}/sink"), storage, &storage).await?;
    listing::complete(storage, &format!("{folder}/sink"), &keys).await?;
    checks.absent().await?;
    checks.present().await?;
    checks.ranges().await?;
    listing::folders(storage, &format!("{folder}/listing")).await?;
    listing::unfinished(storage, &format!("{folder}/unfinished")).await?;
    checks.deleting().await?;
    if preconditions {
        checks.creating().await?;
    }
    if preconditions && storage.excludes() {
        checks.racing().await?;
    }
    checks.sweeping().await?;
    checks.bad_keys().await?;
    checks.clean_up().await
}

struct Checks<'a> {
    storage: &'a dyn Storage,
    folder: String,
}

impl Checks<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.storage.stat(key).await.must(format!("stat {key}"))
    }

    async fn require_absent(&self, key: &str, what: &str) -> Result<()> {
        require(self.stat(key).await?.is_none(), || format!("stat says None of {what}"))?;
        match self.storage.open(key, ByteRange::ALL).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(broken(format!("open says NotFound of {what}, but: {error}"))),
            Ok(_) => Err(broken(format!("open says NotFound of {what}"))),
        }
    }

    async fn require_object(&self, key: &str, wanted: &[u8], what: &str) -> Result<()> {
        match read_object(self.storage, key).await? {
            Some(bytes) => require_same(&bytes, wanted, what),
            None => Err(broken(format!("{what}: the object is not there"))),
        }
    }

    async fn absent(&self) -> Result<()> {
        self.require_absent(&self.key("never"), "what never was").await?;
        let inside = self.key("folder/inside");
        store(self.storage, &inside, &[b"x"]).await?;
        self.require_absent(&self.key("folder"), "a folder").await?;
        self.require_absent(&format!("{inside}/deeper"), "what would lie inside an object").await
    }

    async fn present(&self) -> Result<()> {
        let key = self.key("present");
        let before = Timestamp::now();
        store(self.storage, &key, &[&random(1, 12_345)]).await?;
        let after = Timestamp::now();
        let Some(info) = self.stat(&key).await? else {
            return Err(broken("stat shows a committed object"));
        };
        require(info.key == key && info.bytes == 12_345, || {
            format!("stat tells key and size, but said {info:?}")
        })?;
        let slack = SignedDuration::from_secs(CLOCK_SLACK_SECONDS);
        let near = before - slack <= info.modified && info.modified <= after + slack;
        require(near, || {
            format!("stat tells when it was committed: {} instead of {after}", info.modified)
        })
    }

    async fn ranges(&self) -> Result<()> {
        let key = self.key("ranged");
        let data = random(2, 3 * 1024 * 1024 + 5);
        store(self.storage, &key, &[&data]).await?;
        let len = data.len() as u64;
        let cases = [
            (0, None),
            (0, Some(0)),
            (0, Some(1)),
            (1, Some(1)),
            (len - 1, None),
            (len - 1, Some(1)),
            (len - 1, Some(100)),
            (len, None),
            (len + 10, Some(10)),
            (u64::MAX, None),
            (u64::MAX, Some(u64::MAX)),
            (5, Some(u64::MAX)),
            (0, Some(len)),
            (256 * 1024 - 1, Some(2)),
            (256 * 1024, Some(256 * 1024)),
            (1_000_000, Some(2_000_000)),
        ];
        for (offset, length) in cases {
            let what = format!("the range from {offset}, length {length:?}, of {len} bytes");
            let mut stream = self
                .storage
                .open(&key, ByteRange { offset, length })
                .await
                .must(format!("open {what}"))?;
            let got = read_to_end(stream.as_mut(), &what).await?;
            let start = offset.min(len);
            let end = length.map_or(len, |length| start.saturating_add(length).min(len));
            let at = |position: u64| usize::try_from(position).unwrap_or(data.len());
            require_same(&got, &data[at(start)..at(end)], what)?;
        }
        Ok(())
    }

    async fn deleting(&self) -> Result<()> {
        let (gone, stays) = (self.key("del/a/x"), self.key("del/a/y"));
        store(self.storage, &gone, &[b"gone"]).await?;
        store(self.storage, &stays, &[b"stays"]).await?;
        self.storage.delete(&self.key("del/never")).await.must("delete what never was")?;
        self.storage.delete(&self.key("del/never/nor/its/folder")).await.must("delete nothing")?;
        self.storage
            .delete(&self.key("del/a"))
            .await
            .must("delete nothing under a folder's name")?;
        self.require_object(&gone, b"gone", "after a delete of its folder's name").await?;
        for again in ["", " a second time"] {
            self.storage.delete(&gone).await.must(format!("delete an object{again}"))?;
            self.require_absent(&gone, "a deleted object").await?;
            self.require_object(&stays, b"stays", "beside a deleted object").await?;
        }
        self.storage.delete(&stays).await.must("delete the last object of a folder")?;
        store(self.storage, &gone, &[b"back"]).await?;
        self.require_object(&gone, b"back", "written again after a delete").await
    }

    async fn create(&self, key: &str, body: &[u8]) -> Result<Creation> {
        self.storage.create_new(key, body.to_vec().into()).await.must(format!("create_new {key}"))
    }

    async fn creating(&self) -> Result<()> {
        for (name, body) in [("new/empty", &b""[..]), ("new/claim", &b"first"[..])] {
            let key = self.key(name);
            for round in ["at first", "after a delete"] {
                let made = self.create(&key, body).await?;
                require(made == Creation::Created, || format!("create_new creates {round}"))?;
                self.require_object(&key, body, "created").await?;
                let taken = self.create(&key, b"second").await?;
                require(taken == Creation::Taken, || "create_new says Taken of an object".into())?;
                self.require_object(&key, body, "create_new leaves what is there alone").await?;
                self.storage.delete(&key).await.must("delete a created object")?;
            }
        }
        let key = self.key("new/committed");
        store(self.storage, &key, &[b"committed"]).await?;
        let taken = self.create(&key, b"second").await?;
        require(taken == Creation::Taken, || "create_new says Taken of a commit".into())?;
        self.require_object(&key, b"committed", "create_new leaves a commit alone").await
    }

    async fn racing(&self) -> Result<()> {
        for race in 0..RACES {
            let key = self.key(&format!("race/{race}"));
            let (one, two) = tokio::join!(self.create(&key, b"one"), self.create(&key, b"two"));
            let winner = match (one?, two?) {
                (Creation::Created, Creation::Taken) => b"one",
                (Creation::Taken, Creation::Created) => b"two",
                both => return Err(broken(format!("of two racers one wins, but both: {both:?}"))),
            };
            self.require_object(&key, winner, "the winner's object").await?;
        }
        Ok(())
    }

    async fn sweep(&self, name: &str, older_than: Timestamp) -> Result<u64> {
        self.storage.sweep(&self.key(name), older_than).await.must(format!("sweep {name}"))
    }

    async fn sweeping(&self) -> Result<()> {
        let future = Timestamp::now() + SignedDuration::from_hours(24);
        let past = Timestamp::now() - SignedDuration::from_hours(24);
        let (kept, body) = (self.key("swept/a/kept"), random(11, 300_000));
        store(self.storage, &kept, &[&body]).await?;
        let created = self.key("swept/a/created");
        self.create(&created, b"claim").await?;

        for name in ["swept/a/x", "swept/a/deep/x", "swept/ab/x", "swept/ab/deep/x"] {
            let mut writer = self.storage.begin(&self.key(name)).await.must("begin")?;
            writer.write(random(12, 100_000).into()).await.must("write")?;
            drop(writer);
        }
        let mut young = self.storage.begin(&self.key("swept/a/young")).await.must("begin")?;
        young.write("young".into()).await.must("write")?;
        require(self.sweep("swept", past).await? == 0, || "sweep spares what is young".into())?;
        young.commit().await.must("commit after a sweep that spared it")?;
        self.require_object(&self.key("swept/a/young"), b"young", "a spared object").await?;

        // What a crash leaves is the storage's business, but it is the same in both folders.
        let (in_a, in_ab) =
            (self.sweep("swept/a", future).await?, self.sweep("swept/ab", future).await?);
        require(in_a == in_ab, || {
            format!("sweep works on one folder: it removed {in_a} in \"a\" and {in_ab} in \"ab\"")
        })?;
        require(self.sweep("swept", future).await? == 0, || {
            "sweep removes every old leftover at once".into()
        })?;
        self.require_object(&kept, &body, "a committed object after a sweep").await?;
        self.require_object(&created, b"claim", "a created object after a sweep").await
    }

    async fn bad_keys(&self) -> Result<()> {
        let refused = |what: &str, key: &str, error: Option<Error>| match error {
            Some(error) if error.kind() == ErrorKind::Usage => Ok(()),
            _ => Err(broken(format!("{what} must refuse {key:?} as usage"))),
        };
        for key in BAD_KEYS {
            let all = ByteRange::ALL;
            refused("open", key, self.storage.open(key, all).await.err())?;
            refused("stat", key, self.storage.stat(key).await.err())?;
            refused("delete", key, self.storage.delete(key).await.err())?;
            refused("create_new", key, self.storage.create_new(key, "x".into()).await.err())?;
            if !key.is_empty() {
                refused("list", key, self.storage.list(key).await.err())?;
                let swept = self.storage.sweep(key, Timestamp::UNIX_EPOCH).await;
                refused("sweep", key, swept.err())?;
            }
        }
        Ok(())
    }

    async fn clean_up(&self) -> Result<()> {
        let future = Timestamp::now() + SignedDuration::from_hours(24);
        self.storage.sweep(&self.folder, future).await.must("sweep everything")?;
        for object in self.storage.list(&self.folder).await.must("list everything")? {
            self.storage.delete(&object.key).await.must("delete everything")?;
        }
        let left = self.storage.list(&self.folder).await.must("list after deleting")?;
        require(left.is_empty(), || format!("after deleting everything, {} stay", left.len()))
    }
}
