//! Taking a compressed stream apart. What it is compressed with is told by its first bytes.

use std::io::{self, Read};

/// Most memory that an xz stream may ask for.
const XZ_MEMORY: u64 = 256 << 20;
/// The largest window of a zstd stream, as a power of two: 128 MiB.
const ZSTD_WINDOW: u32 = 27;

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BZIP2: &[u8] = b"BZh";

/// Whether a stream that begins so is compressed.
pub fn is_packed(first: &[u8]) -> bool {
    [GZIP, XZ, ZSTD, BZIP2].iter().any(|magic| first.starts_with(magic))
}

/// The stream's contents.
pub fn open<'a>(mut from: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = [0; 6];
    let n = fill(&mut from, &mut first)?;
    let whole = io::BufReader::with_capacity(128 << 10, io::Cursor::new(first[..n].to_vec()).chain(from));
    let first = &first[..n];
    if first.starts_with(GZIP) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(whole)));
    }
    if first.starts_with(XZ) {
        let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
        return Ok(Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream.map_err(io::Error::other)?)));
    }
    if first.starts_with(ZSTD) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW)?;
        return Ok(Box::new(decoder));
    }
    if first.starts_with(BZIP2) {
        return Err(io::Error::other("it is compressed with bzip2: use gzip, xz, zstd or nothing"));
    }
    Ok(Box::new(whole))
}

/// Fills the buffer as far as the stream goes.
pub fn fill(from: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match from.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}
