//! Processes of this machine, as `ps` shows them to everybody.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Scratch;

/// How long a process may take to end after its parent did.
const ENDING_LIMIT: Duration = Duration::from_secs(10);

/// How long a run may take until it starts a client program.
const STARTING_LIMIT: Duration = Duration::from_secs(60);

/// A running process.
#[derive(Debug)]
pub struct Process {
    id: i32,
    arguments: Vec<String>,
}

impl Process {
    /// The file name of its program.
    pub fn program(&self) -> &str {
        let program = self.arguments.first().map_or("", |path| path.as_str());
        Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Whether it has this argument.
    pub fn has_argument(&self, argument: &str) -> bool {
        self.arguments.iter().any(|a| a == argument)
    }

    /// Sends it a signal, unless it is gone.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.id), signal);
    }
}

impl Scratch {
    /// Processes that calls of the program from this folder started, and the calls themselves:
    /// they inherit its `HOME`. Those that ended and were not waited for don't count.
    pub fn processes(&self) -> Vec<Process> {
        let home = format!("HOME={}", self.path("").display());
        let home = home.trim_end_matches('/').as_bytes();
        let ours = |environment: &[u8]| environment.split(|b| *b == 0).any(|one| one == home);
        process_ids()
            .filter(|id| std::fs::read(format!("/proc/{id}/environ")).is_ok_and(|e| ours(&e)))
            .map(|id| Process { id, arguments: arguments_of(id) })
            .filter(|process| !process.arguments.is_empty())
            .collect()
    }

    /// The pg_dump at work, not one that only tells its version.
    pub fn dumping(&self) -> Option<Process> {
        self.working("pg_dump")
    }

    /// A client program at work, not one that only tells its version.
    pub fn working(&self, program: &str) -> Option<Process> {
        let works = |p: &Process| p.program() == program && !p.has_argument("--version");
        self.processes().into_iter().find(works)
    }

    /// Waits until a client program is at work.
    pub async fn wait_for_process(&self, program: &str) {
        let deadline = Instant::now() + STARTING_LIMIT;
        while self.working(program).is_none() {
            assert!(Instant::now() < deadline, "{program} does not start");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Asserts that every process that was started is gone within a moment.
    #[track_caller]
    pub fn assert_no_process_left(&self) {
        let deadline = Instant::now() + ENDING_LIMIT;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still running: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The ids of all processes.
pub fn process_ids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process's arguments; none when it is gone.
pub fn arguments_of(id: i32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let arguments = line.split(|b| *b == 0).filter(|argument| !argument.is_empty());
    arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// Looks at the arguments of every process of this machine, over and over.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Vec<String>>>,
}

impl Watch {
    /// Begins to look.
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                seen.extend(process_ids().map(arguments_of));
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        Self { stop, thread }
    }

    /// Every command line that was seen.
    pub fn finish(self) -> BTreeSet<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Asserts that no file below `folder` holds one of these secrets; how many files there are.
pub fn assert_absent_below<S: AsRef<str>>(folder: &Path, secrets: &[S]) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += assert_absent_below(&path, secrets);
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let told = secrets.iter().map(AsRef::as_ref).find(|secret| text.contains(secret));
        assert_eq!(told, None, "in {}", path.display());
        files += 1;
    }
    files
}
