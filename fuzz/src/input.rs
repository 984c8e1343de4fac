//! How a body reads its bytes: from the front, and zeros when none are left, so that every input means something.

use std::hash::{DefaultHasher, Hasher};

/// What is left of an input.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// As many bytes as the first one says. See [`piece`].
    pub fn piece(&mut self) -> &'a [u8] {
        let len = self.byte();
        self.take(usize::from(len))
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Bytes as [`Input::piece`] reads them; what is too long for it is cut.
pub fn piece(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len().min(usize::from(u8::MAX));
    [&[len as u8], &bytes[..len]].concat()
}

/// Alters `bytes` at some places, each given by two bytes and what to flip there, and may cut them short.
pub fn alter(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let how = input.byte();
    for _ in 0..1 + how % 4 {
        let at = usize::from(u16::from_be_bytes(input.array()));
        let flipped = input.byte();
        let len = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at % len) {
            *byte ^= flipped;
        }
    }
    if how & 0x80 != 0 {
        let cut = usize::from(u16::from_be_bytes(input.array()));
        bytes.truncate(cut % (bytes.len() + 1));
    }
}

/// Keys are made from it. libFuzzer sees what a MAC or a sum is compared with, and so learns to make one with a key that stays the same.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
