//! Where inner packets come from and go to: the kernel through a TUN device, or our own stack. Which of them it is, is not decided here but
//! in `cli`.

use std::io;

use super::stack::Stack;
use super::tun::{Read, Tun};
use crate::proto::packets::Packets;
use crate::proto::super_packet::SuperPacket;

/// One of the two.
#[derive(Debug)]
pub enum Device {
    /// The kernel's own TCP and all else it has, for every program on this machine.
    Tun(Tun),
    /// TCP alone, for this process alone.
    Stack(Stack),
}

impl Device {
    /// Waits until a packet can be read.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tun(tun) => tun.readable().await,
            Self::Stack(stack) => stack.readable().await,
        }
    }

    /// A packet that is there.
    pub fn try_read<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Read<'b>> {
        match self {
            Self::Tun(tun) => tun.try_read(buffer),
            Self::Stack(stack) => Ok(match stack.try_read(buffer)? {
                Some(len) => Read::Packet(SuperPacket::plain(&mut buffer[..len])),
                None => Read::Nothing,
            }),
        }
    }

    /// Delivers packets now or not at all; tells how many were not taken.
    pub fn write(&mut self, packets: &mut Packets) -> usize {
        match self {
            Self::Tun(tun) => tun.write(packets),
            Self::Stack(stack) => packets.iter().filter(|packet| stack.write(packet).is_err()).count(),
        }
    }
}
