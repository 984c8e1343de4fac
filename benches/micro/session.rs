//! Two ends of a WireGuard session, without nodes around them.

use std::net::{IpAddr, Ipv4Addr};

use mesh::proto::packets::Packets;
use mesh::proto::tunnel::{HandshakeLimit, Tunnel};
use x25519_dalek::{PublicKey, StaticSecret};

/// Where datagrams come from.
pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Who sends and who receives; each other's session is up.
pub fn shaken() -> [Tunnel; 2] {
    let secrets = [1, 2].map(|byte| StaticSecret::from([byte; 32]));
    let tunnel = |own: usize| {
        let peer = PublicKey::from(&secrets[1 - own]);
        let limit = HandshakeLimit::new(&PublicKey::from(&secrets[own]));
        Tunnel::new(&secrets[own], &peer, [5; 32], own as u32 + 1, &limit)
    };
    let mut ends = [tunnel(0), tunnel(1)];
    let mut message = ends[0].initiate().expect("an initiation");
    for end in [1, 0, 1] {
        let opened = ends[end].open(HERE, &message, &mut Packets::default());
        message = opened.replies.into_iter().next().unwrap_or_default();
    }
    ends
}

/// The receiver's static public key.
pub fn public() -> PublicKey {
    PublicKey::from(&secret())
}

/// The secret of that.
pub fn secret() -> StaticSecret {
    StaticSecret::from([2; 32])
}

/// A transport message with this inside.
pub fn sealed(tunnel: &mut Tunnel, inner: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; Tunnel::sealed_len(inner.len())];
    let len = tunnel.seal(inner, &mut buffer).expect("a session");
    buffer.truncate(len);
    buffer
}
