//! What a NAT does to the sockets behind it, in the words of RFC 4787 sections 4.1, 4.2, 5 and 6; and the one thing that Linux does and the
//! RFC does not name, the *clash*. Hops, loss and time on the way are not here but in [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

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

/// How a new mapping gets its external port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    /// The inside one, where it is free.
    Preserving,
    /// The last one and this.
    Stride(u16),
    /// Any of so many from 4096 on.
    Block(u16),
    /// Any.
    Random,
}

/// A kind of NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// For whom the external port is the same.
    pub mapping: Dependence,
    /// Who may answer.
    pub filtering: Dependence,
    /// How external ports are chosen.
    pub drawing: Drawing,
    /// Whether a datagram that comes before the inside has sent makes a binding of its own. A later inside flow to that address then
    /// gets another port. It lasts as long as an unanswered flow, from the last such datagram on.
    pub clash: bool,
    /// Whether its own outside addresses lead back in.
    pub hairpin: bool,
    /// How long a flow that was never answered is kept, and one that was.
    pub lifetimes: (Duration, Duration),
}

/// Linux `masquerade`.
pub const MASQ: Kind = Kind {
    mapping: Dependence::EndpointIndependent,
    filtering: Dependence::AddressAndPort,
    drawing: Drawing::Preserving,
    clash: true,
    hairpin: false,
    lifetimes: (Duration::from_secs(30), Duration::from_secs(120)),
};

/// Linux `snat to` a range: what GitHub's runners look like from outside.
pub const AZURE: Kind = Kind { drawing: Drawing::Stride(1), ..MASQ };

/// A well-made NAT: as strict, without the clash.
pub const EIM_APDF: Kind = Kind { clash: false, ..MASQ };

/// An address-restricted one.
pub const EIM_ADF: Kind = Kind { filtering: Dependence::Address, ..EIM_APDF };

/// A full cone.
pub const EIM_EIF: Kind = Kind { filtering: Dependence::EndpointIndependent, ..EIM_APDF };

/// Another port for each address, one after another.
pub const ADM: Kind = Kind { mapping: Dependence::Address, drawing: Drawing::Block(1024), ..MASQ };

/// Another port for everyone, anywhere.
pub const SYMMETRIC: Kind = Kind { mapping: Dependence::AddressAndPort, drawing: Drawing::Random, ..MASQ };

/// Another port for everyone, one after another.
pub const SEQUENTIAL: Kind = Kind { drawing: Drawing::Stride(2), ..SYMMETRIC };

/// An own socket behind a NAT.
pub type Inside = SocketAddr;

#[derive(Debug)]
struct Flow {
    port: u16,
    replied: bool,
    /// Its port is not the mapping's: a binding from outside was in the way.
    clashed: bool,
    last: Instant,
}

/// A NAT with the sockets behind it.
#[derive(Debug)]
pub struct Nat {
    /// What it is like.
    pub kind: Kind,
    /// Its address on the internet.
    pub outside: Ipv4Addr,
    next_port: u16,
    rng: ChaCha20Rng,
    /// By the socket inside and the remote address.
    flows: BTreeMap<(Inside, SocketAddr), Flow>,
    /// Bindings that began outside, by remote address and external port.
    null_bindings: BTreeMap<(SocketAddr, u16), Instant>,
    /// When it last looked for what has expired.
    looked: Option<Instant>,
}

/// How often it looks for what has expired: each look costs as much as there are flows.
const LOOK: Duration = Duration::from_millis(100);

impl Nat {
    /// One at `outside`.
    pub fn new(kind: Kind, outside: Ipv4Addr, seed: u64) -> Self {
        let (flows, null_bindings) = (BTreeMap::new(), BTreeMap::new());
        Self {
            kind,
            outside,
            next_port: 1024,
            rng: ChaCha20Rng::seed_from_u64(seed),
            flows,
            null_bindings,
            looked: None,
        }
    }

    /// A datagram of `inside` leaves for `to`; the address it seems to come from. `None` when there is no port left for it.
    pub fn outbound(&mut self, now: Instant, inside: Inside, to: SocketAddr) -> Option<SocketAddr> {
        self.expire(now);
        if let Some(flow) = self.flows.get_mut(&(inside, to)) {
            flow.last = now;
            return Some(SocketAddr::from((self.outside, flow.port)));
        }
        let mapped = self.mapped(inside, to).or_else(|| self.draw(inside, self.kind.drawing))?;
        let clashed = self.null_bindings.contains_key(&(to, mapped));
        let port = if clashed { self.draw(inside, Drawing::Random)? } else { mapped };
        self.flows.insert((inside, to), Flow { port, replied: false, clashed, last: now });
        Some(SocketAddr::from((self.outside, port)))
    }

    /// A datagram of `from` has come to the external `port`; whom it is for, if it gets in.
    pub fn inbound(&mut self, now: Instant, from: SocketAddr, port: u16) -> Option<Inside> {
        self.expire(now);
        let exact = self.flows.iter_mut().find(|((_, to), flow)| *to == from && flow.port == port);
        if let Some(((inside, _), flow)) = exact {
            (flow.last, flow.replied) = (now, true);
            return Some(*inside);
        }
        let filtering = self.kind.filtering;
        let open = self.flows.iter().find(|((_, to), flow)| flow.port == port && filtering.covers(*to, from));
        if let Some(((inside, _), _)) = open {
            return Some(*inside);
        }
        if self.kind.clash {
            self.null_bindings.insert((from, port), now);
        }
        None
    }

    /// Forgets everything, and hands out other ports than before.
    pub fn rebind(&mut self) {
        self.flows.clear();
        self.null_bindings.clear();
        self.next_port += 1000;
        self.kind.drawing = match self.kind.drawing {
            Drawing::Preserving => Drawing::Random,
            other => other,
        };
    }

    fn mapped(&self, inside: Inside, to: SocketAddr) -> Option<u16> {
        let mapping = self.kind.mapping;
        let same = |((from, other), flow): &(&(Inside, SocketAddr), &Flow)| {
            *from == inside && !flow.clashed && mapping.covers(*other, to)
        };
        self.flows.iter().find(same).map(|(_, flow)| flow.port)
    }

    fn draw(&mut self, inside: Inside, drawing: Drawing) -> Option<u16> {
        let taken: BTreeSet<u16> = self.flows.values().map(|flow| flow.port).collect();
        match drawing {
            Drawing::Preserving if !taken.contains(&inside.port()) => Some(inside.port()),
            Drawing::Stride(step) => {
                self.next_port += step;
                Some(self.next_port)
            }
            Drawing::Block(size) => self.free(4096..4096 + size, &taken),
            Drawing::Preserving | Drawing::Random => self.free(1024..65_535, &taken),
        }
    }

    fn free(&mut self, range: std::ops::Range<u16>, taken: &BTreeSet<u16>) -> Option<u16> {
        let start = self.rng.random_range(range.clone());
        (start..range.end).chain(range.start..start).find(|port| !taken.contains(port))
    }

    fn expire(&mut self, now: Instant) {
        if self.looked.is_some_and(|looked| now - looked < LOOK) {
            return;
        }
        self.looked = Some(now);
        let (unreplied, stream) = self.kind.lifetimes;
        self.flows.retain(|_, flow| now - flow.last < if flow.replied { stream } else { unreplied });
        self.null_bindings.retain(|_, last| now - *last < unreplied);
    }
}

const INSIDE: &str = "192.168.1.2:40000";

#[test]
fn a_datagram_from_outside_that_comes_first_takes_the_port_away_until_thirty_seconds_of_silence() {
    let (now, peer, stun) = (Instant::now(), addr("198.51.100.9:9"), addr("192.0.2.1:3478"));
    for (kind, moves) in [(MASQ, true), (AZURE, true), (EIM_APDF, false)] {
        let mut nat = Nat::new(kind, Ipv4Addr::new(198, 51, 100, 1), 1);
        let mapped = nat.outbound(now, addr(INSIDE), stun).expect("a port");
        assert_eq!(nat.inbound(now, peer, mapped.port()), None);
        assert_eq!(nat.outbound(now, addr(INSIDE), peer) != Some(mapped), moves, "{kind:?}");
        let later = nat.outbound(now + Duration::from_secs(30), addr(INSIDE), peer);
        assert_eq!(later == Some(mapped), kind.drawing == Drawing::Preserving, "after a silence");
    }
}

#[test]
fn an_inside_datagram_that_comes_first_lets_the_answer_in_on_the_mapped_port() {
    let (now, peer, stun) = (Instant::now(), addr("198.51.100.9:9"), addr("192.0.2.1:3478"));
    for kind in [MASQ, AZURE, EIM_APDF, EIM_ADF, EIM_EIF] {
        let mut nat = Nat::new(kind, Ipv4Addr::new(198, 51, 100, 1), 1);
        let mapped = nat.outbound(now, addr(INSIDE), stun).expect("a port");
        assert_eq!(nat.outbound(now, addr(INSIDE), peer), Some(mapped), "{kind:?}");
        assert_eq!(nat.inbound(now, peer, mapped.port()), Some(addr(INSIDE)));
        let admitted = (kind.filtering == Dependence::EndpointIndependent).then(|| addr(INSIDE));
        assert_eq!(nat.inbound(now, addr("203.0.113.5:5"), mapped.port()), admitted, "{kind:?}");
    }
}

#[test]
fn a_dependent_mapping_is_another_for_each_peer_and_each_socket() {
    let now = Instant::now();
    let (one, other, elsewhere) = (addr("192.0.2.1:1"), addr("192.0.2.1:2"), addr("192.0.2.2:1"));
    for (kind, for_ports) in [(ADM, false), (SYMMETRIC, true), (SEQUENTIAL, true)] {
        let mut nat = Nat::new(kind, Ipv4Addr::new(198, 51, 100, 1), 1);
        let first = nat.outbound(now, addr(INSIDE), one);
        assert_eq!(nat.outbound(now, addr(INSIDE), other) != first, for_ports, "{kind:?}");
        assert_ne!(nat.outbound(now, addr(INSIDE), elsewhere), first, "{kind:?}");
        assert_ne!(nat.outbound(now, addr("192.168.1.2:40001"), one), first, "{kind:?}");
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
