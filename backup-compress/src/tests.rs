//! What both codecs promise, against the stock programs, failing ends and damaged data.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use backup_core::{Error, ErrorKind, Transform};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{Gzip, Zstd, decoder, recognise};

mod frames;

/// Longer than two gzip members, and no multiple of one.
const SAMPLE_BYTES: usize = 2_500_001;

fn codecs() -> Vec<Box<dyn Transform>> {
    vec![
        Box::new(Gzip { level: 6, threads: 1 }),
        Box::new(Gzip { level: 1, threads: 3 }),
        Box::new(Zstd { level: 3, threads: 1 }),
        Box::new(Zstd { level: 1, threads: 2 }),
    ]
}

/// Text that compresses, different for every seed.
fn sample(seed: u64, length: usize) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut text = Vec::with_capacity(length + 64);
    while text.len() < length {
        let n: u32 = random.r#gen();
        writeln!(text, "{n}\tclaim {} was paid\t{}", n % 977, n % 13).unwrap();
    }
    text.truncate(length);
    text
}

fn pack(codec: &dyn Transform, plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    codec.encode(&mut &plain[..], &mut packed).unwrap();
    packed
}

fn unpack(codec: &dyn Transform, packed: &[u8]) -> backup_core::Result<Vec<u8>> {
    let mut plain = Vec::new();
    codec.decode(&mut &packed[..], &mut plain).map(|()| plain)
}

/// Rounds of a damage sweep: `MARB_SOAK=1000` for a long one.
fn rounds() -> u64 {
    std::env::var("MARB_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// Runs a stock program over `input`; `None` when it ended badly.
fn stock(command: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // The program may end early; then the pipe breaks, and its exit status tells.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    output.status.success().then_some(output.stdout)
}

/// Gives so many bytes, in pieces of at most `piece`, and then fails.
struct Failing<'a> {
    bytes: &'a [u8],
    piece: usize,
    failure: Option<io::Error>,
}

impl Read for Failing<'_> {
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

/// Takes so many bytes and then fails.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(Error::failed("disk", "no space left").into_io());
        }
        let n = bytes.len().min(self.0);
        self.0 -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_length_comes_back() {
    let edge = 1024 * 1024;
    for codec in codecs() {
        for length in [0, 1, 1000, edge - 1, edge, edge + 1, 2 * edge, SAMPLE_BYTES, 9 * edge] {
            let plain = sample(length as u64, length);
            let packed = pack(&*codec, &plain);
            assert_eq!(recognise(&packed), Some(codec.name()));
            let by_name = decoder(codec.name()).unwrap();
            assert!(unpack(&*by_name, &packed).unwrap() == plain, "{} of {length}", codec.name());
        }
    }
}

#[test]
fn one_byte_at_a_time_comes_back() {
    for codec in codecs() {
        let plain = sample(1, 300_000);
        let mut packed = Vec::new();
        let mut input = Failing { bytes: &plain, piece: 1, failure: None };
        codec.encode(&mut input, &mut packed).unwrap();
        let mut back = Vec::new();
        codec.decode(&mut Failing { bytes: &packed, piece: 1, failure: None }, &mut back).unwrap();
        assert!(back == plain, "{}", codec.name());
    }
}

#[test]
fn the_stock_programs_read_ours_and_we_read_theirs() {
    let plain = sample(2, SAMPLE_BYTES);
    for codec in codecs() {
        let packed = pack(&*codec, &plain);
        let (read, writes): (&[&str], &[&[&str]]) = match codec.name() {
            "gzip" => (&["gunzip", "-c"], &[&["gzip", "-c"], &["gzip", "-9", "-c"]]),
            _ => (
                &["zstd", "-d", "-c"],
                &[&["zstd", "-c"], &["zstd", "-19", "-T2", "-c"], &["zstd", "--no-check", "-c"]],
            ),
        };
        assert!(stock(read, &packed).unwrap() == plain, "{} by {read:?}", codec.name());
        for write in writes {
            let theirs = stock(write, &plain).unwrap();
            assert!(unpack(&*codec, &theirs).unwrap() == plain, "{write:?}");
        }
    }
}

#[test]
fn zstd_writes_a_checksum() {
    for threads in [1, 2] {
        let packed = pack(&Zstd { level: 3, threads }, &sample(3, 1000));
        // Bit 2 of the frame header descriptor.
        assert_eq!(packed[4] & 0b100, 0b100);
    }
}

#[test]
fn members_and_frames_may_follow_each_other() {
    let (a, b) = (sample(4, 1_200_000), sample(5, 70_000));
    for codec in codecs() {
        let packed = [pack(&*codec, &a), pack(&*codec, b""), pack(&*codec, &b)].concat();
        assert!(unpack(&*codec, &packed).unwrap() == [&a[..], &b].concat(), "{}", codec.name());
    }
}

#[test]
fn an_input_error_comes_out_as_it_was_and_leaves_no_complete_file() {
    let plain = sample(6, 4 * 1024 * 1024);
    for codec in codecs() {
        for length in [0, 1, 1024 * 1024, 2 * 1024 * 1024 + 5, plain.len()] {
            let failure = Error::new(ErrorKind::Interrupted, "source", "went away").into_io();
            let mut input =
                Failing { bytes: &plain[..length], piece: 65_536, failure: Some(failure) };
            let mut packed = Vec::new();
            let error = codec.encode(&mut input, &mut packed).unwrap_err();
            assert_eq!((error.stage(), error.kind()), ("source", ErrorKind::Interrupted));
            let error = unpack(&*codec, &packed).expect_err("half a stream passes for a whole one");
            assert!(error.message().contains("cut off"), "{} at {length}: {error}", codec.name());
        }
        let packed = pack(&*codec, &plain);
        for length in [0, 3, packed.len() / 2, packed.len()] {
            let failure = Some(io::Error::from(io::ErrorKind::UnexpectedEof));
            let mut input = Failing { bytes: &packed[..length], piece: 8192, failure };
            let error = codec.decode(&mut input, &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Failed, "{} at {length}: {error}", codec.name());
        }
    }
}

#[test]
fn an_output_error_comes_out_as_it_was() {
    let plain = sample(7, SAMPLE_BYTES);
    for codec in codecs() {
        let packed = pack(&*codec, &plain);
        for room in [0, 1, packed.len() - 1] {
            let error = codec.encode(&mut &plain[..], &mut Full(room)).unwrap_err();
            assert_eq!(error.stage(), "disk", "{}", codec.name());
        }
        for room in [0, 1, plain.len() - 1] {
            let error = codec.decode(&mut &packed[..], &mut Full(room)).unwrap_err();
            assert_eq!(error.stage(), "disk", "{}", codec.name());
        }
    }
}

#[test]
fn damaged_data_is_an_error_or_decodes_to_the_original() {
    for round in 0..rounds() {
        let seed = 0xC0FFEE + round;
        let mut random = StdRng::seed_from_u64(seed);
        let plain = sample(seed, random.gen_range(1..3_000_000));
        for codec in codecs() {
            let packed = pack(&*codec, &plain);
            let at = random.gen_range(0..packed.len());

            let error = unpack(&*codec, &packed[..at]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "seed {seed}, cut at {at}: {error}");

            let mut flipped = packed.clone();
            flipped[at] ^= 1 << random.gen_range(0..8);
            match unpack(&*codec, &flipped) {
                Ok(same) => assert!(same == plain, "seed {seed}, {} flip at {at}", codec.name()),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unchecked),
                    "seed {seed}, {} flip at {at}: {error:?}",
                    codec.name()
                ),
            }
        }
    }
}

#[test]
fn a_wrong_checksum_is_named() {
    for codec in codecs() {
        let mut packed = pack(&*codec, &sample(8, 5000));
        let at = packed.len() - if codec.name() == "gzip" { 8 } else { 4 };
        packed[at] ^= 1;
        let error = unpack(&*codec, &packed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.message().contains("checksum"), "{error}");
    }
}

#[test]
fn anything_behind_the_end_is_refused() {
    let tails: [(&[u8], &str); 5] = [
        (b"x", "follow"),
        (b"a whole sentence of rubbish", "follow"),
        (b"\0", "follow"),
        (&[0; 600_000], "follow"),
        (b"\x1f", "follow"),
    ];
    for codec in codecs() {
        let packed = pack(&*codec, &sample(9, 10_000));
        for (tail, words) in tails {
            let error = unpack(&*codec, &[&packed[..], tail].concat()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
            let short = error.message().contains("cut off") && tail.len() < 4;
            assert!(
                error.message().contains(words) || short,
                "{} {tail:.20?}: {error}",
                codec.name()
            );
        }
        let half = [&packed[..], &packed[..packed.len() / 2]].concat();
        assert!(unpack(&*codec, &half).unwrap_err().message().contains("cut off"));
    }
}

#[test]
fn something_else_is_no_compressed_data() {
    for codec in codecs() {
        for other in [&b"PGDMP\x01\x0e\x00 and so on"[..], b"-- PostgreSQL dump\n", &[0; 512]] {
            let error = unpack(&*codec, other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
            assert!(error.message().contains("does not start as"), "{error}");
        }
        assert!(unpack(&*codec, b"").unwrap_err().message().contains("cut off"));
    }
}

#[test]
fn a_window_beyond_the_limit_is_refused_by_name() {
    let huge = stock(&["zstd", "--long=28", "-c"], &sample(10, 100_000)).unwrap();
    let error = unpack(&Zstd::default(), &huge).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unchecked);
    assert!(error.message().contains("128 MiB"), "{error}");
    let large = stock(&["zstd", "--long=27", "-c"], &sample(10, 100_000)).unwrap();
    assert!(unpack(&Zstd::default(), &large).unwrap() == sample(10, 100_000));
}

#[test]
fn a_level_out_of_range_is_a_usage_error() {
    let codecs: [Box<dyn Transform>; 4] = [
        Box::new(Gzip { level: 0, threads: 1 }),
        Box::new(Gzip { level: 10, threads: 1 }),
        Box::new(Zstd { level: 0, threads: 1 }),
        Box::new(Zstd { level: 20, threads: 1 }),
    ];
    for codec in codecs {
        let error = codec.encode(&mut &b"x"[..], &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}

#[test]
fn only_compressed_data_is_recognised() {
    let mut tar = vec![0; 512];
    tar[..8].copy_from_slice(b"etc/conf");
    tar[257..262].copy_from_slice(b"ustar");
    let others: [&[u8]; 7] =
        [b"", b"\x1f", b"\x1f\x8b", b"PGDMP\x01\x0e", b"--\n-- PostgreSQL", b"(\xb5/", &tar];
    for other in others {
        assert_eq!(recognise(other), None, "{other:.10?}");
    }
    assert_eq!(recognise(&stock(&["gzip", "-c"], b"x").unwrap()), Some("gzip"));
    assert_eq!(recognise(&stock(&["zstd", "-c"], b"x").unwrap()), Some("zstd"));
    assert_eq!(recognise(b"\x50\x2a\x4d\x18\0\0\0\0"), Some("zstd"));
}

/// Peak resident memory of this process in KiB, as the kernel counts it.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Yields `left` bytes of repeated text without holding them.
struct Long {
    text: Vec<u8>,
    left: usize,
}

impl Read for Long {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.left).min(self.text.len());
        buffer[..n].copy_from_slice(&self.text[..n]);
        self.left -= n;
        Ok(n)
    }
}

#[test]
fn three_hundred_megabytes_pass_in_bounded_memory() {
    const LIMIT_KIB: u64 = 120 * 1024;
    for codec in [
        Box::new(Gzip { level: 1, threads: 2 }) as Box<dyn Transform>,
        Box::new(Zstd { level: 3, threads: 2 }),
    ] {
        let before = peak_kib();
        let mut input = Long { text: sample(11, 300), left: 300_000_000 };
        let mut packed = Vec::new();
        codec.encode(&mut input, &mut packed).unwrap();
        codec.decode(&mut &packed[..], &mut io::sink()).unwrap();
        assert!(packed.len() < 16_000_000, "the text repeats");
        let grown = peak_kib() - before;
        assert!(grown < LIMIT_KIB, "{} took {grown} KiB", codec.name());
    }
}
