//! `--forward` and `--expose`: what the user leads between this machine and the overlay. They work alike with a TUN device and without.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::actions::{say, warn};
use crate::config::ServiceArgs;
use crate::exit::{Exit, Failure};
use crate::link::forward::Forwards;
use crate::offload::distccd;
use crate::proto::overlay::Prefix;
use crate::proto::role::Role;

/// Begins to lead all that was asked for. `own` is who we are.
pub(super) fn start(args: &ServiceArgs, own: Role, overlay: Prefix, forwards: &mut Forwards) -> Result<(), Failure> {
    for forward in &args.forward {
        let peer = reachable(own, forward.peer, overlay, &forward.to_string())?;
        let option = format!("--forward {forward}");
        let listen = forwards
            .forward(forward.listen, SocketAddrV4::new(peer, forward.port))
            .map_err(|error| cannot_listen(&option, &format!("127.0.0.1:{}", forward.listen), &error))?;
        say(&format!("127.0.0.1:{listen} leads to port {} of {}", forward.port, forward.peer));
    }
    for port in &args.expose {
        expose(*port, own, forwards)?;
    }
    Ok(())
}

fn expose(port: u16, own: Role, forwards: &mut Forwards) -> Result<(), Failure> {
    if own != Role::Primary && [distccd::PORT, distccd::STATS_PORT].contains(&port) {
        let what = format!("--expose {port}: peers reach distccd by this port of an aux");
        return Err(Failure::new(Exit::Usage, "M110", what, "let the service listen on another port"));
    }
    let here = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    match forwards.expose(port, here) {
        Ok(()) => say(&format!("peers reach 127.0.0.1:{port} by our port {port}")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && !forwards.ports().are_ours_alone() => {
            warn(&format!("M605 what listens on port {port} listens on the overlay too; hint: it needs no --expose"));
        }
        Err(error) => {
            return Err(cannot_listen(&format!("--expose {port}"), &format!("the overlay's port {port}"), &error));
        }
    }
    Ok(())
}

/// The overlay address of a peer that we have a way to: the mesh is a star.
fn reachable(own: Role, peer: Role, overlay: Prefix, forward: &str) -> Result<Ipv4Addr, Failure> {
    let usage = |what: String, hint: &str| Failure::new(Exit::Usage, "M110", what, hint);
    if own == peer {
        return Err(usage(format!("--forward {forward} leads to this machine itself"), "name another peer"));
    }
    if own != Role::Primary && peer != Role::Primary {
        let what = format!("--forward {forward}: {own} has no way to {peer}");
        return Err(usage(what, "an aux reaches the primary alone: LISTEN:primary:PORT"));
    }
    overlay.address(peer).ok_or_else(|| {
        let what = format!("--forward {forward}: the overlay {overlay} has no address for {peer}");
        Failure::new(
            Exit::Usage,
            "M604",
            what,
            "choose a larger prefix with --overlay (MESH_OVERLAY), the same on every runner",
        )
    })
}

fn cannot_listen(option: &str, at: &str, error: &std::io::Error) -> Failure {
    let what = format!("{option}: cannot listen on {at}: {error}");
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "ports below 1024 are for root: choose a higher one",
        _ => "choose another port, or 0 for any with --forward",
    };
    Failure::new(Exit::InUse, "M605", what, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(own: Role, peer: Role) -> Result<Ipv4Addr, Failure> {
        reachable(own, peer, Prefix::new(Ipv4Addr::new(10, 77, 0, 0), 24), "80:x:80")
    }

    #[test]
    fn the_mesh_is_a_star_and_a_forward_that_needs_more_is_refused() {
        assert_eq!(address(Role::Primary, Role::Aux(1)), Ok(Ipv4Addr::new(10, 77, 0, 3)));
        assert_eq!(address(Role::Aux(1), Role::Primary), Ok(Ipv4Addr::new(10, 77, 0, 1)));
        for (own, peer) in [(Role::Aux(0), Role::Aux(1)), (Role::Aux(0), Role::Aux(0)), (Role::Primary, Role::Primary)]
        {
            let failure = address(own, peer).expect_err("no way");
            assert_eq!((failure.exit, failure.code), (Exit::Usage, "M110"), "{failure}");
        }
        assert_eq!(address(Role::Primary, Role::Aux(500)).expect_err("no address").code, "M604");
    }
}
