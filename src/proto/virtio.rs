//! The header that a TUN device puts before each packet once offload is agreed upon (virtio 1.2 section 5.1.6, `IFF_VNET_HDR` of Linux):
//! whether the packet is one that we are to segment, and whether its checksum is still to be completed. How that is done is not here but in
//! [`super::super_packet`] and [`super::coalesce`].

/// Its length in bytes.
pub const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_UDP_L4: u8 = 5;

/// What is to be segmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segmentation {
    /// TCP over IPv4 (TSO).
    Tcp,
    /// UDP over IPv4, each segment a datagram (USO).
    Udp,
}

/// The header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// How the packet is to be cut, and into payloads of how many bytes; `None` for one that goes as it is.
    pub segmentation: Option<(Segmentation, u16)>,
    /// The length of all headers before the payload. A hint alone; what reads it does not trust it.
    pub headers: u16,
    /// Where the checksum begins to count, and how far behind that it is; `None` where it is complete.
    pub checksum: Option<(u16, u16)>,
}

impl Header {
    /// Reads one; `None` where it asks for what was never agreed upon.
    pub fn parse(bytes: [u8; LEN]) -> Option<Self> {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let segmentation = match bytes[1] {
            GSO_NONE => None,
            GSO_TCPV4 => Some((Segmentation::Tcp, word(4))),
            GSO_UDP_L4 => Some((Segmentation::Udp, word(4))),
            _ => return None,
        };
        let checksum = (bytes[0] & NEEDS_CSUM != 0).then(|| (word(6), word(8)));
        Some(Self { segmentation, headers: word(2), checksum })
    }

    /// As the device wants it.
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        if let Some((kind, size)) = self.segmentation {
            bytes[1] = if kind == Segmentation::Tcp { GSO_TCPV4 } else { GSO_UDP_L4 };
            bytes[4..6].copy_from_slice(&size.to_ne_bytes());
        }
        bytes[2..4].copy_from_slice(&self.headers.to_ne_bytes());
        if let Some((start, offset)) = self.checksum {
            bytes[0] = NEEDS_CSUM;
            bytes[6..8].copy_from_slice(&start.to_ne_bytes());
            bytes[8..].copy_from_slice(&offset.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_of_zeros_is_of_a_plain_packet() {
        assert_eq!(Header::parse([0; LEN]), Some(Header::default()));
        assert_eq!(Header::default().to_bytes(), [0; LEN]);
    }

    #[test]
    fn kinds_that_were_not_agreed_upon_are_refused() {
        for kind in [3, 4, GSO_TCPV4 | 0x80] {
            assert_eq!(Header::parse([0, kind, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        }
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_the_same(bytes: [u8; LEN]) {
            if let Some(header) = Header::parse(bytes) {
                prop_assert_eq!(Header::parse(header.to_bytes()), Some(header));
            }
        }
    }
}
