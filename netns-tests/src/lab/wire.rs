//! The wire between a NAT and its edge router, which delays, reorders and loses packets. Not here: addresses and routes.
//!
//! Where the kernel has netem, it is a veth pair with netem on the NAT's end. Where it has none (small cloud kernels leave it out), it is
//! two TUN devices with a [`pump`] of ours between them. Both shape only what leaves the NAT. A cable between two hosts ([`super::Cable`])
//! is always such a pump, and shapes both ways.

mod pump;

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Netns;
use pump::{Back, Pump};

/// Packets on their way at once; netem's default of 1000 would drop at 20 ms above 0.6 Gb/s.
const QUEUE: usize = 20_000;

/// What a wire does to each packet that leaves the NAT.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Link {
    /// From leaving the NAT to reaching its edge router.
    pub delay: Duration,
    /// How many of a hundred packets are lost, at random and independently: 0 to 100.
    pub loss_percent: f32,
    /// How many of a hundred packets do not wait for the delay and so overtake those that do: 0 to 100, likewise. Without a delay none does.
    pub reorder_percent: f32,
}

impl Link {
    /// netem refuses to without a delay.
    fn reorders(self) -> bool {
        self.reorder_percent > 0.0 && !self.delay.is_zero()
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    near: End,
    far: End,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Netem,
    Pump(Pump),
}

#[derive(Debug, Clone)]
struct End {
    netns: Netns,
    dev: &'static str,
}

impl Wire {
    /// Makes a device at each end, not yet up, without addresses. `near` is the NAT's end.
    pub(super) fn connect(
        near: (&Netns, &'static str),
        far: (&Netns, &'static str),
        netem: bool,
        link: Link,
    ) -> Result<Self> {
        let (near, far) = (End::new(near), End::new(far));
        let kind = if netem {
            let batch = format!("link add {} type veth peer name {} netns {}\n", near.dev, far.dev, far.netns.name());
            near.netns.ip(&batch)?;
            Kind::Netem
        } else {
            Kind::Pump(Pump::start((&near.netns, near.dev), (&far.netns, far.dev), Back::Unshaped)?)
        };
        let wire = Self { near, far, kind };
        wire.set_link(link)?;
        Ok(wire)
    }

    /// Likewise, in user space and shaped both ways. netem would lose a super-packet as one, which flatters whoever sends them.
    pub(super) fn cable(near: (&Netns, &'static str), far: (&Netns, &'static str)) -> Result<Self> {
        let kind = Kind::Pump(Pump::start(near, far, Back::Alike)?);
        Ok(Self { near: End::new(near), far: End::new(far), kind })
    }

    pub(super) fn set_link(&self, link: Link) -> Result<()> {
        for (what, percent) in [("a loss", link.loss_percent), ("a reordering", link.reorder_percent)] {
            ensure!((0.0..=100.0).contains(&percent), "{what} of {percent} % is not within 0 to 100");
        }
        match &self.kind {
            Kind::Netem => {
                self.near.netns.run("tc", &netem_args("replace", self.near.dev, link).as_args(), "").map(drop)
            }
            Kind::Pump(pump) => {
                pump.set_link(link);
                Ok(())
            }
        }
    }

    /// Removes both devices, which ends the pump. Until then its file descriptors would keep the namespaces alive.
    pub(super) fn close(&self) {
        for end in [&self.near, &self.far] {
            if let Err(error) = end.netns.ip(&format!("link del {}\n", end.dev)) {
                tracing::debug!(dev = end.dev, netns = end.netns.name(), "no device to remove: {error:#}");
            }
        }
        if let Kind::Pump(pump) = &self.kind {
            pump.join();
        }
    }
}

impl End {
    fn new((netns, dev): (&Netns, &'static str)) -> Self {
        Self { netns: netns.clone(), dev }
    }
}

/// Whether this kernel has netem, found by asking for one on the loopback device of an unused namespace.
pub(super) fn kernel_has_netem(netns: &Netns) -> Result<bool> {
    netns.run("tc", &["-V"], "")?;
    let added = netns.run("tc", &netem_args("add", "lo", Link::default()).as_args(), "");
    if added.is_ok() {
        netns.run("tc", &["qdisc", "del", "dev", "lo", "root"], "")?;
    }
    Ok(added.is_ok())
}

struct Args(Vec<String>);

impl Args {
    fn as_args(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

fn netem_args(verb: &str, dev: &str, link: Link) -> Args {
    let (delay, loss) = (link.delay.as_micros(), link.loss_percent);
    let mut line = format!("qdisc {verb} dev {dev} root netem limit {QUEUE} delay {delay}us loss {loss}%");
    if link.reorders() {
        line += &format!(" reorder {}%", link.reorder_percent);
    }
    Args(line.split(' ').map(str::to_owned).collect())
}
