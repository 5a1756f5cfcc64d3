//! A transform at work, on a thread of its own.

use std::sync::Arc;

use super::{PipeReceiver, PipeSender};
use crate::frames::decode_frame_by_frame;
use crate::{Error, ErrorKind, FramedOutput, Frames, Result, Transform};

/// A transform and the way it is used.
#[derive(Clone)]
pub struct Stage {
    transform: Arc<dyn Transform>,
    direction: Direction,
}

#[derive(Clone)]
enum Direction {
    Encode,
    Decode,
    /// Each frame by itself, which says whether they are those of so many plain bytes.
    DecodeFrames(Arc<Frames>, u64),
}

impl Stage {
    /// On the way out: plain bytes in, encoded bytes out.
    pub fn encode(transform: Arc<dyn Transform>) -> Self {
        Self { transform, direction: Direction::Encode }
    }

    /// On the way back.
    pub fn decode(transform: Arc<dyn Transform>) -> Self {
        Self { transform, direction: Direction::Decode }
    }

    /// On the way back, the same bytes; but it fails where `frames` are not those of the encoded
    /// bytes, or do not hold `plain` bytes.
    pub(crate) fn decode_checking(
        transform: Arc<dyn Transform>,
        frames: Arc<Frames>,
        plain: u64,
    ) -> Self {
        Self { transform, direction: Direction::DecodeFrames(frames, plain) }
    }

    /// The transform's name.
    pub fn name(&self) -> &str {
        self.transform.name()
    }

    /// Runs to the end of the input, and gives the frames of what it encoded. Blocks its thread.
    pub(super) fn work(&self, input: PipeReceiver, output: PipeSender) -> Result<Option<Frames>> {
        let mut reader = input.reader();
        let mut writer = output.writer();
        let transform = self.transform.as_ref();
        let done = match &self.direction {
            Direction::Encode => {
                let mut output = FramedOutput::new(&mut writer);
                transform.encode_in_frames(&mut reader, &mut output).map(|()| output.finish())
            }
            Direction::Decode => transform.decode(&mut reader, &mut writer).map(|()| None),
            Direction::DecodeFrames(frames, plain) => {
                decode_frame_by_frame(transform, frames, *plain, &mut reader, &mut writer)
                    .map(|()| None)
            }
        };
        // A neighbour's failure is not this stage's, whatever the transform calls it, and even
        // if it took the failure for an end.
        if reader.is_broken() || writer.is_broken() {
            let echo = Error::new(ErrorKind::Disconnected, self.name().to_owned(), "was cut off");
            return Err(match done {
                Err(said) => echo.caused_by(said),
                Ok(_) => echo,
            });
        }
        let frames = done?;
        if !reader.at_end()? {
            return Err(Error::damaged(
                self.name().to_owned(),
                "there are bytes behind the end of the data",
            ));
        }
        writer.finish()?;
        Ok(frames)
    }
}
