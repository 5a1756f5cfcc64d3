//! One stream into a storage: ours beside the tools that people use for it.

use std::path::{Path, PathBuf};

use backup_testkit::servers::{BUCKET, S3Access, S3Server, SftpServer};
use rand::{RngCore, SeedableRng};

use crate::put;
use crate::subjects::Subject;
use crate::{Outcome, Ratio};

/// Bytes of the stream; random, since what is encrypted does not compress.
const STREAM_BYTES: usize = 512 * 1_000_000;
const BLOCK_BYTES: usize = 1_000_000;

/// What is read off the figures.
pub const RATIOS: [Ratio; 4] = [
    ("(i) ours : (g) aws s3 cp", 'i', 'g', "under 1.00"),
    ("(i) ours : (h) rclone rcat", 'i', 'h', "under 1.00"),
    ("(m) ours : (k) scp", 'm', 'k', "under 1.00"),
    ("(m) ours : (l) sftp", 'm', 'l', "under 1.00"),
];

/// The servers, for as long as the comparison runs.
pub struct Servers {
    s3: S3Server,
    sftp: SftpServer,
}

impl Servers {
    /// Starts them.
    pub async fn start() -> Outcome<Self> {
        Ok(Self { s3: S3Server::start().await?, sftp: SftpServer::start().await? })
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
        let server = &self.sftp;
        let (user, port, data) = (server.user(), server.address().port(), data.display());
        let (key, hosts, target) = (server.key_file(), server.known_hosts_file(), server.folder());
        let (key, hosts, target) = (key.display(), hosts.display(), target.display());
        let options =
            format!("-q -o IdentityFile={key} -o UserKnownHostsFile={hosts} -o BatchMode=yes");
        let ours = std::env::current_exe()?;
        let subject = |letter, what, script| Subject {
            letter,
            what,
            script,
            environment: Vec::new(),
            output: folder.join("nothing"),
        };
        Ok(vec![
            subject(
                'k',
                "SFTP: `scp`",
                format!("scp {options} -P {port} {data} {user}@127.0.0.1:{target}/scp"),
            ),
            subject(
                'l',
                "SFTP: `sftp`",
                format!(
                    "echo 'put {data} {target}/sftp' | sftp {options} -P {port} -b - {user}@127.0.0.1 > /dev/null"
                ),
            ),
            subject(
                'm',
                "SFTP: ours",
                format!(
                    "{} {} sftp://{user}@127.0.0.1:{port}{target}/ours identity_file={key} known_hosts={hosts} < {data}",
                    ours.display(),
                    put::FLAG
                ),
            ),
        ])
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
