//! A limit for the chunks of bodies in the encoding `aws-chunked`: the S3 library keeps a whole chunk in memory, up to 4 GiB, before
//! it looks at the signature of the chunk.
//!
//! Source: Amazon S3 API, "Signature calculations for the authorization header: transferring payload in multiple chunks". A body is a
//! row of chunks, each `<size in hexadecimal>[;chunk-signature=…]\r\n<bytes>\r\n`, the last one of size 0.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Largest chunk, bytes. Clients send chunks of 64 KiB to 1 MiB.
const LARGEST: u64 = 8 << 20;
/// Longest line before a chunk, bytes: a size and a signature.
const LONGEST_LINE: usize = 512;

/// Whether the body has this encoding.
pub(crate) fn is_chunked(headers: &HeaderMap) -> bool {
    let kind = headers.get("x-amz-content-sha256");
    kind.is_some_and(|kind| kind.as_bytes().to_ascii_uppercase().starts_with(b"STREAMING-"))
}

/// A body of chunks that ends with an error before a chunk larger than [`LARGEST`].
pub(crate) struct Chunked {
    body: Incoming,
    place: Place,
}

impl Chunked {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, place: Place::default() }
    }
}

impl Body for Chunked {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(io::Error::other)?;
            if let Some(bytes) = frame.data_ref() {
                self.place.pass(bytes)?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in the row of chunks a reader is.
#[derive(Debug)]
enum Place {
    /// In the line before a chunk: the bytes of the line so far, and the size of the chunk; `None` after the digits.
    Line { length: usize, size: u64, digits: bool },
    /// In a chunk and the line break after the chunk: bytes that are left.
    Chunk(u64),
    /// After the last chunk: trailers, which the library bounds.
    Trailers,
}

impl Default for Place {
    fn default() -> Self {
        Self::Line { length: 0, size: 0, digits: true }
    }
}

impl Place {
    /// Goes on by these bytes.
    ///
    /// # Errors
    /// The bytes begin a chunk that is too large, or are no chunks.
    fn pass(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((&first, rest)) = bytes.split_first() {
            match self {
                Self::Trailers => return Ok(()),
                Self::Chunk(left) => {
                    let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *left -= here as u64;
                    bytes = &bytes[here..];
                    if *left == 0 {
                        *self = Self::default();
                    }
                }
                Self::Line { length, size, digits } => {
                    bytes = rest;
                    *length += 1;
                    let digit = char::from(first).to_digit(16).filter(|_| *digits);
                    match (digit, first) {
                        (Some(digit), _) => *size = *size * 16 + u64::from(digit),
                        (None, b'\n') => {
                            *self = if *size == 0 { Self::Trailers } else { Self::Chunk(*size + 2) };
                            continue;
                        }
                        (None, _) => *digits = false,
                    }
                    if *size > LARGEST || *length > LONGEST_LINE {
                        let text = format!(
                            "a chunk of a body has at most {LARGEST} bytes, a line before a chunk {LONGEST_LINE}"
                        );
                        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(pieces: &[&[u8]]) -> bool {
        let mut place = Place::default();
        pieces.iter().all(|piece| place.pass(piece).is_ok())
    }

    #[test]
    fn chunks_pass_up_to_a_size_however_the_bytes_are_cut() {
        // Bytes of chunks may look like the size of a chunk.
        let good: &[u8] = b"5;chunk-signature=ab\r\nhello\r\n8\r\nffffffff\r\n";
        assert!(passes(&[b"800000\r\n"]) && !passes(&[b"800001\r\n"]) && !passes(&[b"ffffffff\r\n"]));
        assert!(passes(&[b"5\r\nfffff\r\n0\r\nx-amz-checksum-crc32:ffffffffff\r\n\r\n"]));
        assert!(!passes(&[b"5;", &[b'a'; LONGEST_LINE]]));
        for cut in 0..good.len() {
            assert!(passes(&[&good[..cut], &good[cut..]]), "{cut}");
        }
        assert!(!passes(&[b"5;chunk-signature=ab\r\nhello\r\n", b"fff", b"fffff;"]));
    }

    /// Whether the bytes, in one piece, have no line that is too long and announce no chunk that is too large.
    fn is_good(mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let line = &bytes[..end.unwrap_or(bytes.len())];
            let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
            let size = digits.fold(0_u128, |size, digit| {
                (size * 16 + u128::from(char::from(*digit).to_digit(16).unwrap())).min(u128::from(u64::MAX))
            });
            if line.len() > LONGEST_LINE || size > u128::from(LARGEST) {
                return false;
            }
            match end {
                Some(end) if size > 0 => {
                    bytes = bytes.get(end + 1 + usize::try_from(size).unwrap() + 2..).unwrap_or_default();
                }
                _ => return true,
            }
        }
        true
    }

    /// The verdict is that of a reader that has all bytes at once, however the bytes are cut.
    #[test]
    fn fuzz_chunks() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "chunks", |bytes| {
            let good = is_good(bytes);
            assert_eq!(passes(&[bytes]), good);
            assert_eq!(passes(&bytes.chunks(1).collect::<Vec<_>>()), good, "byte by byte");
            for size in [2, 7, 64] {
                assert_eq!(passes(&bytes.chunks(size).collect::<Vec<_>>()), good, "{size} bytes at a time");
            }
        });
    }

    #[test]
    fn only_streams_are_chunked() {
        let of = |kind: &str| {
            is_chunked(&HeaderMap::from_iter([(
                http::HeaderName::from_static("x-amz-content-sha256"),
                kind.parse().unwrap(),
            )]))
        };
        assert!(of("STREAMING-UNSIGNED-PAYLOAD-TRAILER") && of("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"));
        assert!(!of("UNSIGNED-PAYLOAD") && !is_chunked(&HeaderMap::new()));
    }
}
