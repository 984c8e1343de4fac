//! The TUN device: inner packets to and from this machine's own network stack. Its address and route go with it when it is closed.

use std::io::{self, IoSlice};
use std::net::Ipv4Addr;

use tun_rs::{AsyncDevice, DeviceBuilder};

use crate::exit::{Exit, Failure};
use crate::proto::coalesce::{Coalescer, MOST_PIECES};
use crate::proto::overlay::{MTU, Prefix};
use crate::proto::packets::Packets;
use crate::proto::super_packet::{Malformed, SuperPacket};

/// Packets the kernel may queue towards us, of 64 KiB each when much is sent: enough for the windows of many connections, and no more, as each waits its
/// turn here.
const QUEUE: u32 = 1000;

/// IFNAMSIZ of the kernel, without the zero at the end.
const LONGEST_NAME: usize = 15;

const TAKEN: &str = "another mesh or interface has this name: choose another with --tun (MESH_TUN)";

/// What was read.
#[derive(Debug)]
pub enum Read<'b> {
    /// A packet.
    Packet(SuperPacket<'b>),
    /// Something that makes no sense.
    Malformed(Malformed),
    /// There is nothing, which the stack says alone.
    Nothing,
}

/// A device that is up, with our overlay address.
pub struct Tun {
    device: AsyncDevice,
    /// Whether each packet has a virtio header before it, and several may be one.
    offload: bool,
    coalescer: Coalescer,
}

impl Tun {
    /// Makes `name` with `address` of `overlay`; the kernel adds the route to the prefix by itself. Where the kernel takes only single
    /// packets, so do we.
    pub fn create(name: &str, address: Ipv4Addr, overlay: Prefix) -> Result<Self, Failure> {
        let build = |offload| {
            let builder = DeviceBuilder::new().name(name).ipv4(address, overlay.len(), None).mtu(MTU);
            builder.tx_queue_len(QUEUE).offload(offload).build_async()
        };
        let device = build(true).or_else(|_| build(false)).map_err(|error| refused(name, &error))?;
        let (offload, datagrams) = (device.tcp_gso(), device.udp_gso());
        Ok(Self { device, offload, coalescer: Coalescer::new(datagrams) })
    }

    /// Whether the kernel hands over and takes many packets as one.
    pub fn offloads(&self) -> bool {
        self.offload
    }

    /// Waits until a packet can be read.
    pub async fn readable(&self) -> io::Result<()> {
        self.device.readable().await
    }

    /// A packet that is there.
    pub fn try_read<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Read<'b>> {
        let len = match self.device.try_recv(buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Nothing),
            Err(error) => return Err(error),
        };
        let read = &mut buffer[..len];
        if !self.offload {
            return Ok(Read::Packet(SuperPacket::plain(read)));
        }
        let Some((header, packet)) = read.split_first_chunk_mut() else {
            return Ok(Read::Malformed(Malformed::Headers));
        };
        Ok(SuperPacket::new(*header, packet).map_or_else(Read::Malformed, Read::Packet))
    }

    /// Delivers packets now or not at all; tells how many were not taken.
    pub fn write(&mut self, packets: &mut Packets) -> usize {
        let (device, mut lost) = (&self.device, 0);
        if !self.offload {
            return packets.iter().filter(|packet| device.try_send(packet).is_err()).count();
        }
        self.coalescer.coalesce(packets, |header, pieces| {
            let header = header.to_bytes();
            let mut slices = [IoSlice::new(&[]); MOST_PIECES + 1];
            slices[0] = IoSlice::new(&header);
            let mut count = 1;
            for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            if device.try_send_vectored(&slices[..count]).is_err() {
                lost += count - 1;
            }
        });
        lost
    }
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tun(..)")
    }
}

fn refused(name: &str, error: &io::Error) -> Failure {
    let well_formed = (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(['/', ' ']);
    let hint = match error.kind() {
        // The kernel says the same of a malformed name and of an interface of another kind.
        io::ErrorKind::InvalidInput if well_formed => TAKEN,
        io::ErrorKind::PermissionDenied => "start it through sudo, or give the process CAP_NET_ADMIN",
        io::ErrorKind::NotFound => {
            "this machine has no /dev/net/tun: in a container add --device /dev/net/tun --cap-add NET_ADMIN"
        }
        io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists => TAKEN,
        io::ErrorKind::InvalidInput => "an interface name has at most 15 characters, without `/` and spaces",
        _ => "check /dev/net/tun and the rights of the process",
    };
    Failure::new(Exit::NoTun, "M601", format!("cannot make the TUN device {name}: {error}"), hint)
}
