//! Zstandard (RFC 8878) both ways, piece by piece. What comes is never more than its digest says, and needs no more memory than the RFC asks of everybody.

use std::io;

use zstd::stream::raw::{DParameter, Decoder, Encoder, Operation as _, OutBuffer};
use zstd::zstd_safe::InBuffer;

/// Fast: who asks is on the same machine, and only wanted less to travel.
const LEVEL: i32 = 1;

/// Of the window, as a power of two: the 8 MiB that every decoder should have (RFC 8878, section 3.1.1.1.2).
const WINDOW_LOG: u32 = 23;

/// What comes out at once.
const PIECE: usize = 128 << 10;

/// Besides twice a blob's size, what may come compressed: frames can be padded without end.
const PADDING: u64 = 64 << 10;

/// Why compressed bytes are not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error<E> {
    #[error("these bytes are not Zstandard with a window of at most 8 MiB: {0}")]
    Malformed(io::Error),
    #[error("more came, compressed, than the digest's {0} bytes")]
    TooMuch(u64),
    #[error("the last frame is not complete")]
    Incomplete,
    /// Whoever takes the bytes refuses.
    #[error("{0}")]
    Sink(E),
}

/// Compressed bytes on their way in.
pub(super) struct Expander {
    decoder: Decoder<'static>,
    piece: Vec<u8>,
    size: u64,
    came: u64,
    given: u64,
    /// Whether a frame is just complete.
    complete: bool,
    /// Whether more may come out without anything coming in.
    has_more: bool,
}

impl std::fmt::Debug for Expander {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Expander of {} bytes to {} of {}", self.came, self.given, self.size)
    }
}

impl Expander {
    /// For a blob of this size.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn new(size: u64) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Self { decoder, piece: vec![0; PIECE], size, came: 0, given: 0, complete: true, has_more: false })
    }

    /// These bytes follow; what they become goes to `sink`.
    ///
    /// # Errors
    /// If they are malformed or become too much, or the sink refuses.
    pub(super) fn write<E>(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), Error<E>> {
        self.came += bytes.len() as u64;
        if self.came > self.size.saturating_mul(2).saturating_add(PADDING) {
            return Err(Error::TooMuch(self.size));
        }
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() || self.has_more {
            let mut output = OutBuffer::around(&mut self.piece[..]);
            let consumed = input.pos();
            self.complete = self.decoder.run(&mut input, &mut output).map_err(Error::Malformed)? == 0;
            let written = output.pos();
            self.given += written as u64;
            if self.given > self.size {
                return Err(Error::TooMuch(self.size));
            }
            sink(&self.piece[..written]).map_err(Error::Sink)?;
            self.has_more = written == PIECE && !self.complete;
            if written == 0 && input.pos() == consumed && consumed < bytes.len() {
                return Err(Error::Malformed(io::Error::other("it stands still")));
            }
        }
        Ok(())
    }

    /// All has come.
    ///
    /// # Errors
    /// If a frame is not complete.
    pub(super) fn finish<E>(&self) -> Result<(), Error<E>> {
        self.complete.then_some(()).ok_or(Error::Incomplete)
    }
}

/// Bytes on their way out.
pub(super) struct Compressor {
    encoder: Encoder<'static>,
    piece: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Compressor")
    }
}

impl Compressor {
    /// For so many bytes, so that no more memory is taken than they need.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn new(size: u64) -> io::Result<Self> {
        let mut encoder = Encoder::new(LEVEL)?;
        encoder.set_pledged_src_size(Some(size))?;
        Ok(Self { encoder, piece: vec![0; PIECE] })
    }

    /// What is to be sent after these bytes, of which `last` says whether they are the last: possibly nothing yet.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn write(&mut self, bytes: &[u8], last: bool) -> io::Result<Vec<u8>> {
        let (mut input, mut sent) = (InBuffer::around(bytes), vec![]);
        while input.pos() < bytes.len() {
            let mut output = OutBuffer::around(&mut self.piece[..]);
            self.encoder.run(&mut input, &mut output)?;
            sent.extend_from_slice(output.as_slice());
        }
        let mut left = usize::from(last);
        while left > 0 {
            let mut output = OutBuffer::around(&mut self.piece[..]);
            left = self.encoder.finish(&mut output, false)?;
            sent.extend_from_slice(output.as_slice());
        }
        Ok(sent)
    }
}

/// All of it at once.
///
/// # Errors
/// If there is no memory.
pub(super) fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, LEVEL)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expand(size: u64, pieces: &[&[u8]]) -> Result<Vec<u8>, Error<()>> {
        let (mut expander, mut all) = (Expander::new(size).map_err(Error::Malformed)?, vec![]);
        for piece in pieces {
            expander.write(piece, |bytes| {
                all.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        expander.finish().map(|()| all)
    }

    #[test]
    fn a_bomb_is_refused_before_it_has_become_large() {
        let bomb = compress(&vec![0; 100 << 20]).expect("compressed");
        let (mut expander, mut most) = (Expander::new(1000).expect("memory"), 0);

        let refused = expander.write(&bomb, |bytes| {
            most += bytes.len();
            Ok::<_, ()>(())
        });

        assert!(matches!(refused, Err(Error::TooMuch(1000))), "{refused:?}");
        assert!(most <= 1000, "{most}");
    }

    #[test]
    fn endless_padding_is_refused() {
        // A skippable frame (RFC 8878, section 3.1.2) becomes nothing.
        let padding = [&[0x50, 0x2a, 0x4d, 0x18, 0xf8, 0x03, 0, 0][..], &[0; 1016]].concat();
        let all = vec![&padding[..]; 200];

        assert!(matches!(expand(0, &all), Err(Error::TooMuch(0))));
        assert_eq!(expand(0, &all[..3]).expect("a little"), b"");
    }

    #[test]
    fn a_window_of_more_than_8_mib_is_refused() {
        let mut encoder = Encoder::new(1).expect("memory");
        encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(27)).expect("a parameter");
        let mut out = vec![0; 4096];
        let mut output = OutBuffer::around(&mut out[..]);
        encoder.run(&mut InBuffer::around(&[0; 100]), &mut output).expect("compressed");
        encoder.flush(&mut output).expect("flushed");
        let sent = output.as_slice().to_vec();

        assert!(matches!(expand(1 << 30, &[&sent]), Err(Error::Malformed(_))));
    }

    #[test]
    fn what_is_cut_off_or_no_zstandard_is_refused() {
        let sent = compress(b"some content").expect("compressed");

        assert!(matches!(expand(12, &[&sent[..sent.len() - 1]]), Err(Error::Incomplete)));
        assert!(matches!(expand(12, &[b"some content"]), Err(Error::Malformed(_))));
        assert!(matches!(expand(11, &[&sent]), Err(Error::TooMuch(11))));
    }

    proptest! {
        #[test]
        fn what_is_compressed_expands_in_whatever_pieces(bytes: Vec<u8>, repeat in 1..2000_usize, step in 1..5000_usize, frames in 1..3_usize) {
            let all = bytes.repeat(repeat);
            let mut compressor = Compressor::new(all.len() as u64).expect("memory");
            let mut sent = vec![];
            for piece in all.chunks(64 << 10) {
                sent.extend(compressor.write(piece, false).expect("compressed"));
            }
            sent.extend(compressor.write(&[], true).expect("compressed"));
            let sent = sent.repeat(frames);

            let expanded = expand((all.len() * frames) as u64, &sent.chunks(step).collect::<Vec<_>>());

            prop_assert_eq!(expanded.expect("expanded"), all.repeat(frames));
        }

        #[test]
        fn no_bytes_panic(size in 0..2000_u64, bytes: Vec<u8>) {
            let framed = [&[0x28, 0xb5, 0x2f, 0xfd][..], &bytes].concat();
            for bytes in [&bytes, &framed] {
                if let Ok(all) = expand(size, &[bytes]) {
                    prop_assert!(all.len() as u64 <= size);
                }
            }
        }
    }
}
