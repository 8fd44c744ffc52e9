//! Bytes on the wire between a VE's primary and a replica: frames with messages in them. See `docs/format/wire.md`.
//!
//! Every length is bounded before anything is allocated, every byte is under a checksum, an unknown format and an unknown kind are
//! refused by their number, and nothing follows a message in its body (promises G28, G29).

mod frame;
mod message;

#[cfg(test)]
mod tests;

use bincode::{Decode, Encode};
use vefs::codec::{self, CodecError};

use crate::compress::{Unexpandable, compressed, expanded};
pub use frame::{Envelope, FORMAT, HEADER_LEN, Header, MAGIC};
pub use message::{
    AHEAD_MAX, BATCH_TARGET, Begin, CHUNK_MAX, CHUNK_MIN, Chunk, HAVE_MAX, HELLO, Hello, Message, Refusal, STAGED_MAX,
    Welcome, WirePayload, WireRecord, is_bulk,
};

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Too few bytes, so far.
    #[error("{got} bytes where {need} are needed")]
    Short {
        /// Bytes there are.
        got: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Something else.
    #[error("magic bytes do not match")]
    Magic,
    /// A damaged header.
    #[error("the header's checksum does not match")]
    HeaderChecksum,
    /// A damaged body.
    #[error("the body's checksum does not match")]
    BodyChecksum,
    /// Another program's format.
    #[error("wire format {found}, this program knows {FORMAT}")]
    Format {
        /// The number met.
        found: u16,
    },
    /// A message that this program does not know.
    #[error("unknown kind of message {0}")]
    Kind(u8),
    /// A message of bulk where records go, or the other way round.
    #[error("a message of kind {0} on the other stream")]
    Stream(u8),
    /// Longer than its kind may be.
    #[error("a body of {len} bytes for a message of kind {kind}, which has at most {max}")]
    Long {
        /// The message's kind.
        kind: u8,
        /// Bytes of its body.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// A field is out of its range.
    #[error("field {0} is out of range")]
    Field(&'static str),
    /// The body does not decompress to what it says.
    #[error("malformed compression")]
    Zstd,
    /// The body is not the encoding of a message of its kind.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<Unexpandable> for WireError {
    fn from(why: Unexpandable) -> WireError {
        match why {
            Unexpandable::Long => WireError::Field("length before compression"),
            Unexpandable::Malformed => WireError::Zstd,
        }
    }
}

/// The frame of a message. `compress`: where that makes it smaller.
pub fn encode(message: &Message, envelope: Envelope, compress: bool) -> Vec<u8> {
    // Room for the whole frame at once, and the body where it stays: bulk is copied once.
    let mut frame = Vec::with_capacity(message.cost() as usize + message.cost() as usize / 64 + 256);
    frame.resize(HEADER_LEN, 0);
    match message {
        Message::Hello(m) => codec::encode_into(m, &mut frame),
        Message::Welcome(m) => codec::encode_into(m, &mut frame),
        Message::Begin(m) => codec::encode_into(m, &mut frame),
        Message::Records(m) => codec::encode_into(m, &mut frame),
        Message::End(m) => codec::encode_into(m, &mut frame),
        Message::Chunk(m) => codec::encode_into(m, &mut frame),
        Message::Ack(m) => codec::encode_into(m, &mut frame),
        Message::EpochNotice(m) => codec::encode_into(m, &mut frame),
        Message::Refused(why, at) => codec::encode_into(&(*why, *at), &mut frame),
        Message::Ping(n) | Message::Pong(n) => codec::encode_into(n, &mut frame),
        Message::Have(m) => codec::encode_into(m, &mut frame),
        Message::Held(m) => codec::encode_into(m, &mut frame),
        Message::BulkPing => codec::encode_into(&(), &mut frame),
    }
    match compress.then(|| compressed(&frame[HEADER_LEN..])).flatten() {
        Some(smaller) => frame::write(message.kind(), true, envelope, &smaller),
        None => {
            frame::seal(message.kind(), false, envelope, &mut frame);
            frame
        }
    }
}

/// A frame with a right header and any body: what a hostile peer can send.
pub fn frame_of(kind: u8, zstd: bool, envelope: Envelope, body: &[u8]) -> Vec<u8> {
    frame::write(kind, zstd, envelope, body)
}

/// Checks the header at the start of `bytes`: what a stream's reader does with the first [`HEADER_LEN`] bytes, before it makes
/// room for the body.
pub fn header(bytes: &[u8]) -> Result<Header, WireError> {
    Header::parse(bytes, Message::bound)
}

/// Reads the frame at the start of `bytes`; also how long it is.
pub fn decode(bytes: &[u8]) -> Result<(Envelope, Message, usize), WireError> {
    let header = header(bytes)?;
    let (body, used) = header.body(bytes)?;
    let message = if header.zstd {
        let max = Message::bound(header.kind).unwrap_or(0);
        parse(header.kind, &expanded(body, max)?)?
    } else {
        parse(header.kind, body)?
    };
    Ok((header.envelope, message.check()?, used))
}

fn parse(kind: u8, body: &[u8]) -> Result<Message, WireError> {
    fn get<T: Decode<()> + Encode>(body: &[u8]) -> Result<T, WireError> {
        Ok(codec::decode(body)?)
    }
    Ok(match kind {
        1 => Message::Hello(get(body)?),
        2 => Message::Welcome(get(body)?),
        3 => Message::Begin(get(body)?),
        4 => Message::Records(get(body)?),
        5 => Message::End(get(body)?),
        6 => Message::Chunk(get(body)?),
        7 => Message::Ack(get(body)?),
        8 => Message::EpochNotice(get(body)?),
        9 => {
            let (why, at) = get(body)?;
            Message::Refused(why, at)
        }
        10 => Message::Ping(get(body)?),
        11 => Message::Pong(get(body)?),
        12 => Message::Have(get(body)?),
        13 => Message::Held(get(body)?),
        14 => get(body).map(|()| Message::BulkPing)?,
        other => return Err(WireError::Kind(other)),
    })
}
