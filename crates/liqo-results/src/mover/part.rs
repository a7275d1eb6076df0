//! Reading files in parts.

use std::{fs::File, io, io::Read};

use ring::digest::{Context, SHA256};

use crate::Digest;

/// Smallest part of an upload that S3 takes, besides the last.
pub(super) const SMALLEST: u64 = 5 * 1024 * 1024;
/// Largest part, in bytes: parts are kept in memory.
pub(super) const LARGEST: u64 = 1024 * 1024 * 1024;
/// Most parts of an upload; S3 takes 10,000.
const MOST: u64 = 9_500;
/// Bytes that are read and hashed at once.
const STEP: usize = 256 * 1024;
const MIB: u64 = 1024 * 1024;

/// Size of the parts of a file of `size` bytes.
pub(super) fn size_for(size: u64, wanted: u64) -> u64 {
    wanted.max(size.div_ceil(MOST).div_ceil(MIB) * MIB)
}

/// A file that is being read, with the digest of what was read so far.
pub(super) struct Reader {
    file: File,
    context: Context,
}

impl Reader {
    pub(super) fn new(file: File) -> Self {
        Self { file, context: Context::new(&SHA256) }
    }

    /// The next `length` bytes, and the digest of the file up to their end. It blocks, so it does not run where others wait.
    ///
    /// # Errors
    /// When the file cannot be read, or ends earlier.
    pub(super) fn read(mut self, length: u64) -> io::Result<(Self, Vec<u8>, Digest)> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        for step in bytes.chunks_mut(STEP) {
            self.file.read_exact(step).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::other("the file became shorter while it was read"),
                _ => error,
            })?;
            self.context.update(step);
        }
        let digest = Digest::of(self.context.clone());
        Ok((self, bytes, digest))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn an_upload_has_few_enough_parts() {
        for (size, part) in [
            (0, SMALLEST),
            (SMALLEST * MOST, SMALLEST),
            (SMALLEST * MOST + 1, 6 * MIB),
            (100 << 30, 11 * MIB),
            (5 << 40, 552 * MIB),
        ] {
            assert_eq!(size_for(size, SMALLEST), part, "{size}");
            assert!(size.div_ceil(part) <= MOST);
        }
        assert_eq!(size_for(1, 8 * MIB), 8 * MIB);
    }

    #[test]
    fn digests_are_of_everything_up_to_here() {
        let mut file = rustix::fs::memfd_create("part", rustix::fs::MemfdFlags::CLOEXEC).map(File::from).unwrap();
        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        let (reader, bytes, digest) = Reader::new(file).read(2).unwrap();
        assert_eq!(bytes, b"ab");
        assert_eq!(digest.to_string(), "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603");
        let (reader, _, digest) = reader.read(1).unwrap();
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(reader.read(1).err().unwrap().to_string().contains("shorter"));
    }
}
