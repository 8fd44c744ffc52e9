//! Taking a compressed stream apart. What it is compressed with is told by its first bytes.

use std::io::{self, Read};

/// Most memory that an xz stream may ask for.
const XZ_MEMORY: u64 = 256 << 20;
/// The largest window of a zstd stream, as a power of two: 128 MiB.
const ZSTD_WINDOW: u32 = 27;

/// The stream's contents.
pub fn open<'a>(mut from: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = [0; 6];
    let n = fill(&mut from, &mut first)?;
    let whole = io::Cursor::new(first[..n].to_vec()).chain(from);
    Ok(match &first[..n] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(128 << 10, whole))),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
            let whole = io::BufReader::with_capacity(128 << 10, whole);
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream.map_err(io::Error::other)?))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            Box::new(decoder)
        }
        [b'B', b'Z', b'h', ..] => {
            return Err(io::Error::other("it is compressed with bzip2: use gzip, xz, zstd or nothing"));
        }
        _ => Box::new(io::BufReader::with_capacity(256 << 10, whole)),
    })
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
