//! A deployment's files in a folder, and a job that backs them up.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use tokio::process::Command;

use crate::support::{Finished, Scratch, finish, program};

/// A user that may do nothing.
pub const NOBODY: u32 = 65534;
/// Another user, who has a name everywhere.
const DAEMON: u32 = 1;
/// The large file: sparse, so that it costs only the time to read it.
const LARGE_BYTES: u64 = 64 << 20;
const LARGE_BYTES_IN_SOAK: u64 = 1 << 30;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Files below a folder of the scratch, and a config with the job `config`.
pub struct Files {
    pub scratch: Scratch,
    _socket: Option<std::os::unix::net::UnixListener>,
}

impl Files {
    /// What an old deployment had, and everything that is hard to keep.
    pub fn deployment() -> Self {
        let mut files = Self::with_paths(&[
            "app/*",
            "app/.env",
            "etc/nginx/sites-available/*",
            "etc/nginx/sites-enabled",
            "etc/systemd/system/marb.service",
            "etc/systemd/system/celery.service",
            "etc",
            "app",
        ]);
        files.write("app/.env", "SECRET=sehr-geheim-42\n", 0o600);
        files.write("etc/nginx/sites-available/marb", "server { listen 443; }\n", 0o644);
        std::fs::create_dir(files.file("etc/nginx/sites-enabled")).unwrap();
        let enabled = files.file("etc/nginx/sites-enabled/marb");
        symlink("../sites-available/marb", enabled).unwrap();
        files.write("etc/systemd/system/marb.service", "[Service]\n", 0o644);
        files.write("etc/systemd/system/celery.service", "[Service]\nExecStart=x\n", 0o644);
        files.write("etc/ssl/private/marb.key", "-----BEGIN", 0o400);
        files.write("etc/ssl/certs/marb.pem", "-----BEGIN CERT", 0o444);
        std::fs::set_permissions(files.file("etc/ssl/private"), PermissionsExt::from_mode(0o710))
            .unwrap();
        files.write("app/a name with spaces", "1", 0o644);
        files.write("app/new\nline and \t tab", "2", 0o644);
        files.write("app/ünï¢ode 🦀", "3", 0o644);
        files.write("app/empty", "", 0o4755);
        files.write(&format!("app/{}/{}", "d".repeat(200), "f".repeat(200)), "long", 0o644);
        let raw = files.file("app").join(OsStr::from_bytes(b"\xff\xfe raw"));
        std::fs::write(raw, "4").unwrap();
        let large = std::fs::File::create(files.file("app/large")).unwrap();
        let soak = std::env::var_os("MARB_SOAK").is_some();
        let size = if soak { LARGE_BYTES_IN_SOAK } else { LARGE_BYTES };
        large.set_len(size).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&large, b"in the middle", size / 2).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_500_000_000, 123_456_789);
        large.set_modified(old).unwrap();
        files.attributes();
        if is_root() {
            for name in ["app", "app/.env"] {
                chown(files.file(name), Some(DAEMON), Some(DAEMON)).unwrap();
            }
            chown(files.file("app/empty"), Some(4_000_000), Some(4_000_001)).unwrap();
            std::fs::set_permissions(files.file("app/empty"), PermissionsExt::from_mode(0o4755))
                .unwrap();
        }
        let socket = std::os::unix::net::UnixListener::bind(files.file("app/run.sock")).unwrap();
        files._socket = Some(socket);
        files
    }

    /// One secret.
    pub fn small() -> Self {
        let files = Self::with_paths(&["app/.env"]);
        files.write("app/.env", "SECRET=sehr-geheim-42\n", 0o600);
        files
    }

    fn with_paths(paths: &[&str]) -> Self {
        let scratch = Scratch::new("postgresql:///nowhere");
        let files = Self { scratch, _socket: None };
        std::fs::create_dir_all(files.root()).unwrap();
        files.configure(paths);
        files
    }

    /// Writes a config whose job has these paths.
    pub fn configure(&self, paths: &[&str]) {
        let paths: Vec<String> =
            paths.iter().map(|path| format!("'{}'", self.file(path).display())).collect();
        let config = format!(
            "state_dir = '{state}'\n[storage.local]\nurl = 'file://{backups}'\n\
             [encryption]\npassphrase = {{ file = '{key}' }}\n\
             [job.config]\nfiles = {{ paths = [{paths}] }}\nstorages = ['local']\n",
            state = self.path("state"),
            backups = self.path("backups"),
            key = self.path("key"),
            paths = paths.join(", "),
        );
        self.scratch.write("marb-backup.toml", &config);
    }

    /// Extended attributes and ACLs, where the file system has them.
    fn attributes(&self) {
        let set = |name: &str, key: &str, value: &[u8]| {
            rustix::fs::setxattr(self.file(name), key, value, XattrFlags::empty()).unwrap();
        };
        set("app/.env", "user.origin", b"vault=prod\n100%\0end");
        set("app", "user.e=mpty%3D", b"");
        let key = "etc/ssl/private/marb.key";
        set(key, "system.posix_acl_access", &acl(&[(1, 4), (4, 0), (16, 4), (32, 0)], 4));
        let folder = "etc/nginx";
        set(folder, "system.posix_acl_default", &acl(&[(1, 7), (4, 5), (16, 7), (32, 0)], 6));
    }

    /// The real path of the folder that holds the files.
    pub fn root(&self) -> PathBuf {
        self.scratch.path("").canonicalize().unwrap().join("root")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn app(&self) -> String {
        self.file("app").display().to_string()
    }

    pub fn path(&self, name: &str) -> String {
        self.scratch.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, content: &str, mode: u32) {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.scratch.run(arguments).await
    }

    /// The folder of the only backup.
    pub fn backup_folder(&self) -> PathBuf {
        let files = self.scratch.stored_files();
        let manifest = files.iter().find(|file| file.ends_with("manifest.json")).unwrap();
        manifest.parent().unwrap().to_owned()
    }

    /// Lets everybody read the storage, the config and the key, and write the state.
    pub fn share(&self) {
        let mut open = vec![self.scratch.path("backups"), self.scratch.path("state")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            let mode = if path.is_dir() { 0o777 } else { 0o666 };
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        for (name, mode) in
            [("", 0o755), ("marb-backup.toml", 0o644), ("key", 0o644), ("root", 0o755)]
        {
            let path = self.scratch.path(name);
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
    }

    /// Runs the program as a user that owns nothing here.
    pub async fn run_as_nobody(&self, arguments: &[&str]) -> Finished {
        // Its folder may be closed to others.
        let copy = self.scratch.path("program");
        if !copy.exists() {
            std::fs::copy(program(), &copy).unwrap();
            std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new(copy);
        command
            .args(arguments)
            .current_dir(self.scratch.path(""))
            .env_remove("MARB_BACKUP_CONFIG")
            .env("HOME", Path::new("/nonexistent"))
            .env("NO_COLOR", "1")
            .uid(NOBODY)
            .gid(NOBODY);
        finish(command).await
    }
}

/// An ACL as the kernel keeps it: these entries, and one for the user `daemon`.
pub fn acl(entries: &[(u16, u16)], for_daemon: u16) -> Vec<u8> {
    let mut raw = 2u32.to_le_bytes().to_vec();
    let mut add = |tag: u16, permissions: u16, id: u32| {
        raw.extend(tag.to_le_bytes());
        raw.extend(permissions.to_le_bytes());
        raw.extend(id.to_le_bytes());
    };
    for (at, (tag, permissions)) in entries.iter().enumerate() {
        if at == 1 {
            add(2, for_daemon, DAEMON);
        }
        add(*tag, *permissions, u32::MAX);
    }
    raw
}
