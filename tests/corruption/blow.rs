//! What is done to a file, and how often what was expected came true.

use std::fmt;
use std::path::PathBuf;

use backup_core::layout;
use rand::Rng;
use rand::rngs::StdRng;

/// One bit flipped, or the rest cut off.
pub struct Blow {
    /// Which of the files.
    pub file: usize,
    /// Where in it.
    pub at: usize,
    /// Which bit; `None` cuts it off there.
    pub bit: Option<u8>,
}

impl Blow {
    /// The dump and the manifest are hit most; every file can be.
    pub fn random(files: &[PathBuf], flips: bool, random: &mut StdRng) -> Self {
        let often = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.contains(".dump") || name == layout::MANIFEST
        };
        let mut file = random.gen_range(0..files.len());
        if random.gen_bool(0.4) {
            let favourites: Vec<usize> = (0..files.len()).filter(|n| often(&files[*n])).collect();
            file = favourites[random.gen_range(0..favourites.len())];
        }
        let length = usize::try_from(std::fs::metadata(&files[file]).unwrap().len()).unwrap();
        let bit = flips.then(|| random.gen_range(0..8));
        Self { file, at: random.gen_range(0..length), bit }
    }

    /// The file's bytes behind it.
    pub fn on(&self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        match self.bit {
            Some(bit) => bytes[self.at] ^= 1 << bit,
            None => bytes.truncate(self.at),
        }
        bytes
    }

    /// In words.
    pub fn describe(&self, whole: &[u8]) -> String {
        let (at, length) = (self.at, whole.len());
        match self.bit {
            Some(bit) => format!("bit {bit} of byte {at} of {length} flipped"),
            None => format!("cut off at byte {at} of {length}"),
        }
    }
}

/// How often what was expected came true.
#[derive(Default)]
pub struct Score {
    pub cases: usize,
    pub found: usize,
    pub by_checksums: usize,
    pub refused: usize,
    pub exact: usize,
    pub real: usize,
    pub missed: Vec<String>,
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cases, found, by_checksums, refused, exact, real, missed } = self;
        write!(
            f,
            "{cases} damaged: verify found {found}, by checksums alone {by_checksums}; restore refused {refused} \
             and gave back exactly the original {exact} times; {real} of these restores ran into a \
             real server, too; {} wrong",
            missed.len()
        )
    }
}
