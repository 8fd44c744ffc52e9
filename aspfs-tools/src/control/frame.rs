//! Frames of the control socket: one byte of kind, four bytes of length (little-endian), the body.
//!
//! The length is checked against the kind's bound before anything is allocated (promise G29).

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 5;
/// Longest body of bytes: a megabyte of a file, or the largest event of an import.
pub const DATA_MAX: usize = (1 << 20) + 1024;
/// Longest body of everything else (JSON).
pub const TEXT_MAX: usize = 256 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// First frame of either side: protocol and release.
    Hello = 1,
    /// What the client wants; one per connection.
    Request = 2,
    /// How far it is.
    Progress = 3,
    /// One row of a list.
    Row = 4,
    /// Raw bytes: a file's content, or what a template is made of.
    Data = 5,
    /// No more data follows.
    End = 6,
    /// The last frame of the daemon: it was done.
    Answer = 7,
    /// The last frame of the daemon: it was not done, and why.
    Refusal = 8,
}

const KINDS: [Kind; 8] =
    [Kind::Hello, Kind::Request, Kind::Progress, Kind::Row, Kind::Data, Kind::End, Kind::Answer, Kind::Refusal];

impl Kind {
    /// Longest body of a frame of this kind, in bytes.
    pub fn max(self) -> usize {
        match self {
            Kind::Data => DATA_MAX,
            Kind::End => 0,
            _ => TEXT_MAX,
        }
    }
}

/// A header that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Of no known kind.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// Longer than its kind may be.
    #[error("a {kind:?} frame of {len} bytes, at most {}", .kind.max())]
    Length {
        /// Of which kind.
        kind: Kind,
        /// The length it claims.
        len: usize,
    },
}

/// The header of a frame of this kind and length.
pub fn header(kind: Kind, len: usize) -> Result<[u8; HEADER_LEN], FrameError> {
    let claimed = u32::try_from(len).ok().filter(|_| len <= kind.max()).ok_or(FrameError::Length { kind, len })?;
    let [a, b, c, d] = claimed.to_le_bytes();
    Ok([kind as u8, a, b, c, d])
}

/// Kind and length of the body that follows a header.
pub fn parse_header(bytes: [u8; HEADER_LEN]) -> Result<(Kind, usize), FrameError> {
    let [kind, a, b, c, d] = bytes;
    let kind = KINDS.into_iter().find(|k| *k as u8 == kind).ok_or(FrameError::Kind(kind))?;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    if len > kind.max() {
        return Err(FrameError::Length { kind, len });
    }
    Ok((kind, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_go_there_and_back() {
        for kind in KINDS {
            for len in [0, 1, kind.max()].into_iter().filter(|l| *l <= kind.max()) {
                assert_eq!(parse_header(header(kind, len).unwrap()), Ok((kind, len)));
            }
            assert_eq!(header(kind, kind.max() + 1), Err(FrameError::Length { kind, len: kind.max() + 1 }));
        }
    }

    /// A length of 4 GiB must be refused before anything is allocated (checks G29).
    #[test]
    fn hostile_headers_are_refused() {
        assert_eq!(parse_header([0, 0, 0, 0, 0]), Err(FrameError::Kind(0)));
        assert_eq!(parse_header([9, 0, 0, 0, 0]), Err(FrameError::Kind(9)));
        for kind in KINDS {
            assert!(matches!(parse_header([kind as u8, 255, 255, 255, 255]), Err(FrameError::Length { .. })));
        }
    }
}
