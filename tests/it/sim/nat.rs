//! What a NAT does to one inside socket, in the words of RFC 4787 sections 4.1 and 5; and the one thing that Linux does and the RFC
//! does not name, the *clash*. Hops, loss and time on the way are not here but in [`super`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long Linux keeps a flow that was never answered, and a binding that nobody inside asked for.
const UNREPLIED: Duration = Duration::from_secs(30);

/// How long it keeps a flow that was.
const STREAM: Duration = Duration::from_secs(120);

/// Of what a mapping or a filter depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependence {
    /// On nothing: the same for every endpoint.
    EndpointIndependent,
    /// On the remote address.
    Address,
    /// On the remote address and port.
    AddressAndPort,
}

impl Dependence {
    /// Whether what holds for `one` holds for `other`.
    fn covers(self, one: SocketAddr, other: SocketAddr) -> bool {
        match self {
            Self::EndpointIndependent => true,
            Self::Address => one.ip() == other.ip(),
            Self::AddressAndPort => one == other,
        }
    }
}

/// A kind of NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// For whom the external port is the same.
    pub mapping: Dependence,
    /// Who may answer.
    pub filtering: Dependence,
    /// Whether the external port is the inside one.
    pub port_preserving: bool,
    /// Whether a datagram that comes before the inside has sent makes a binding of its own. A later inside flow to that address then
    /// gets another port. It lasts until 30 s after the last such datagram.
    pub clash: bool,
}

/// Linux `masquerade`.
pub const MASQ: Kind = Kind {
    mapping: Dependence::EndpointIndependent,
    filtering: Dependence::AddressAndPort,
    port_preserving: true,
    clash: true,
};

/// Linux `snat to` a range: what GitHub's runners look like from outside.
pub const AZURE: Kind = Kind { port_preserving: false, ..MASQ };

/// A well-made NAT: as strict, without the clash.
pub const EIM_APDF: Kind = Kind { clash: false, ..MASQ };

/// An address-restricted one.
pub const EIM_ADF: Kind = Kind { filtering: Dependence::Address, ..EIM_APDF };

/// A full cone.
pub const EIM_EIF: Kind = Kind { filtering: Dependence::EndpointIndependent, ..EIM_APDF };

/// Another port for everyone; cannot be punched from behind a strict one.
pub const SYMMETRIC: Kind = Kind { mapping: Dependence::AddressAndPort, port_preserving: false, ..MASQ };

#[derive(Debug)]
struct Flow {
    port: u16,
    replied: bool,
    /// Its port is not the mapping's: a binding from outside was in the way.
    clashed: bool,
    last: Instant,
}

impl Flow {
    fn is_alive(&self, now: Instant) -> bool {
        now - self.last < if self.replied { STREAM } else { UNREPLIED }
    }
}

/// A NAT with one socket behind it.
#[derive(Debug)]
pub struct Nat {
    kind: Kind,
    outside: Ipv4Addr,
    inside_port: u16,
    next_port: u16,
    /// By remote address.
    flows: BTreeMap<SocketAddr, Flow>,
    /// Bindings that began outside, by remote address and external port.
    null_bindings: BTreeMap<(SocketAddr, u16), Instant>,
}

impl Nat {
    /// One at `outside` for a socket on `inside_port`.
    pub fn new(kind: Kind, outside: Ipv4Addr, inside_port: u16) -> Self {
        Self { kind, outside, inside_port, next_port: 1024, flows: BTreeMap::new(), null_bindings: BTreeMap::new() }
    }

    /// A datagram leaves for `to`; the address it seems to come from.
    pub fn outbound(&mut self, now: Instant, to: SocketAddr) -> SocketAddr {
        self.expire(now);
        if let Some(flow) = self.flows.get_mut(&to) {
            flow.last = now;
            return SocketAddr::from((self.outside, flow.port));
        }
        let mapped = self.mapped(to).unwrap_or_else(|| self.draw(self.kind.port_preserving));
        let clashed = self.null_bindings.contains_key(&(to, mapped));
        let port = if clashed { self.draw(false) } else { mapped };
        self.flows.insert(to, Flow { port, replied: false, clashed, last: now });
        SocketAddr::from((self.outside, port))
    }

    /// A datagram of `from` has come to the external `port`; whether it gets in.
    pub fn inbound(&mut self, now: Instant, from: SocketAddr, port: u16) -> bool {
        self.expire(now);
        if let Some(flow) = self.flows.get_mut(&from).filter(|flow| flow.port == port) {
            (flow.last, flow.replied) = (now, true);
            return true;
        }
        let filtering = self.kind.filtering;
        if self.flows.iter().any(|(to, flow)| flow.port == port && filtering.covers(*to, from)) {
            return true;
        }
        if self.kind.clash {
            self.null_bindings.insert((from, port), now);
        }
        false
    }

    /// Forgets everything, and hands out other ports than before.
    pub fn rebind(&mut self) {
        self.flows.clear();
        self.null_bindings.clear();
        self.next_port += 1000;
    }

    /// A socket on another inside port takes the place of the one before.
    pub fn renew(&mut self, inside_port: u16) {
        self.flows.clear();
        self.inside_port = inside_port;
    }

    fn mapped(&self, to: SocketAddr) -> Option<u16> {
        let mapping = self.kind.mapping;
        self.flows.iter().find(|(other, flow)| !flow.clashed && mapping.covers(**other, to)).map(|(_, flow)| flow.port)
    }

    fn draw(&mut self, preserve: bool) -> u16 {
        if preserve {
            return self.inside_port;
        }
        self.next_port += 1;
        self.next_port
    }

    fn expire(&mut self, now: Instant) {
        self.flows.retain(|_, flow| flow.is_alive(now));
        self.null_bindings.retain(|_, last| now - *last < UNREPLIED);
    }
}

#[test]
fn a_datagram_from_outside_that_comes_first_takes_the_port_away_until_thirty_seconds_of_silence() {
    let (now, peer, stun) = (Instant::now(), addr("198.51.100.9:9"), addr("192.0.2.1:3478"));
    for (kind, moves) in [(MASQ, true), (AZURE, true), (EIM_APDF, false)] {
        let mut nat = Nat::new(kind, Ipv4Addr::new(198, 51, 100, 1), 40000);
        let mapped = nat.outbound(now, stun);
        assert!(!nat.inbound(now, peer, mapped.port()));
        assert_eq!(nat.outbound(now, peer) != mapped, moves, "{kind:?}");
        assert_eq!(nat.outbound(now + UNREPLIED, peer) == mapped, kind.port_preserving, "after a silence");
    }
}

#[test]
fn an_inside_datagram_that_comes_first_lets_the_answer_in_on_the_mapped_port() {
    let (now, peer, stun) = (Instant::now(), addr("198.51.100.9:9"), addr("192.0.2.1:3478"));
    for kind in [MASQ, AZURE, EIM_APDF, EIM_ADF, EIM_EIF] {
        let mut nat = Nat::new(kind, Ipv4Addr::new(198, 51, 100, 1), 40000);
        let mapped = nat.outbound(now, stun);
        assert_eq!(nat.outbound(now, peer), mapped, "{kind:?}");
        assert!(nat.inbound(now, peer, mapped.port()));
        let filtered = kind.filtering != Dependence::EndpointIndependent;
        assert_eq!(nat.inbound(now, addr("203.0.113.5:5"), mapped.port()), !filtered, "{kind:?}");
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
