//! The TUN device: inner packets to and from this machine's own network stack. Its address and route go with it when it is closed.

use std::io;
use std::net::Ipv4Addr;

use tun_rs::{AsyncDevice, DeviceBuilder};

use crate::exit::{Exit, Failure};
use crate::proto::overlay::{MTU, Prefix};

/// Packets the kernel may queue towards us; the default of 500 drops in bursts of a fast sender.
const QUEUE: u32 = 5000;

/// IFNAMSIZ of the kernel, without the zero at the end.
const LONGEST_NAME: usize = 15;

const TAKEN: &str = "another mesh or interface has this name: choose another with --tun (MESH_TUN)";

/// A device that is up, with our overlay address.
pub struct Tun(AsyncDevice);

impl Tun {
    /// Makes `name` with `address` of `overlay`; the kernel adds the route to the prefix by itself.
    pub fn create(name: &str, address: Ipv4Addr, overlay: Prefix) -> Result<Self, Failure> {
        DeviceBuilder::new()
            .name(name)
            .ipv4(address, overlay.len(), None)
            .mtu(MTU)
            .tx_queue_len(QUEUE)
            .build_async()
            .map(Self)
            .map_err(|error| refused(name, &error))
    }

    /// Waits until a packet can be read.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// A packet that is there; `None` when there is none.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.try_recv(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Delivers a packet now or not at all.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.0.try_send(packet).map(drop)
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
