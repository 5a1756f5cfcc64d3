//! Faults, kills and commands in every mixture, by seed: a restore into a live database meets a
//! fault, something is killed at a step or after a while, and then one command is run. In the
//! end the live name is the old or the new database, whole to the last row, with all that belongs
//! to it; the services run; and nothing that ever was live is gone, unless `--cleanup` may do so.
//!
//! One seed is one case: `MARB_TEST_SEED=N` begins with it, `MARB_SOAK=N` runs so many times more.

mod blows;
mod scene;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::rig::soak;
use crate::support::{Finished, seed};
use crate::swap_kills::Live;
use blows::{Moment, Victim};
use scene::Scene;

/// Cases in tests.
const CASES: u64 = 4;

/// What goes wrong. Consecutive seeds go through all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Only this program is killed.
    ThisProgram,
    /// pg_restore is killed.
    PgRestore,
    /// A process of the server that serves a client is killed: the server starts again.
    Backend,
    /// The migration does half of its work and fails.
    Migration,
    /// The application does not work with the new database.
    Health,
    /// A service says that it can't be stopped, or just does not stop.
    Service,
    /// Sessions that connect again without pause.
    Sessions,
}

const FAULTS: [Fault; 7] = [
    Fault::ThisProgram,
    Fault::PgRestore,
    Fault::Backend,
    Fault::Migration,
    Fault::Health,
    Fault::Service,
    Fault::Sessions,
];

impl Fault {
    /// What the lines on stderr that tell a step hold, of the steps that a run with it comes to.
    fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Migration => &[
                "before (",
                "restoring into",
                "SQL checks",
                "migrate (",
                "on_failure (",
                "after (",
            ],
            Self::Service => &["restoring into", "stop (", "putting the old", "start (", "after ("],
            Self::Health => &[
                "stop (",
                "swapping the databases",
                "start (",
                "waiting for http",
                "putting the old",
                "on_failure (",
                "after (",
            ],
            _ => &[
                "before (",
                "restoring into",
                "SQL checks",
                "migrate (",
                "copying owner",
                "stop (",
                "swapping the databases",
                "start (",
                "waiting for http",
                "after (",
            ],
        }
    }
}

/// What somebody does afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    RestoreAgain,
    Rollback,
    Cleanup,
    /// Whatever the message named; where there was none, `--continue`.
    Named,
}

const COMMANDS: [Command; 4] =
    [Command::RestoreAgain, Command::Rollback, Command::Cleanup, Command::Named];

/// What a seed stands for.
#[derive(Debug)]
struct Case {
    fault: Fault,
    /// What is killed, and when.
    blow: Option<(Victim, Moment)>,
    command: Command,
    /// The fault is there during a second restore, too.
    lasts: bool,
    /// A service that can't be stopped: it hangs, or says so.
    hangs: bool,
}

impl Case {
    fn of(seed: u64, usual: Duration) -> (Self, StdRng) {
        let mut random = StdRng::seed_from_u64(seed);
        let fault = FAULTS[(seed % FAULTS.len() as u64) as usize];
        let victim = match fault {
            Fault::ThisProgram => Some(Victim::ThisProgram),
            Fault::PgRestore => Some(Victim::PgRestore),
            Fault::Backend => Some(Victim::Backend),
            _ => random.gen_bool(0.75).then_some(Victim::ThisProgram),
        };
        let moment = if random.gen_bool(0.5) {
            let step = fault.steps().choose(&mut random).unwrap();
            Moment::Step(step, Duration::from_millis(random.gen_range(0..80)))
        } else {
            Moment::After(usual.mul_f64(random.gen_range(0.0..1.1)))
        };
        let moment = match victim {
            // It is there for a short while only.
            Some(Victim::PgRestore) => Moment::Step("restoring into", Duration::ZERO),
            _ => moment,
        };
        let case = Self {
            fault,
            blow: victim.map(|victim| (victim, moment)),
            command: *COMMANDS.choose(&mut random).unwrap(),
            lasts: random.gen_bool(0.3),
            hangs: random.gen_bool(0.4),
        };
        (case, random)
    }
}

/// Runs of one fault, and what was live in the end.
#[derive(Debug, Default)]
struct Score {
    runs: u32,
    struck: u32,
    old: u32,
    new: u32,
}

#[tokio::test]
async fn faults_kills_and_commands_in_every_mixture() {
    let first = seed();
    let mut scene = Scene::set().await;
    let mut scores: BTreeMap<Fault, Score> = BTreeMap::new();
    for seed in first..first + soak(CASES) {
        let (case, mut random) = Case::of(seed, scene.usual);
        println!("MARB_TEST_SEED={seed}: {case:?}");
        let (struck, live) = play(&mut scene, &case, &mut random).await;
        let score = scores.entry(case.fault).or_default();
        score.runs += 1;
        score.struck += u32::from(struck);
        score.old += u32::from(live == Live::Old);
        score.new += u32::from(live == Live::New);
        scene.reset(&mut random).await;
    }
    for (fault, score) in &scores {
        println!("{fault:?}: {score:?}");
    }
}

/// One case to its end: whether the blow met something, and what is live.
async fn play(scene: &mut Scene, case: &Case, random: &mut StdRng) -> (bool, Live) {
    scene.arrange(case.fault, case.hangs);
    let restless = case.fault == Fault::Sessions;
    let sessions: Vec<_> = (0..2).filter(|_| restless).map(|_| scene.restless_session()).collect();
    let (first, struck) = scene.restore_struck(case.blow.as_ref()).await;
    println!("  restore: exit {}, struck: {struck}", first.code);
    scene.wait_for_server().await;
    scene.stage.scratch.assert_no_process_left();
    scene.assert_nothing_lost("the restore").await;
    // What lives to its end leaves nothing to do.
    if first.code != 137 {
        let live = scene.in_order(&first).await;
        let expected = if matches!(first.code, 0 | 3) { Live::New } else { Live::Old };
        assert_eq!(live, expected, "{first:#?}");
    }
    let lasts = case.lasts && case.fault == Fault::Migration;
    if !lasts {
        scene.mend();
    }
    let last = finish(scene, case, &first, lasts, random).await;
    let live = scene.in_order(&last).await;
    scene.mend();
    scene.stage.restore(&["latest", "--dry-run"]).await.expect(0);
    for session in sessions {
        session.abort();
    }
    (struck, live)
}

/// One command, or the one that it names when it may not do it itself.
async fn finish(
    scene: &mut Scene,
    case: &Case,
    first: &Finished,
    lasts: bool,
    random: &mut StdRng,
) -> Finished {
    let command = match case.command {
        Command::RestoreAgain => "latest",
        Command::Rollback => "--rollback",
        Command::Cleanup => "--cleanup",
        Command::Named => way_out(first, random).unwrap_or("--continue"),
    };
    let before = scene.databases().await;
    let run = scene.stage.restore(&[command]).await;
    println!("  {command}: exit {}", run.code);
    scene.assert_nothing_lost(command).await;
    if command == "--cleanup" {
        assert_eq!(scene.databases().await, before, "it is all of today: {run:#?}");
    }
    if !scene.is_settled().await {
        assert!(matches!((command, run.code), ("latest", 6) | ("--cleanup", 0)), "{run:#?}");
        assert_eq!(scene.databases().await, before, "{run:#?}");
        let Some(named) = way_out(&run, random) else { panic!("no way out is named: {run:#?}") };
        let last = scene.stage.restore(&[named]).await;
        println!("  {named}: exit {}", last.code);
        scene.assert_nothing_lost(named).await;
        judge(scene, named, &last, lasts).await;
        return last;
    }
    judge(scene, command, &run, lasts).await;
    run
}

/// What the command was for has come about.
async fn judge(scene: &mut Scene, command: &str, run: &Finished, lasts: bool) {
    let live = scene.in_order(run).await;
    match (command, run.code) {
        ("latest", 0) => assert_eq!(live, Live::New, "{run:#?}"),
        ("latest", 1) if lasts => assert_eq!(live, Live::Old, "{run:#?}"),
        ("--rollback", 0) => assert_eq!(live, Live::Old, "{run:#?}"),
        ("--continue", 1) => {
            assert!(run.stderr.contains("before it swapped anything"), "{run:#?}");
            assert_eq!(live, Live::Old, "{run:#?}");
        }
        // There was nothing to be done; or a rollback that had begun was finished.
        ("--rollback" | "--continue", 5) | ("--continue" | "--cleanup", 0) => {}
        _ => panic!("{command}: {run:#?}"),
    }
}

/// One of the commands that it said to run next.
fn way_out(run: &Finished, random: &mut StdRng) -> Option<&'static str> {
    let said = format!("{}{}", run.stdout, run.stderr);
    let mut ways = vec!["--rollback", "--continue"];
    ways.retain(|way| said.contains(&format!("restore {way}")));
    ways.choose(random).copied()
}
