//! A database with everything that a swap has to carry over, and all that is looked at between
//! two commands: rows, properties, services, which databases are there, and which were dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use backup_testkit::postgres::PostgresServer;
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::process::Command;
use tokio::time::sleep;

use super::Fault;
use crate::support::{CLAIMS, claims_server_with};
use crate::swap::Stage;
use crate::swap_kills::{Live, STEP_LIMIT};

/// Rows: the steps count, not the data.
const ROWS: u32 = 2000;

/// More tables than [`CLAIMS`] has, in another schema, too, with everything that has rows.
const TABLES: &str = "
CREATE ROLE app LOGIN PASSWORD 'app'; CREATE ROLE reader LOGIN PASSWORD 'reader';
CREATE SCHEMA audit;
CREATE TABLE audit.events (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL);
INSERT INTO audit.events (what) SELECT 'event ' || n FROM generate_series(1, 200) n;
SELECT setval('audit.events_id_seq', 200);
CREATE TABLE notes (claim int REFERENCES claims ON DELETE CASCADE, note text);
INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 200) n;
CREATE VIEW open_claims AS SELECT id FROM claims;
GRANT SELECT ON payers TO reader";

/// What the live database has and the backup lacks: a difference in every table, and what
/// belongs to the database and not to its content.
const MOVED_ON: &str = "
UPDATE notes SET note = note || ', seen' WHERE claim % 3 = 0;
DELETE FROM audit.events WHERE id > 150; SELECT setval('audit.events_id_seq', 777);
ALTER DATABASE claims OWNER TO app; ALTER DATABASE claims CONNECTION LIMIT 17;
REVOKE ALL ON DATABASE claims FROM PUBLIC; GRANT CONNECT, TEMPORARY ON DATABASE claims TO reader;
ALTER ROLE reader IN DATABASE claims SET statement_timeout = '11s'";

/// Every table, sequence, index, view and constraint; of what has rows their number and digest.
const DIGEST: &str = "
CREATE FUNCTION pg_temp.rows_of(kind \"char\", t regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE digest text; what text := CASE kind WHEN 'S' THEN '(s.last_value, s.is_called)' ELSE 's' END;
BEGIN
    IF kind NOT IN ('r', 'S', 'v') THEN RETURN ''; END IF;
    EXECUTE format('SELECT count(*) || '' '' || md5(coalesce(string_agg(%1$s::text, chr(10) ORDER BY %1$s::text), ''''))
        FROM %2$s s', what, t) INTO digest;
    RETURN digest;
END $$;
SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
    SELECT c.relkind::text || ' ' || c.oid::regclass::text || ' ' || pg_temp.rows_of(c.relkind, c.oid) AS line
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(c.oid) || ' ' || convalidated
        FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') all_lines";

/// What belongs to the live database, whichever it is.
const PROPERTIES: &str = "
SELECT json_build_object('owner', pg_get_userbyid(datdba), 'limit', datconnlimit, 'open', datallowconn,
    'template', datistemplate, 'comment', shobj_description(d.oid, 'pg_database'),
    'grants', (SELECT json_agg(a::text ORDER BY a::text) FROM aclexplode(datacl) a),
    'settings', (SELECT json_agg(json_build_array(setrole::regrole, setconfig) ORDER BY setrole)
        FROM pg_db_role_setting WHERE setdatabase = d.oid))
FROM pg_database d WHERE datname = 'claims'";

const UNFINISHED: &str = "
SELECT count(*) FROM pg_shdescription
WHERE description ~ '^marb-backup swap .*\"phase\":\"(closing|swapped|putting-back)\"'";

pub struct Scene {
    pub stage: Stage,
    /// How long an undisturbed restore takes.
    pub usual: Duration,
    old: String,
    new: String,
    /// The number that the old database keeps under every name.
    old_number: u32,
    properties: String,
    /// Databases that were live and are kept, by number.
    kept: BTreeSet<u32>,
    /// How much of the server's log was looked at.
    read: u64,
}

async fn digest(server: &PostgresServer, database: &str) -> String {
    server.sql(database, DIGEST).await.unwrap()
}

impl Scene {
    /// The old database live, a verified backup of what it was before.
    pub async fn set() -> Self {
        let settings = [("log_statement", "ddl"), ("synchronous_commit", "on")];
        let server = claims_server_with(15, ROWS, &settings).await;
        server.sql(CLAIMS, TABLES).await.unwrap();
        let backed_up = digest(&server, CLAIMS).await;
        let stage = Stage::on(server).await;
        stage.server.sql(CLAIMS, MOVED_ON).await.unwrap();
        stage.scratch.edit_config("timeout = '5s'", "timeout = '2s'");
        stage.scratch.edit_config("hook_timeout = '20s'", "hook_timeout = '4s'");
        stage.scratch.run(&["verify"]).await.expect(0);
        let old = digest(&stage.server, CLAIMS).await;
        let properties = stage.server.sql("postgres", PROPERTIES).await.unwrap();
        let number =
            stage.server.sql("postgres", "SELECT oid FROM pg_database WHERE datname = 'claims'");
        let old_number = number.await.unwrap().parse().unwrap();
        let started = Instant::now();
        stage.restore(&["latest"]).await.expect(0);
        let usual = started.elapsed();
        let new = digest(&stage.server, CLAIMS).await;
        let without_migration: Vec<&str> =
            new.lines().filter(|line| !line.starts_with("r migrated 0 ")).collect();
        assert_eq!(without_migration.join("\n"), backed_up);
        let kept = BTreeSet::from([old_number]);
        let mut scene = Self { stage, usual, old, new, old_number, properties, kept, read: 0 };
        scene.reset(&mut rand::SeedableRng::seed_from_u64(0)).await;
        scene
    }

    /// The fault that a restore is to meet.
    pub fn arrange(&self, fault: Fault, hangs: bool) {
        match fault {
            Fault::Migration => self.stage.hook("migrate", &format!("{MIGRATE}; exit 1")),
            Fault::Health => self.stage.hook(
                "start",
                "touch running; if test -e tried; then rm -f sick; else touch tried sick; fi",
            ),
            Fault::Service if hangs => self.stage.hook(
                "stop",
                "rm -f running; trap '' TERM; for i in 1 2 3 4 5 6; do sleep 1; done",
            ),
            Fault::Service => self.stage.hook("stop", "rm -f running; exit 1"),
            Fault::ThisProgram | Fault::PgRestore | Fault::Backend | Fault::Sessions => {}
        }
    }

    /// Whoever looks after the application has put it right.
    pub fn mend(&self) {
        self.stage.hook("migrate", MIGRATE);
        self.stage.hook("stop", "rm -f running");
        self.stage.hook("start", "touch running");
        for file in ["sick", "tried"] {
            let _ = std::fs::remove_file(self.stage.scratch.path(file));
        }
    }

    /// A server that lost a process comes back by itself.
    pub async fn wait_for_server(&self) {
        let started = Instant::now();
        while self.stage.server.sql("postgres", "SELECT 1").await.is_err() {
            assert!(started.elapsed() < STEP_LIMIT, "the server does not come back");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// All databases but the server's own, by number.
    pub async fn databases(&self) -> BTreeMap<u32, String> {
        let sql = "SELECT coalesce(json_object_agg(oid, datname), '{}') FROM pg_database
                   WHERE datname NOT IN ('postgres', 'template0', 'template1')";
        serde_json::from_str(&self.stage.server.sql("postgres", sql).await.unwrap()).unwrap()
    }

    /// Whether nothing waits for another command: nothing unfinished, the name open, services.
    pub async fn is_settled(&self) -> bool {
        let open = "SELECT datallowconn FROM pg_database WHERE datname = 'claims'";
        let sql = async |sql| self.stage.server.sql("postgres", sql).await.unwrap();
        sql(UNFINISHED).await == "0" && sql(open).await == "t" && self.stage.is_running()
    }

    /// Asserts that everything is as it has to be when it is over, and says what is live.
    pub async fn in_order(&self, run: &impl Debug) -> Live {
        let server = &self.stage.server;
        let properties = server.sql("postgres", PROPERTIES).await.unwrap();
        assert_eq!(properties, self.properties, "{run:#?}");
        let found = digest(server, CLAIMS).await;
        let live = if found == self.old { Live::Old } else { Live::New };
        assert!(live == Live::Old || found == self.new, "a mixture: {found}\n{run:#?}");
        assert!(self.stage.is_running(), "the services stand still: {run:#?}");
        assert_eq!(server.sql("postgres", UNFINISHED).await.unwrap(), "0", "{run:#?}");
        self.reader_gets_in().await;
        let name = self.databases().await.remove(&self.old_number).expect("the old one is gone");
        let expected = if live == Live::Old { "claims" } else { "claims_before_" };
        assert!(name.starts_with(expected), "the old database is {name}: {run:#?}");
        live
    }

    /// A user with a grant on the database logs in and reads.
    async fn reader_gets_in(&self) {
        let mut session = Command::new("psql");
        session.args(["-XAtq", "-c", "SELECT count(*) > 0 FROM payers", "-d"]);
        session.arg(self.stage.server.url_of("reader", "reader", CLAIMS)).kill_on_drop(true);
        let output = session.output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "t", "{output:?}");
    }

    /// Asserts that nothing that ever was live has been dropped since the last look.
    pub async fn assert_nothing_lost(&mut self, what: &str) {
        for name in self.dropped() {
            let never_live =
                name.starts_with("claims_restoring_") || name.starts_with("marb_restoring_");
            assert!(never_live, "{what} dropped {name}");
        }
        let now = self.databases().await;
        for number in &self.kept {
            assert!(now.contains_key(number), "{what}: {number} is gone from {now:?}");
        }
        let ever_live = |name: &str| {
            name == CLAIMS
                || name.starts_with("claims_before_")
                || name.starts_with("claims_failed_")
        };
        let kept = now.iter().filter(|(_, name)| ever_live(name));
        self.kept.extend(kept.map(|(number, _)| *number));
    }

    /// The databases that somebody told the server to drop since the last look: it logs that.
    fn dropped(&mut self) -> Vec<String> {
        let Some(local) = self.stage.server.local() else { return Vec::new() };
        let mut log = std::fs::File::open(local.server().unwrap().log()).unwrap();
        log.seek(SeekFrom::Start(self.read)).unwrap();
        let mut text = Vec::new();
        self.read += log.read_to_end(&mut text).unwrap() as u64;
        let text = String::from_utf8_lossy(&text).into_owned();
        let told = text.lines().filter_map(|line| line.split_once("statement: "));
        let mut names = Vec::new();
        for (_, statement) in told {
            let mut words = statement.split_whitespace().map(|word| word.trim_matches(['"', ';']));
            let is =
                |word: Option<&str>, wanted| word.is_some_and(|w| w.eq_ignore_ascii_case(wanted));
            if is(words.next(), "drop") && is(words.next(), "database") {
                let named =
                    words.find(|word| !["if", "exists"].contains(&&word.to_lowercase()[..]));
                names.push(named.unwrap().to_owned());
            }
        }
        names
    }

    /// The old database live, and nothing else there: by the program's own commands.
    pub async fn reset(&mut self, random: &mut StdRng) {
        let name = self.databases().await.remove(&self.old_number).expect("the old one is gone");
        if let Some(run) = name.strip_prefix("claims_before_") {
            self.stage.restore(&["--rollback", "--run", run]).await.expect(0);
        }
        assert_eq!(self.in_order(&"reset").await, Live::Old);
        self.assert_nothing_lost("--rollback").await;
        self.clean_up(random).await;
        self.stage.order();
    }

    /// What was killed before it could be marked tells its age by its name.
    async fn date_unmarked(&self, time: Timestamp) {
        let sql = format!(
            "SELECT coalesce(string_agg(format('ALTER DATABASE %I RENAME TO %I', datname,
                regexp_replace(datname, '[0-9a-f]+$', '{:x}')), ';'), '') FROM pg_database
             WHERE datname LIKE 'marb\\_restoring\\_%' AND shobj_description(oid, 'pg_database') IS NULL",
            time.as_nanosecond()
        );
        let renames = self.stage.server.sql("postgres", &sql).await.unwrap();
        for rename in renames.split(';').filter(|rename| !rename.is_empty()) {
            println!("  left without a mark: {rename}");
            self.stage.server.sql("postgres", rename).await.unwrap();
        }
    }

    /// Everything goes once it is old enough and a newer backup was verified, and not before.
    async fn clean_up(&mut self, random: &mut StdRng) {
        let later = Timestamp::now() - SignedDuration::from_hours(30);
        if random.gen_bool(0.3) {
            self.stage.date_marks("started", later).await;
            let cleaned = self.stage.restore(&["--cleanup"]).await.expect(0);
            self.assert_nothing_lost("a cleanup without a newer backup").await;
            let left = self.stage.others().await;
            assert!(!left.contains("restoring"), "{left}: {cleaned:#?}");
        }
        self.stage.date_marks("started|swapped|put_back", later).await;
        self.date_unmarked(later).await;
        let cleaned = self.stage.restore(&["--cleanup"]).await.expect(0);
        assert!(self.dropped().iter().all(|name| name != CLAIMS), "{cleaned:#?}");
        let left = self.databases().await;
        assert_eq!(left, BTreeMap::from([(self.old_number, CLAIMS.to_owned())]), "{cleaned:#?}");
        self.kept = BTreeSet::from([self.old_number]);
    }
}

/// What the new version of the application needs.
const MIGRATE: &str =
    "psql -X -q -v ON_ERROR_STOP=1 -d \"$DATABASE_URL\" -c 'CREATE TABLE migrated (n int)'";
