//! Everything that needs the real gpg.

use std::io::{self, Read, Write};

use backup_core::{Error, Result, Transform};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::{OpenPgp, Passphrase};

mod anywhere;
mod authenticate;
mod damage;
mod ends;
mod exchange;
mod gpg;
mod keys;

/// Half text, half noise, different for every seed.
fn sample(seed: u64, length: usize) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = vec![0; length];
    random.fill_bytes(&mut bytes[length / 2..]);
    for (at, byte) in bytes[..length / 2].iter_mut().enumerate() {
        *byte = b"claims paid\n"[at % 12];
    }
    bytes
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::from_file_bytes(text.as_bytes()).unwrap()
}

fn with(text: &str) -> OpenPgp {
    OpenPgp::new().with_passphrase(passphrase(text))
}

fn seal(openpgp: &OpenPgp, plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    openpgp.encode(&mut &plain[..], &mut sealed).unwrap();
    sealed
}

fn open(openpgp: &OpenPgp, sealed: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    openpgp.decode(&mut &sealed[..], &mut plain).map(|()| plain)
}

/// Rounds of a sweep: `MARB_SOAK=1000` for a long one.
fn rounds() -> u64 {
    std::env::var("MARB_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// Gives the bytes in pieces of at most `piece`, then fails if there is a failure to give.
struct Trickle<'a> {
    bytes: &'a [u8],
    piece: usize,
    failure: Option<io::Error>,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.piece).min(self.bytes.len());
        if n == 0 {
            return self.failure.take().map_or(Ok(0), Err);
        }
        buffer[..n].copy_from_slice(&self.bytes[..n]);
        self.bytes = &self.bytes[n..];
        Ok(n)
    }
}

/// Takes so many bytes, few at a time, and then fails.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(Error::failed("disk", "no space left").into_io());
        }
        let n = bytes.len().min(self.0).min(1000);
        self.0 -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A random bit of `bytes`, flipped.
fn flip(bytes: &[u8], random: &mut StdRng) -> (usize, Vec<u8>) {
    let at = random.gen_range(0..bytes.len());
    let mut flipped = bytes.to_vec();
    flipped[at] ^= 1 << random.gen_range(0..8);
    (at, flipped)
}
