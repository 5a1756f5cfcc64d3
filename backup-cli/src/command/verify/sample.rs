//! `--sample 10%`: some of the backups, chosen at random.

use backup_core::{CatalogEntry, Error, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng, seq};

/// How many to choose, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    percent: f64,
    /// The same seed chooses the same of the same backups.
    pub seed: u64,
}

impl Sample {
    /// Reads `10%`. Without a seed it is another choice each time.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) for anything but a percentage.
    pub fn new(text: &str, seed: Option<u64>) -> Result<Self> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
        let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0);
        let percent = percent.ok_or_else(|| {
            Error::usage("flags", format!("--sample {text:?} is no percentage"))
                .next_step("write 10%, or 0.5%; at least one backup is taken")
        })?;
        // Short enough to be typed again.
        let seed = seed.unwrap_or_else(|| u64::from(rand::thread_rng().r#gen::<u32>()));
        Ok(Self { percent, seed })
    }

    /// Chooses, at least one; the order stays.
    pub fn choose<'a>(&self, mut entries: Vec<&'a CatalogEntry>) -> Vec<&'a CatalogEntry> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let of = entries.len();
        let mut chosen = seq::index::sample(&mut random, of, self.count(of)).into_vec();
        chosen.sort_unstable();
        let mut index = 0;
        entries.retain(|_| {
            index += 1;
            chosen.binary_search(&(index - 1)).is_ok()
        });
        entries
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count, rounded up"
    )]
    fn count(&self, of: usize) -> usize {
        let wanted = (of as f64 * self.percent / 100.0).ceil() as usize;
        wanted.clamp(1.min(of), of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_nothing() {
        let count = |text: &str, of| Sample::new(text, Some(1)).unwrap().count(of);
        assert_eq!([count("10%", 30), count("10%", 31), count("0.1%", 5)], [3, 4, 1]);
        assert_eq!([count("100%", 7), count("50 %", 1), count("10%", 0)], [7, 1, 0]);
        for wrong in ["10", "0%", "-1%", "101%", "x%", "NaN%", "%", ""] {
            assert!(Sample::new(wrong, None).is_err(), "{wrong}");
        }
    }
}
