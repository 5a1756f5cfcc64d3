//! One stream into a storage: ours beside the tools that people use for it.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use backup_testkit::servers::{BUCKET, S3Access, S3Server, SftpOptions, SftpServer};
use rand::{RngCore, SeedableRng};

use crate::put;
use crate::subjects::Subject;
use crate::{Outcome, Ratio};

/// Bytes of the stream; random, since what is encrypted does not compress.
const STREAM_BYTES: usize = 512 * 1_000_000;
const BLOCK_BYTES: usize = 1_000_000;

/// What is read off the figures.
pub const RATIOS: [Ratio; 7] = [
    ("(i) ours : (g) aws s3 cp", 'i', 'g', "under 1.00"),
    ("(i) ours : (h) rclone rcat", 'i', 'h', "under 1.00"),
    ("(m) ours : (s) sftp, both on the disk", 'm', 's', "under 1.00"),
    ("(t) ours : (k) scp, neither on the disk", 't', 'k', "under 1.00"),
    ("(t) ours : (l) sftp, neither on the disk", 't', 'l', "under 1.00"),
    ("(m) ours on the disk : (k) scp not", 'm', 'k', "under 1.00"),
    ("(m) ours on the disk : (l) sftp not", 'm', 'l', "under 1.00"),
];

/// The servers, for as long as the comparison runs.
pub struct Servers {
    s3: S3Server,
    sftp: SftpServer,
    /// One that can't sync: there ours asks for as little as the others do.
    unsynced: SftpServer,
}

impl Servers {
    /// Starts them.
    pub async fn start() -> Outcome<Self> {
        let unsynced = SftpOptions {
            config: &["ForceCommand internal-sftp -P fsync"],
            ..SftpOptions::default()
        };
        Ok(Self {
            s3: S3Server::start().await?,
            sftp: SftpServer::start().await?,
            unsynced: SftpServer::start_with(&unsynced).await?,
        })
    }

    /// The commands to compare: to S3, then to SFTP.
    pub fn subjects(&self, folder: &Path) -> Outcome<Vec<Subject>> {
        let data = folder.join("stream");
        write_stream(&data)?;
        let mut subjects = self.s3_subjects(&data, folder)?;
        subjects.extend(self.sftp_subjects(&data, folder)?);
        Ok(subjects)
    }

    fn s3_subjects(&self, data: &Path, folder: &Path) -> Outcome<Vec<Subject>> {
        let keys = self.s3.keys(S3Access::Admin);
        let (endpoint, data) = (self.s3.endpoint(), data.display());
        let ours = std::env::current_exe()?;
        let environment = [
            ("AWS_ACCESS_KEY_ID", keys.access_key),
            ("AWS_SECRET_ACCESS_KEY", keys.secret_key),
            ("AWS_REGION", S3Server::REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("BENCH_SECRET_ACCESS_KEY_ID", keys.access_key),
            ("BENCH_SECRET_SECRET_ACCESS_KEY", keys.secret_key),
            ("RCLONE_CONFIG", "/dev/null"),
        ];
        let subject = |letter, what, script| Subject {
            letter,
            what,
            script,
            environment: environment.map(|(name, value)| (name.into(), value.into())).into(),
            output: folder.join("nothing"),
        };
        Ok(vec![
            subject(
                'g',
                "S3: `aws s3 cp - s3://...`",
                format!(
                    "cat {data} | aws --endpoint-url {endpoint} s3 cp --quiet - s3://{BUCKET}/aws --expected-size {STREAM_BYTES}"
                ),
            ),
            subject(
                'h',
                "S3: `rclone rcat`",
                format!(
                    "cat {data} | rclone rcat ':s3,provider=Other,env_auth=true,endpoint=\"{endpoint}\":{BUCKET}/rclone'"
                ),
            ),
            subject(
                'i',
                "S3: ours",
                format!(
                    "cat {data} | {} {} s3://{BUCKET}/ours endpoint={endpoint} region={}",
                    ours.display(),
                    put::FLAG,
                    S3Server::REGION
                ),
            ),
        ])
    }

    fn sftp_subjects(&self, data: &Path, folder: &Path) -> Outcome<Vec<Subject>> {
        let (here, target) = (Login::of(&self.sftp), self.sftp.folder());
        let subject = |letter, what, script| Subject {
            letter,
            what,
            script,
            environment: Vec::new(),
            output: folder.join("nothing"),
        };
        let (data, target) = (data.display(), target.display());
        let Login { options, port, user, .. } = &here;
        let sftp = |put: &str| {
            format!(
                "echo '{put} {data} {target}/sftp' | sftp {options} -P {port} -b - {user}@127.0.0.1 > /dev/null"
            )
        };
        Ok(vec![
            subject(
                'k',
                "SFTP: `scp`",
                format!("scp {options} -P {port} {data} {user}@127.0.0.1:{target}/scp"),
            ),
            subject('l', "SFTP: `sftp`, `put`", sftp("put")),
            subject('s', "SFTP: `sftp`, `put -f` (on the disk, as ours)", sftp("put -f")),
            subject('m', "SFTP: ours", here.ours(&data)?),
            subject(
                't',
                "SFTP: ours, to a server that can't sync",
                Login::of(&self.unsynced).ours(&data)?,
            ),
        ])
    }
}

/// How one logs in to a server.
struct Login {
    options: String,
    user: String,
    port: u16,
    url: String,
    own_options: String,
}

impl Login {
    fn of(server: &SftpServer) -> Self {
        let (key, hosts) = (server.key_file(), server.known_hosts_file());
        let (key, hosts) = (key.display(), hosts.display());
        let (user, port) = (server.user().to_owned(), server.address().port());
        Self {
            options: format!(
                "-q -o IdentityFile={key} -o UserKnownHostsFile={hosts} -o BatchMode=yes"
            ),
            url: format!("sftp://{user}@127.0.0.1:{port}{}/ours", server.folder().display()),
            own_options: format!("identity_file={key} known_hosts={hosts}"),
            user,
            port,
        }
    }

    /// Our putting of a file there.
    fn ours(&self, data: &impl Display) -> Outcome<String> {
        let (program, flag) = (std::env::current_exe()?, put::FLAG);
        let (url, options) = (&self.url, &self.own_options);
        Ok(format!("{} {flag} {url} {options} < {data}", program.display()))
    }
}

fn write_stream(path: &PathBuf) -> Outcome<()> {
    use std::io::Write;
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    let mut file = std::fs::File::create(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    for _ in 0..STREAM_BYTES / BLOCK_BYTES {
        random.fill_bytes(&mut block);
        file.write_all(&block)?;
    }
    Ok(())
}
