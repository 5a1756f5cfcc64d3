//! What zstd tells of its frames.

use backup_core::{Digest, FramedOutput, Frames};

use super::*;

/// A size that a test can have many of.
const SMALL: usize = 10_000;

fn framed(zstd: Zstd, frame_bytes: usize, plain: &[u8]) -> (Vec<u8>, Frames) {
    let mut packed = Vec::new();
    let mut output = FramedOutput::new(&mut packed);
    output.in_frames_of(frame_bytes as u64);
    zstd.write(frame_bytes, &mut &plain[..], &mut output).unwrap();
    let frames = output.finish().unwrap();
    (packed, frames)
}

/// Each frame is what the list says, and its own plain bytes.
fn assert_frames(packed: &[u8], frames: &Frames, plain: &[u8]) {
    assert!(frames.fit(plain.len() as u64), "{} for {}", frames.list.len(), plain.len());
    assert_eq!(frames.encoded_bytes(), packed.len() as u64);
    let mut rest = packed;
    let mut pieces = plain.chunks(frames.plain_bytes as usize);
    for frame in &frames.list {
        let (bytes, behind) = rest.split_at(frame.bytes as usize);
        rest = behind;
        assert_eq!(Digest::of(bytes), *frame);
        assert!(unpack(&Zstd::default(), bytes).unwrap() == pieces.next().unwrap_or_default());
        // Bit 2 of the frame header descriptor: a checksum.
        assert_eq!(bytes[4] & 0b100, 0b100);
    }
}

#[test]
fn a_frame_ends_where_it_should() {
    let mut random = StdRng::seed_from_u64(21);
    let edges = [0, 1, SMALL - 1, SMALL, SMALL + 1, 2 * SMALL, 9 * SMALL - 1, 9 * SMALL];
    for length in edges.into_iter().chain((0..20).map(|_| random.gen_range(0..12 * SMALL))) {
        let plain = sample(length as u64, length);
        for threads in [0, 1, 2, 5] {
            let (packed, frames) = framed(Zstd { level: 3, threads }, SMALL, &plain);
            assert_frames(&packed, &frames, &plain);
            assert!(unpack(&Zstd::default(), &packed).unwrap() == plain, "{length}");
        }
    }
}

#[test]
fn several_frames_of_the_real_size_are_one_file_to_the_stock_program() {
    let plain = sample(22, 2 * (16 << 20) + 5);
    for threads in [1, 2] {
        let mut packed = Vec::new();
        let mut output = FramedOutput::new(&mut packed);
        Zstd { level: 1, threads }.encode_in_frames(&mut &plain[..], &mut output).unwrap();
        let frames = output.finish().unwrap();
        assert_eq!((frames.list.len(), frames.plain_bytes), (3, 16 << 20));
        assert_frames(&packed, &frames, &plain);
        assert!(stock(&["zstd", "-d", "-c"], &packed).unwrap() == plain);
        assert!(pack(&Zstd { level: 1, threads }, &plain) == packed);
    }
}

/// The input that fails just behind a frame would leave a file that looks whole.
#[test]
fn an_input_error_at_the_border_of_a_frame_leaves_no_complete_file() {
    let plain = sample(23, 8 * SMALL);
    for threads in [1, 2] {
        for length in (0..=8).map(|frames| frames * SMALL) {
            let failure = Some(Error::failed("source", "went away").into_io());
            let mut input = Failing { bytes: &plain[..length], piece: SMALL, failure };
            let mut packed = Vec::new();
            let mut output = FramedOutput::new(&mut packed);
            output.in_frames_of(SMALL as u64);
            let zstd = Zstd { level: 3, threads };
            let error = zstd.write(SMALL, &mut input, &mut output).unwrap_err();
            assert_eq!(error.stage(), "source");
            let error = unpack(&zstd, &packed).expect_err("half a stream passes for a whole one");
            assert!(error.message().contains("cut off"), "{threads} at {length}: {error}");
        }
    }
}

#[test]
fn gzip_tells_of_no_frames() {
    let mut packed = Vec::new();
    let mut output = FramedOutput::new(&mut packed);
    Gzip::default().encode_in_frames(&mut &sample(24, SAMPLE_BYTES)[..], &mut output).unwrap();
    assert_eq!(output.finish(), None);
}
