//! A transform at work, on a thread of its own.

use std::sync::Arc;

use super::{PipeReceiver, PipeSender};
use crate::{Error, ErrorKind, Result, Transform};

/// A transform and the way it is used.
#[derive(Clone)]
pub struct Stage {
    transform: Arc<dyn Transform>,
    direction: Direction,
}

#[derive(Clone, Copy)]
enum Direction {
    Encode,
    Decode,
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

    /// The transform's name.
    pub fn name(&self) -> &str {
        self.transform.name()
    }

    /// Runs to the end of the input. Blocks its thread.
    pub(super) fn work(&self, input: PipeReceiver, output: PipeSender) -> Result<()> {
        let mut reader = input.reader();
        let mut writer = output.writer();
        let done = match self.direction {
            Direction::Encode => self.transform.encode(&mut reader, &mut writer),
            Direction::Decode => self.transform.decode(&mut reader, &mut writer),
        };
        // A neighbour's failure is not this stage's, whatever the transform calls it, and even
        // if it took the failure for an end.
        if reader.is_broken() || writer.is_broken() {
            let echo = Error::new(ErrorKind::Disconnected, self.name().to_owned(), "was cut off");
            return Err(match done {
                Err(said) => echo.caused_by(said),
                Ok(()) => echo,
            });
        }
        done?;
        if !reader.at_end()? {
            return Err(Error::damaged(
                self.name().to_owned(),
                "there are bytes behind the end of the data",
            ));
        }
        writer.finish()
    }
}
