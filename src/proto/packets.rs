//! Packets back to back in one buffer that is used again and again, so that none of them is allocated for.

use std::ops::Range;

/// The packets, in the order in which they came.
///
/// INVARIANT: the ranges lie within `buffer`, before `used`.
#[derive(Debug, Default)]
pub struct Packets {
    buffer: Vec<u8>,
    used: usize,
    ranges: Vec<Range<usize>>,
}

impl Packets {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges.iter().map(|range| &self.buffer[range.clone()])
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many bytes all have together.
    pub fn bytes(&self) -> usize {
        self.used
    }

    /// The n-th, to be changed.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut [u8]> {
        let range = self.ranges.get(at)?.clone();
        self.buffer.get_mut(range)
    }

    /// The n-th.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        self.buffer.get(self.ranges.get(at)?.clone())
    }

    /// Adds a copy.
    pub fn push(&mut self, packet: &[u8]) {
        self.room(packet.len())[..packet.len()].copy_from_slice(packet);
        self.keep(packet.len());
    }

    /// Room for `len` bytes behind the last one. What is written there becomes a packet by [`Self::keep`].
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.used + len;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.used..end]
    }

    /// The first `len` bytes of the room are a packet.
    pub fn keep(&mut self, len: usize) {
        let end = (self.used + len).min(self.buffer.len());
        self.ranges.push(self.used..end);
        self.used = end;
    }

    /// Forgets them, and keeps the buffer.
    pub fn clear(&mut self) {
        self.used = 0;
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in() {
        let mut packets = Packets::default();
        packets.push(b"one");
        packets.room(10)[..3].copy_from_slice(b"two");
        packets.keep(3);
        packets.room(100);
        packets.push(b"three");
        assert_eq!(packets.iter().collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
        assert_eq!((packets.len(), packets.bytes()), (3, 11));
    }

    #[test]
    fn the_buffer_is_used_again() {
        let mut packets = Packets::default();
        packets.push(&[1; 1000]);
        packets.clear();
        assert!(packets.is_empty());
        packets.push(b"x");
        assert_eq!((packets.get(0), packets.buffer.len()), (Some(&b"x"[..]), 1000));
    }
}
