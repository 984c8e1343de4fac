//! What carries the overlay on this machine: a TUN device where the system grants one, else our own stack.

use std::net::Ipv4Addr;

use rand::Rng;

use super::actions::{line, warn};
use super::network::warn_one_by_one;
use crate::config::CommonArgs;
use crate::exit::{Exit, Failure};
use crate::link::device::Device;
use crate::link::ports::Ports;
use crate::link::routes;
use crate::link::stack::Stack;
use crate::link::tun::Tun;
use crate::proto::overlay::Prefix;

/// The device of a trial; the prefix is for benchmarks (RFC 2544), so no route of anybody is touched.
const TRIAL_DEVICE: &str = "meshdoctor";
const TRIAL_PREFIX: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 254, 0), 29);

/// What the report calls the two.
pub(super) const TUN: &str = "tun";
pub(super) const USERSPACE: &str = "userspace";

/// The device with our address. Without `--tun`, a system that refuses one is no failure but a warning.
pub(super) fn open(common: &CommonArgs, address: Ipv4Addr) -> Result<(Device, Ports), Failure> {
    if common.no_tun {
        return Ok(stack(common, address));
    }
    if let Err(conflict) = routes::check_free(common.overlay) {
        return match trial() {
            Err(refused) if may_do_without(common, &refused) => Ok(instead(&refused, common, address)),
            _ => Err(conflict),
        };
    }
    match Tun::create(common.tun_name(), address, common.overlay) {
        Ok(tun) => {
            if !tun.offloads() {
                warn_one_by_one("the TUN device hands over packets");
            }
            Ok((Device::Tun(tun), Ports::Kernel(address)))
        }
        Err(refused) if may_do_without(common, &refused) => Ok(instead(&refused, common, address)),
        Err(refused) => Err(refused),
    }
}

/// Whether the system grants a TUN device at all: makes one and removes it at once.
pub(super) fn trial() -> Result<(), Failure> {
    let (address, len) = TRIAL_PREFIX;
    Tun::create(TRIAL_DEVICE, address, Prefix::new(address, len)).map(drop)
}

/// As the report and `mesh status` say it.
pub(super) fn name(ports: &Ports) -> &'static str {
    if ports.are_ours_alone() { USERSPACE } else { TUN }
}

/// Whether the user has not insisted on what the system refused.
pub(super) fn may_do_without(common: &CommonArgs, refused: &Failure) -> bool {
    common.tun.is_none() && refused.exit == Exit::NoTun
}

/// What it means that there is none: only what is led through the stack reaches the overlay.
pub(super) fn without(refused: &Failure) -> Failure {
    let what =
        format!("{}: going on without, over a userspace stack that carries the build and --forward", refused.what);
    Failure {
        what,
        hint: format!("nothing has to be done; for other programs to reach the overlay, {}", refused.hint),
        ..refused.clone()
    }
}

/// Nothing reaches the overlay any more.
pub(super) fn device_gone(common: &CommonArgs) -> Failure {
    let what = format!("the TUN device {} is gone, and with it every connection through the mesh", common.tun_name());
    Failure::new(
        Exit::NoTun,
        "M606",
        what,
        "somebody has removed it: let nothing else on this machine remove interfaces",
    )
}

fn instead(refused: &Failure, common: &CommonArgs, address: Ipv4Addr) -> (Device, Ports) {
    warn(&line(&without(refused)));
    stack(common, address)
}

fn stack(common: &CommonArgs, address: Ipv4Addr) -> (Device, Ports) {
    let (stack, handle) = Stack::new(address, common.overlay, rand::rng().random());
    (Device::Stack(stack), Ports::Stack(handle))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Parsed {
        #[command(flatten)]
        common: CommonArgs,
    }

    /// The system refuses this name whoever asks.
    const IMPOSSIBLE: &str = "a-name-much-too-long";

    fn open(flags: &[&str]) -> Result<(Device, Ports), Failure> {
        let common = Parsed::parse_from([&["mesh", "--overlay", "198.18.7.0/24"], flags].concat()).common;
        super::open(&common, Ipv4Addr::new(198, 18, 7, 1))
    }

    #[test]
    fn a_device_that_was_asked_for_by_name_and_is_refused_ends_with_86() {
        let refused = open(&["--tun", IMPOSSIBLE]).expect_err("no such device");
        assert_eq!((refused.exit.code(), refused.code), (86, "M601"));
        assert!(refused.what.contains(IMPOSSIBLE), "{refused}");
    }

    #[test]
    fn without_a_wish_for_one_the_stack_carries_the_overlay() {
        let (device, ports) = open(&["--no-tun"]).expect("it needs nothing of the system");
        assert!(matches!(device, Device::Stack(_)));
        assert_eq!(name(&ports), USERSPACE);
    }

    #[test]
    fn a_refusal_that_is_gone_on_without_says_what_then_works() {
        let refused =
            Failure::new(Exit::NoTun, "M601", "cannot make the TUN device mesh0: no", "start it through sudo");
        let text = line(&without(&refused));
        assert!(text.starts_with("M601 cannot make the TUN device mesh0: no: going on without"), "{text}");
        assert!(text.contains("userspace stack") && text.contains("hint: nothing has to be done"), "{text}");
    }
}
