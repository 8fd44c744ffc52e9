//! One of the streams of a session, with the frame that it is about to take.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::net::{FrameWriter, NetError};

/// A stream, and the frame that was given to it last.
pub(super) struct Lane {
    writer: FrameWriter,
    frame: Option<Vec<u8>>,
    not_before: Instant,
    busy: bool,
}

impl Lane {
    pub fn new(writer: FrameWriter) -> Lane {
        Lane { writer, frame: None, not_before: Instant::now(), busy: false }
    }

    /// Whether the last frame is not taken yet.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Gives it the next frame, to go after a while. It is not busy.
    pub fn give(&mut self, wait: Duration, frame: Vec<u8>) {
        (self.frame, self.not_before, self.busy) = (Some(frame), Instant::now() + wait, true);
    }

    /// Waits until QUIC has taken the frame. A call that is dropped is taken up by the next one.
    pub async fn send(&mut self) -> Result<(), NetError> {
        sleep_until(self.not_before).await;
        // A send that is dropped has taken its frame: what is left is to flush.
        match self.frame.take() {
            Some(frame) => self.writer.send(frame).await?,
            None => self.writer.flush().await?,
        }
        self.busy = false;
        Ok(())
    }

    pub fn prefer(&self, priority: i32) {
        self.writer.prefer(priority);
    }

    /// Ends the stream behind what was given to it.
    pub async fn finish(self) -> Result<(), NetError> {
        self.writer.finish().await
    }
}
