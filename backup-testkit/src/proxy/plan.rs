//! What goes wrong, where in the traffic, and how often.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// The longest pause and the longest delay of a seeded plan: a thousand of them must end.
const SEEDED_STALL: Duration = Duration::from_millis(1500);
const SEEDED_DELAY: Duration = Duration::from_millis(40);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What happens to the connection that carries the fatal byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both ends get a reset (RST).
    Reset,
    /// Both ends get an orderly end (FIN), as if the other had said all it had to say.
    Truncate,
    /// Nothing passes either way for this long, then all goes on; for ever without a duration,
    /// or until the plan is changed. The connection stays open.
    Stall(Option<Duration>),
    /// Every chunk, of 16 KiB at most and either way, waits this long from then on.
    Delay(Duration),
    /// One bit of the next byte in the plan's direction is inverted.
    Flip,
}

/// How often a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Once,
    Every(u64),
    Always,
}

/// What a [`FaultProxy`](super::FaultProxy) does; the same plan does the same to the same
/// traffic.
///
/// ```
/// use backup_testkit::proxy::{Direction, Fault, Plan};
/// let once = Plan::after_bytes(100_000, Direction::Up, Fault::Reset);
/// assert_ne!(once, once.for_ever());
/// assert_eq!(Plan::from_seed(17, 1 << 20), Plan::from_seed(17, 1 << 20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan(pub(super) Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pass,
    Refuse,
    Unanswered,
    Strike(Strike),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strike {
    at: u64,
    direction: Direction,
    fault: Fault,
    repeat: Repeat,
}

impl Plan {
    /// Everything passes.
    pub fn pass() -> Self {
        Self(Kind::Pass)
    }

    /// New connections are refused, as by a host on which nothing listens. Open ones go on.
    pub fn refuse() -> Self {
        Self(Kind::Refuse)
    }

    /// New connections are not answered at all, as by a host to which there is no route: only
    /// the client's own deadline ends the attempt. Open ones go on. Linux only.
    pub fn unanswered() -> Self {
        Self(Kind::Unanswered)
    }

    /// `fault` once `bytes` of all connections together have passed in `direction`, counted from
    /// when the plan took effect: exactly so many go on to the receiver, then it happens, once.
    /// With 0 the first connection meets it before any byte.
    pub fn after_bytes(bytes: u64, direction: Direction, fault: Fault) -> Self {
        Self(Kind::Strike(Strike { at: bytes, direction, fault, repeat: Repeat::Once }))
    }

    /// The same, then again each time `bytes` (not 0) more have passed.
    #[must_use]
    pub fn again_every(self, bytes: u64) -> Self {
        self.repeated(Repeat::Every(bytes.max(1)))
    }

    /// The same, then on every connection: on a new one before any byte, on an open one with the
    /// next in the plan's direction.
    #[must_use]
    pub fn for_ever(self) -> Self {
        self.repeated(Repeat::Always)
    }

    /// A fault at random: mostly once, early moments as likely as late ones.
    ///
    /// `span` is about how many bytes an attempt moves; the moment lies below it, spread evenly
    /// over its orders of magnitude, so that the few bytes of answers are hit as the many of data
    /// are. No seeded fault stalls for longer than 1.5 s, and what comes again lets an attempt
    /// through in between: whoever tries again in the end succeeds.
    pub fn from_seed(seed: u64, span: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let span = span.max(2);
        let magnitude = rng.gen_range(0.0..(span as f64).ln());
        let at = magnitude.exp() as u64;
        let direction = if rng.r#gen() { Direction::Up } else { Direction::Down };
        let fault = match rng.gen_range(0..4) {
            0 => Fault::Reset,
            1 => Fault::Truncate,
            2 => Fault::Stall(Some(SEEDED_STALL.mul_f64(rng.r#gen()))),
            _ => Fault::Delay(SEEDED_DELAY.mul_f64(rng.r#gen())),
        };
        let plan = Self::after_bytes(at, direction, fault);
        if rng.gen_ratio(1, 4) { plan.again_every(span + span / 2) } else { plan }
    }

    fn repeated(mut self, repeat: Repeat) -> Self {
        if let Kind::Strike(strike) = &mut self.0 {
            strike.repeat = repeat;
        }
        self
    }
}

impl Strike {
    /// A connection that is delayed already has no further delay to come.
    fn concerns(&self, direction: Direction, delayed: bool) -> bool {
        self.direction == direction && !(delayed && matches!(self.fault, Fault::Delay(_)))
    }

    /// Without a byte there is nothing to invert.
    fn flips(&self) -> bool {
        self.fault == Fault::Flip
    }
}

/// A plan on its way: what has passed since it took effect, and when it strikes next.
#[derive(Debug)]
pub(super) struct Course {
    strike: Option<Strike>,
    passed: u64,
    strikes: u64,
}

impl Course {
    pub(super) fn new(plan: Plan) -> Self {
        let strike = if let Kind::Strike(strike) = plan.0 { Some(strike) } else { None };
        Self { strike, passed: 0, strikes: 0 }
    }

    /// How many bytes may pass before the fault.
    pub(super) fn allowance(&self, direction: Direction, delayed: bool) -> u64 {
        let strike = self.strike.filter(|strike| strike.concerns(direction, delayed));
        let left = |strike: Strike| match strike.at.saturating_sub(self.passed) {
            // It goes on all the same: the fault is in what passes.
            0 if strike.flips() && strike.repeat == Repeat::Always => u64::MAX,
            left => left,
        };
        strike.map_or(u64::MAX, left)
    }

    /// Notes what passed and gives the fault that comes now.
    pub(super) fn pass(
        &mut self,
        direction: Direction,
        delayed: bool,
        bytes: u64,
    ) -> Option<Fault> {
        let strike = self.strike.filter(|strike| strike.direction == direction)?;
        self.passed += bytes;
        let comes = strike.concerns(direction, delayed) && self.passed >= strike.at;
        if comes { self.happens() } else { None }
    }

    /// The fault that a new connection meets before any byte.
    pub(super) fn connected(&mut self) -> Option<Fault> {
        let due = |strike: &Strike| self.passed >= strike.at && !strike.flips();
        let due = self.strike.as_ref().is_some_and(due);
        if due { self.happens() } else { None }
    }

    /// How often the plan struck.
    pub(super) fn strikes(&self) -> u64 {
        self.strikes
    }

    fn happens(&mut self) -> Option<Fault> {
        let mut strike = self.strike.take()?;
        self.strikes += 1;
        self.strike = match strike.repeat {
            Repeat::Once => None,
            Repeat::Every(bytes) => {
                strike.at = self.passed.saturating_add(bytes);
                Some(strike)
            }
            Repeat::Always => Some(strike),
        };
        Some(strike.fault)
    }
}
