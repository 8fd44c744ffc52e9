//! Compression of what travels: zstd, where that makes it smaller, and bounded where it is undone (promise G29).
//!
//! A compressed body is its length before (4 bytes, little-endian) and one zstd frame.

/// Bodies shorter than this are not compressed.
const MIN: usize = 512;
/// The level: what keeps up with a fast link on one core.
const LEVEL: i32 = 1;

/// Why a body does not expand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unexpandable {
    /// It says that it becomes longer than it may.
    Long,
    /// It does not become what it says.
    Malformed,
}

/// The compressed body, where an eighth or more is saved.
pub(crate) fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < MIN {
        return None;
    }
    let packed = zstd::bulk::compress(body, LEVEL).ok()?;
    let out = [&u32::try_from(body.len()).ok()?.to_le_bytes()[..], &packed].concat();
    (out.len() < body.len() - body.len() / 8).then_some(out)
}

/// The body before it was compressed, of at most `max` bytes. Nothing is allocated before its length is known to be allowed.
pub(crate) fn expanded(body: &[u8], max: usize) -> Result<Vec<u8>, Unexpandable> {
    let Some((len, packed)) = body.split_first_chunk::<4>() else { return Err(Unexpandable::Malformed) };
    let len = u32::from_le_bytes(*len) as usize;
    if len > max {
        return Err(Unexpandable::Long);
    }
    let plain = zstd::bulk::decompress(packed, len).map_err(|_| Unexpandable::Malformed)?;
    if plain.len() == len { Ok(plain) } else { Err(Unexpandable::Malformed) }
}
