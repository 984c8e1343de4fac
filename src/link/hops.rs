//! How far away the first router outside our NATs is: sends packets with small TTLs and reads who answers "time exceeded". What follows
//! from the answers is not decided here but in `proto::hops`.
//!
//! From a socket of its own: the answers arrive on its error queue (ip(7), IP_RECVERR), which would disturb the mesh's socket.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv4Ttl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::proto::hops::{MAX_HOPS, is_told};

/// Each TTL has a port of its own from here on, so that an answer tells its TTL; the range that traceroute uses.
const BASE_PORT: u16 = 33434;

/// How long answers are waited for. Routers near by answer within milliseconds, or never; and the first opening waits for this.
const PATIENCE: Duration = Duration::from_millis(300);

/// ICMP type 11: time exceeded (RFC 792).
const TIME_EXCEEDED: u8 = 11;

/// The routers on the way to `target` that answered, by TTL. Empty where nobody answers or the system refuses.
pub async fn routers(target: Ipv4Addr) -> BTreeMap<u8, IpAddr> {
    let mut found = BTreeMap::new();
    let Ok(socket) = ask(target).await else { return found };
    let answers = async {
        while socket.ready(Interest::ERROR).await.is_ok() {
            while let Ok((ttl, router)) = socket.try_io(Interest::ERROR, || next_answer(&socket)) {
                if let Some(router) = router {
                    found.insert(ttl, IpAddr::V4(router));
                }
            }
            if is_told(&found) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, answers).await;
    tracing::debug!(?found, "routers on the way out");
    found
}

async fn ask(target: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    setsockopt(&socket, Ipv4RecvErr, &true)?;
    for ttl in 1..=MAX_HOPS {
        setsockopt(&socket, Ipv4Ttl, &i32::from(ttl))?;
        let to: SocketAddr = SocketAddrV4::new(target, BASE_PORT + u16::from(ttl)).into();
        // An answer to an earlier packet is reported by the next send instead of sending.
        if socket.send_to(&[0; 20], to).await.is_err() {
            let _ = socket.send_to(&[0; 20], to).await;
        }
    }
    Ok(socket)
}

/// One entry of the error queue: the TTL that was asked with, and the router if it is a "time exceeded".
fn next_answer(socket: &UdpSocket) -> io::Result<(u8, Option<Ipv4Addr>)> {
    let mut space = vec![0; 512];
    let mut data = [0; 64];
    let mut data = [IoSliceMut::new(&mut data)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut data, Some(&mut space), flags)?;
    let asked = message.address.map_or(0, |to| to.port());
    let ttl = u8::try_from(asked.wrapping_sub(BASE_PORT)).unwrap_or(0);
    let router = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, Some(from)) if error.ee_type == TIME_EXCEEDED => {
            Some(Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes()))
        }
        _ => None,
    });
    Ok((ttl, router))
}
