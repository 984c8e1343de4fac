//! Where inner packets come from and go to: the kernel through a TUN device, or our own stack. Which of them it is, is not decided here but
//! in `cli`.

use std::io;

use super::stack::Stack;
use super::tun::Tun;

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

    /// A packet that is there; `None` when there is none.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Tun(tun) => tun.try_read(buffer),
            Self::Stack(stack) => stack.try_read(buffer),
        }
    }

    /// Delivers a packet now or not at all.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Tun(tun) => tun.write(packet),
            Self::Stack(stack) => stack.write(packet),
        }
    }
}
