//! How far each sink of a fan-out has come, and which of them holds the others up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Limits;

/// More than any number of chunks: a sink that has everything.
const READY: u64 = u64::MAX;

/// Shared by the workers of one fan-out.
#[derive(Clone)]
pub(super) struct Standings {
    /// Chunks that each sink took; `None` for one that failed.
    taken: Arc<watch::Sender<Vec<Option<u64>>>>,
    required: usize,
}

impl Standings {
    /// So many sinks at the start, of which so many must arrive.
    pub(super) fn new(sinks: usize, required: usize) -> Self {
        Self { taken: Arc::new(watch::Sender::new(vec![Some(0); sinks])), required }
    }

    /// The sink took one more chunk.
    pub(super) fn took(&self, sink: usize) {
        self.taken.send_modify(|taken| {
            taken[sink] = taken[sink].map(|chunks| chunks.saturating_add(1));
        });
    }

    /// The sink has everything.
    pub(super) fn is_ready(&self, sink: usize) {
        self.taken.send_modify(|taken| taken[sink] = Some(READY));
    }

    /// The sink failed.
    pub(super) fn is_out(&self, sink: usize) {
        self.taken.send_modify(|taken| taken[sink] = None);
    }

    /// How long a sink that failed may take to clean up: where others go on, they wait for it.
    pub(super) fn patience_for_the_failed(&self, limits: Limits) -> Duration {
        if self.required < self.taken.borrow().len() {
            limits.sink_stall.min(limits.optional_stall)
        } else {
            limits.sink_stall
        }
    }

    /// Waits until the run could go on without this sink: as many others as are required have
    /// come further. With pipes of a few chunks they soon wait for it, if they don't yet.
    pub(super) async fn is_dispensable(&self, sink: usize) {
        let ahead = |taken: &Vec<Option<u64>>| {
            let further = taken.iter().filter(|other| other.is_some() && **other > taken[sink]);
            further.count() >= self.required
        };
        // Fails only when the sender is gone, and it is ours.
        let _ = self.taken.subscribe().wait_for(ahead).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn dispensable(standings: &Standings, sink: usize) -> bool {
        let wait = standings.is_dispensable(sink);
        tokio::time::timeout(Duration::from_millis(20), wait).await.is_ok()
    }

    #[tokio::test]
    async fn only_who_is_behind_enough_others_is_dispensable() {
        let standings = Standings::new(3, 2);
        assert!(!dispensable(&standings, 0).await, "nobody has begun");
        standings.took(1);
        assert!(!dispensable(&standings, 0).await, "one is not enough");
        standings.took(2);
        assert!(dispensable(&standings, 0).await);
        assert!(!dispensable(&standings, 1).await);
        standings.is_ready(1);
        standings.is_out(2);
        assert!(!dispensable(&standings, 0).await, "one that failed is no replacement");
    }

    #[tokio::test]
    async fn where_all_are_required_nobody_is_dispensable() {
        let standings = Standings::new(2, 2);
        standings.is_ready(1);
        assert!(!dispensable(&standings, 0).await);
    }
}
