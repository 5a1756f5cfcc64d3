//! Slow, short and failing ends, and memory.

use backup_core::ErrorKind;

use super::*;

#[test]
fn one_byte_at_a_time_comes_back() {
    let plain = sample(1, 200_000);
    let mut sealed = Vec::new();
    let mut input = Trickle { bytes: &plain, piece: 1, failure: None };
    with("sesame").encode(&mut input, &mut sealed).unwrap();
    let mut opened = Vec::new();
    let mut input = Trickle { bytes: &sealed, piece: 1, failure: None };
    with("sesame").decode(&mut input, &mut opened).unwrap();
    assert!(opened == plain);
}

#[test]
fn an_input_error_comes_out_as_it_was() {
    let plain = sample(2, 3_000_000);
    for length in [0, 1, 1_048_576, 2_500_000, plain.len()] {
        let failure = Error::new(ErrorKind::Interrupted, "source", "went away").into_io();
        let mut input = Trickle { bytes: &plain[..length], piece: 8192, failure: Some(failure) };
        let mut sealed = Vec::new();
        let error = with("sesame").encode(&mut input, &mut sealed).unwrap_err();
        assert_eq!((error.stage(), error.kind()), ("source", ErrorKind::Interrupted));
        let error = open(&with("sesame"), &sealed).unwrap_err();
        assert!(error.message().contains("cut off"), "{length} bytes pass for a message: {error}");
    }
    let sealed = seal(&with("sesame"), &plain);
    for length in [0, 1, 60, 1_500_000, sealed.len() - 10, sealed.len()] {
        let failure = Some(io::Error::from(io::ErrorKind::UnexpectedEof));
        let mut input = Trickle { bytes: &sealed[..length], piece: 8192, failure };
        let error = with("sesame").decode(&mut input, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed, "{length} bytes: {error:?}");
    }
}

#[test]
fn an_output_error_comes_out_as_it_was() {
    let plain = sample(3, 1_500_000);
    let sealed = seal(&with("sesame"), &plain);
    for room in [0, 1, 100, 1_400_000] {
        let error = with("sesame").encode(&mut &plain[..], &mut Full(room)).unwrap_err();
        assert_eq!(error.stage(), "disk", "{error:?}");
        let error = with("sesame").decode(&mut &sealed[..], &mut Full(room)).unwrap_err();
        assert_eq!(error.stage(), "disk", "{error:?}");
    }
}

#[test]
fn without_a_key_nothing_is_encrypted() {
    let mut sealed = Vec::new();
    let error = OpenPgp::new().encode(&mut &b"x"[..], &mut sealed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let only_old = OpenPgp::new().with_old_passphrase(passphrase("old"));
    assert!(only_old.encode(&mut &b"x"[..], &mut sealed).is_err());
    assert!(sealed.is_empty());
}

#[test]
fn the_same_plaintext_is_sealed_differently_each_time() {
    let (one, two) = (seal(&with("sesame"), b"data"), seal(&with("sesame"), b"data"));
    assert_ne!(one, two);
}

/// Peak resident memory of this process in KiB, as the kernel counts it.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn three_hundred_megabytes_pass_in_bounded_memory() {
    const LIMIT_KIB: u64 = 24 * 1024;
    const LENGTH: u64 = 300_000_000;
    let before = peak_kib();
    let (mut sealed, mut output) = io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut input = io::repeat(b'x').take(LENGTH);
            with("sesame").encode(&mut input, &mut output).unwrap();
        });
        let mut counted = Counted(0);
        with("sesame").decode(&mut sealed, &mut counted).unwrap();
        assert_eq!(counted.0, LENGTH);
    });
    let grown = peak_kib() - before;
    assert!(grown < LIMIT_KIB, "both directions together took {grown} KiB");
}

struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
