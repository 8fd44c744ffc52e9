//! One of the streams of a session, with the frame that it is about to take.

use crate::net::{FrameWriter, NetError};

/// A stream, and the frame that was given to it last.
pub(super) struct Lane {
    writer: FrameWriter,
    frame: Option<Vec<u8>>,
    busy: bool,
}

impl Lane {
    pub fn new(writer: FrameWriter) -> Lane {
        Lane { writer, frame: None, busy: false }
    }

    /// Whether the last frame is not taken yet.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Gives it the next frame. It is not busy.
    pub fn give(&mut self, frame: Vec<u8>) {
        (self.frame, self.busy) = (Some(frame), true);
    }

    /// Waits until QUIC has taken the frame. A call that is dropped is taken up by the next one.
    pub async fn send(&mut self) -> Result<(), NetError> {
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
