//! `cargo xtask containers up|down`: a container engine and PostgreSQL images for the tests.
//!
//! Where an engine answers, it is used, with the official images when they can be pulled. Else
//! `up` installs and starts one that listens on 127.0.0.1 only, and makes the images here.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::packages::need;
use crate::program::{command, is_there, output, run as run_program, run_command};
use crate::servers::{self, cache};

/// The versions the tests run against.
pub const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];
/// The name pattern of the images made here, and of the official ones.
const OWN_IMAGE: &str = "marb-backup-tests/postgres:{major}";
const OFFICIAL_IMAGE: &str = "postgres:{major}";
const OWN_ENGINE: &str = "tcp://127.0.0.1:12375";
const BRIDGE: &str = "172.30.78.1/24";
const ENGINE_START_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts or ends the engine.
pub fn run(args: &[String]) -> Outcome {
    match args.first().map(String::as_str) {
        Some("up") => up(),
        Some("down") => down(),
        _ => Err("say `containers up` or `containers down`".into()),
    }
}

/// What the tests would run in, when an engine answers and has every image or can pull it.
pub fn usable() -> Option<String> {
    if std::env::var("MARB_TEST_POSTGRES").is_ok_and(|wanted| wanted == "local") {
        return None;
    }
    let version = engine_version()?;
    let pattern =
        std::env::var("MARB_TEST_POSTGRES_IMAGE").unwrap_or_else(|_| OFFICIAL_IMAGE.into());
    for major in MAJORS {
        let image = pattern.replace("{major}", &major.to_string());
        let there = output("docker", &["image", "inspect", &image]).is_ok();
        if !there && run_program("docker", &["pull", "--quiet", &image]).is_err() {
            println!("A container engine answers, but has no image {image}.");
            return None;
        }
    }
    Some(format!("Docker {version}, {pattern}"))
}

fn up() -> Outcome {
    if engine_version().is_some() {
        println!("A container engine answers.");
    } else {
        start_engine()?;
    }
    let folder = cache().join("image");
    fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    make_base(&folder)?;
    for major in MAJORS {
        make_image(&folder, major)?;
    }
    println!("\nThe tests use it after:\n");
    println!("export DOCKER_HOST={}", engine());
    println!("export MARB_TEST_POSTGRES_IMAGE='{OWN_IMAGE}'");
    Ok(())
}

fn down() -> Outcome {
    let pid_file = cache().join("engine.pid");
    let Ok(pid) = fs::read_to_string(&pid_file) else {
        println!("No engine of ours runs.");
        return Ok(());
    };
    run_program("kill", &[pid.trim()])?;
    let deadline = Instant::now() + ENGINE_START_TIMEOUT;
    while pid_file.exists() && Instant::now() < deadline {
        sleep(Duration::from_millis(200));
    }
    if pid_file.exists() { Err(format!("the engine ({pid}) did not end")) } else { Ok(()) }
}

fn engine() -> String {
    let given = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    given.unwrap_or_else(|| {
        let socket = Path::new("/var/run/docker.sock");
        if socket.exists() { format!("unix://{}", socket.display()) } else { OWN_ENGINE.into() }
    })
}

fn engine_version() -> Option<String> {
    if !is_there("docker") {
        return None;
    }
    let args = ["--host", &engine(), "version", "--format", "{{.Server.Version}}"];
    output("docker", &args).ok().map(|version| version.trim().to_owned())
}

fn start_engine() -> Outcome {
    need(&[("dockerd", "docker.io"), ("docker", "docker.io"), ("containerd", "docker.io")])?;
    fs::create_dir_all(cache()).map_err(|e| e.to_string())?;
    let place = |name: &str| cache().join(name).to_string_lossy().into_owned();
    let log = File::create(place("engine.log")).map_err(|e| e.to_string())?;
    let mut dockerd = command("dockerd", &["--host", OWN_ENGINE, "--tls=false"]);
    dockerd.args(["--data-root", &place("engine"), "--exec-root", &place("engine-run")]);
    dockerd.args(["--pidfile", &place("engine.pid"), "--storage-driver", "overlay2"]);
    // Ports on 127.0.0.1 through its own proxy: no rules in the machine's firewall.
    dockerd.args(["--ip", "127.0.0.1", "--iptables=false", "--ip6tables=false"]);
    dockerd.args(["--ip-masq=false", "--ip-forward=false", "--bip", BRIDGE]);
    dockerd.stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log);
    println!("Starting a container engine on {OWN_ENGINE}; its log is {}", place("engine.log"));
    let mut child = dockerd.process_group(0).spawn().map_err(|e| format!("dockerd: {e}"))?;
    let deadline = Instant::now() + ENGINE_START_TIMEOUT;
    while Instant::now() < deadline {
        if engine_version().is_some() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("dockerd ended ({status}), see {}", place("engine.log")));
        }
        sleep(Duration::from_millis(200));
    }
    child.kill().ok();
    Err(format!("dockerd did not answer, see {}", place("engine.log")))
}

fn docker(args: &[&str]) -> Outcome {
    run_program("docker", &[&["--host", &engine()], args].concat())
}

/// A small Debian of this machine's own package source.
fn make_base(folder: &Path) -> Outcome {
    if output("docker", &["--host", &engine(), "image", "inspect", "marb-backup-tests/base"])
        .is_ok()
    {
        return Ok(());
    }
    need(&[("mmdebstrap", "mmdebstrap")])?;
    let tar = folder.join("base.tar").to_string_lossy().into_owned();
    let suite = output("sh", &["-c", ". /etc/os-release && echo \"$VERSION_CODENAME\""])?;
    let include =
        "--include=libgssapi-krb5-2,liblz4-1,libssl3,libstdc++6,libxml2,libzstd1,tzdata,zlib1g";
    run_program("mmdebstrap", &["--variant=essential", include, suite.trim(), &tar])?;
    docker(&["import", &tar, "marb-backup-tests/base"])?;
    fs::remove_file(&tar).map_err(|e| e.to_string())
}

fn make_image(folder: &Path, major: u32) -> Outcome {
    let image = OWN_IMAGE.replace("{major}", &major.to_string());
    if output("docker", &["--host", &engine(), "image", "inspect", &image]).is_ok() {
        return Ok(());
    }
    let context = folder.join(major.to_string());
    fs::create_dir_all(&context).map_err(|e| e.to_string())?;
    let server = servers::packaged(major)?;
    let copy = context.join("server");
    let mut cp = command("cp", &["-a", "--reflink=auto"]);
    run_command(cp.arg(server).arg(&copy))?;
    let script = context.join("entrypoint.sh");
    fs::write(context.join("Dockerfile"), include_str!("image/Dockerfile"))
        .and_then(|()| fs::write(&script, include_str!("image/entrypoint.sh")))
        .map_err(|e| e.to_string())?;
    run_program("chmod", &["755", &script.to_string_lossy()])?;
    let context_arg = context.to_string_lossy();
    let mut build = command("docker", &["--host", &engine(), "build", "--quiet"]);
    build.args(["--tag", &image, &context_arg]).env("DOCKER_BUILDKIT", "0").stdout(Stdio::null());
    run_command(&mut build)?;
    fs::remove_dir_all(&context).map_err(|e| e.to_string())
}
