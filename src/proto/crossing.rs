//! Can two peers meet directly, and how must they go about it? One pure function of what is known about both sides. How a path is
//! opened is not here but in [`super::path`]; which ports to try in [`super::guess`].
//!
//! The outcomes are those of a lab with real NATs, where both sides open with a low TTL before they send for good.

use std::fmt;

use super::filtering::Filtering;
use super::nat::Behaviour;

/// The most egress addresses that are searched: with four, 256 sockets and 1024 probes meet in two of three tries.
const MOST_EGRESS: u8 = 4;

/// Between a peer and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// No STUN server answered: UDP does not pass at all.
    Blocked,
    /// A public address without a NAT, that admits everyone. One behind a firewall that admits answers alone is [`Side::Nat`] with an
    /// endpoint-independent mapping.
    Public,
    /// A NAT. One whose mapping is unknown counts as endpoint-independent, since most are; an unknown filtering counts as the strictest.
    Nat(Behaviour, Filtering),
}

impl Side {
    /// The NAT whose mapping a peer cannot know.
    fn dependent(&self) -> Option<&Behaviour> {
        match self {
            Self::Nat(behaviour, _) if behaviour.is_dependent() => Some(behaviour),
            _ => None,
        }
    }

    /// Whether a datagram from an unexpected port of an expected address comes in.
    fn admits_any_port(&self) -> bool {
        match self {
            Self::Blocked => false,
            Self::Public => true,
            Self::Nat(_, filtering) => {
                matches!(filtering, Filtering::EndpointIndependent | Filtering::AddressDependent)
            }
        }
    }
}

/// Why there is no direct path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Both mappings depend on the destination: 2^32 pairs of ports to search.
    BothDependent,
    /// One does, over too many egress addresses to search.
    EgressAddresses,
}

/// How two sides meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// Open both, then send.
    Direct,
    /// The port of one side has to be guessed, and is one of few.
    Predict,
    /// The port of one side has to be guessed, and may be any: many sockets there, many probes here.
    Spray,
    /// Through another peer.
    Relay(Obstacle),
    /// Not at all, since a relay needs UDP too.
    Blocked,
}

impl Crossing {
    /// The failure code that explains it, for all that is not simply direct.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Direct => None,
            Self::Predict | Self::Spray => Some("M202"),
            Self::Relay(Obstacle::BothDependent) => Some("M203"),
            Self::Relay(Obstacle::EgressAddresses) => Some("M205"),
            Self::Blocked => Some("M201"),
        }
    }
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Predict => "direct once one NAT's next port is predicted",
            Self::Spray => "direct once one NAT's port is found by many probes",
            Self::Relay(Obstacle::BothDependent) => "relayed: both NATs map by destination",
            Self::Relay(Obstacle::EgressAddresses) => "relayed: one NAT maps by destination over many egress addresses",
            Self::Blocked => "no path: UDP is blocked",
        })
    }
}

/// How `a` and `b` meet; the same for `b` and `a`.
pub fn can_punch(a: &Side, b: &Side) -> Crossing {
    if *a == Side::Blocked || *b == Side::Blocked {
        return Crossing::Blocked;
    }
    match (a.dependent(), b.dependent()) {
        (None, None) => Crossing::Direct,
        (Some(hard), None) => towards(hard, b),
        (None, Some(hard)) => towards(hard, a),
        (Some(_), Some(_)) => Crossing::Relay(Obstacle::BothDependent),
    }
}

/// `easy` learns the mapping from the first datagram if it lets it in. The filtering of `hard` does not count: even where `easy` is let
/// in at a known mapping, the answer leaves from another.
fn towards(hard: &Behaviour, easy: &Side) -> Crossing {
    if easy.admits_any_port() {
        Crossing::Direct
    } else if hard.egress > MOST_EGRESS {
        Crossing::Relay(Obstacle::EgressAddresses)
    } else if hard.ports.is_predictable() {
        Crossing::Predict
    } else {
        Crossing::Spray
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::nat::Mapping;
    use super::super::nat::ports::Ports;
    use super::*;

    const BLOCK: Ports = Ports::Block { first: 1024, last: 1999 };

    fn nat(mapping: Mapping, ports: Ports, filtering: Filtering) -> Side {
        Side::Nat(Behaviour { mapping, ports, egress: 1 }, filtering)
    }

    /// The NATs of the lab, by the names they have there.
    fn side(name: &str) -> Side {
        use Filtering::{AddressAndPortDependent as Apdf, AddressDependent as Adf, EndpointIndependent as Eif};
        use Mapping::{AddressAndPortDependent as Apdm, AddressDependent as Adm, EndpointIndependent as Eim};
        match name {
            "public" => Side::Public,
            "masq" => nat(Eim, Ports::Preserving, Apdf),
            "azure" => nat(Eim, BLOCK, Filtering::Unknown),
            "eim_eif" => nat(Eim, Ports::Preserving, Eif),
            "eim_adf" => nat(Eim, Ports::Preserving, Adf),
            "eim_apdf" => nat(Eim, Ports::Preserving, Apdf),
            "azure_adm" => nat(Adm, BLOCK, Apdf),
            "masq_rand" => nat(Apdm, Ports::Random, Apdf),
            "stride" => nat(Apdm, Ports::Stride { last: 5000, step: 2 }, Apdf),
            "block" => Side::Blocked,
            _ => panic!("no NAT is called {name}"),
        }
    }

    fn crossing(word: &str) -> Crossing {
        match word {
            "both" => Crossing::Direct,
            "predict" => Crossing::Predict,
            "spray" => Crossing::Spray,
            "relay" => Crossing::Relay(Obstacle::BothDependent),
            "blocked" => Crossing::Blocked,
            _ => panic!("no crossing is called {word}"),
        }
    }

    /// As the lab measured it, "none" being what a search or a relay is for; and two sides more, that follow from the rest.
    const MATRIX: &str = "
        .          masq     azure    eim_eif  eim_adf  eim_apdf azure_adm masq_rand stride   public   block
        masq       both     both     both     both     both     predict   spray     predict  both     blocked
        azure      both     both     both     both     both     predict   spray     predict  both     blocked
        eim_eif    both     both     both     both     both     both      both      both     both     blocked
        eim_adf    both     both     both     both     both     both      both      both     both     blocked
        eim_apdf   both     both     both     both     both     predict   spray     predict  both     blocked
        azure_adm  predict  predict  both     both     predict  relay     relay     relay    both     blocked
        masq_rand  spray    spray    both     both     spray    relay     relay     relay    both     blocked
        stride     predict  predict  both     both     predict  relay     relay     relay    both     blocked
        public     both     both     both     both     both     both      both      both     both     blocked
        block      blocked  blocked  blocked  blocked  blocked  blocked   blocked   blocked  blocked  blocked";

    #[test]
    fn every_pair_meets_as_the_lab_has_seen_it() {
        let rows: Vec<Vec<&str>> = MATRIX.trim().lines().map(|line| line.split_whitespace().collect()).collect();
        let (names, rows) = rows.split_first().expect("a head and rows");
        assert_eq!(rows.len(), names.len() - 1);
        for row in rows {
            for (name, expected) in names.iter().zip(row).skip(1) {
                assert_eq!(can_punch(&side(row[0]), &side(name)), crossing(expected), "{} and {name}", row[0]);
            }
        }
    }

    #[test]
    fn nothing_known_counts_as_an_ordinary_nat() {
        let unknown = Side::Nat(Behaviour::default(), Filtering::Unknown);
        for name in ["masq", "azure", "eim_eif", "eim_adf", "azure_adm", "masq_rand", "stride", "public", "block"] {
            assert_eq!(can_punch(&unknown, &side(name)), can_punch(&side("masq"), &side(name)), "{name}");
        }
    }

    #[test]
    fn a_search_over_many_egress_addresses_is_not_begun() {
        let hard = |egress| {
            let mapping = Mapping::AddressDependent;
            Side::Nat(Behaviour { mapping, ports: Ports::Random, egress }, Filtering::Unknown)
        };
        assert_eq!(can_punch(&hard(MOST_EGRESS), &side("masq")), Crossing::Spray);
        assert_eq!(can_punch(&hard(MOST_EGRESS + 1), &side("masq")), Crossing::Relay(Obstacle::EgressAddresses));
        assert_eq!(can_punch(&hard(255), &side("eim_adf")), Crossing::Direct);
    }

    #[test]
    fn several_egress_addresses_do_no_harm_where_each_socket_keeps_to_one() {
        let paired = Behaviour { mapping: Mapping::EndpointIndependent, ports: BLOCK, egress: 8 };
        assert_eq!(can_punch(&Side::Nat(paired, Filtering::Unknown), &side("masq")), Crossing::Direct);
    }

    #[test]
    fn what_is_not_direct_has_a_code() {
        let code = |a, b| can_punch(&side(a), &side(b)).code();
        assert_eq!(code("masq", "azure"), None);
        assert_eq!(code("masq", "masq_rand"), Some("M202"));
        assert_eq!(code("stride", "masq_rand"), Some("M203"));
        assert_eq!(code("masq", "block"), Some("M201"));
        assert_eq!(Crossing::Relay(Obstacle::EgressAddresses).code(), Some("M205"));
    }

    fn any_side() -> impl Strategy<Value = Side> {
        use Filtering::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};
        let mapping = prop::sample::select(vec![
            Mapping::Unknown,
            Mapping::EndpointIndependent,
            Mapping::AddressDependent,
            Mapping::AddressAndPortDependent,
        ]);
        let stride = any::<(u16, i16)>().prop_map(|(last, step)| Ports::Stride { last, step });
        let block = any::<(u16, u16)>().prop_map(|(first, last)| Ports::Block { first, last });
        let plain = prop::sample::select(vec![Ports::Unknown, Ports::Preserving, Ports::Random]);
        let behaviour = (mapping, prop_oneof![plain, stride, block], any::<u8>())
            .prop_map(|(mapping, ports, egress)| Behaviour { mapping, ports, egress });
        let filtering =
            prop::sample::select(vec![Unknown, EndpointIndependent, AddressDependent, AddressAndPortDependent]);
        let nat = (behaviour, filtering).prop_map(|(behaviour, filtering)| Side::Nat(behaviour, filtering));
        prop_oneof![1 => Just(Side::Blocked), 1 => Just(Side::Public), 8 => nat]
    }

    proptest! {
        #[test]
        fn it_does_not_matter_who_asks(a in any_side(), b in any_side()) {
            let met = can_punch(&a, &b);
            prop_assert_eq!(met, can_punch(&b, &a));
            prop_assert_eq!(met.code().is_none(), met == Crossing::Direct);
            prop_assert!(!met.to_string().is_empty());
        }

        #[test]
        fn a_side_that_lets_more_in_never_does_worse(a in any_side(), b in any_side()) {
            let open = match a {
                Side::Nat(behaviour, _) => Side::Nat(behaviour, Filtering::EndpointIndependent),
                other => other,
            };
            prop_assert!(can_punch(&open, &b) == can_punch(&a, &b) || can_punch(&open, &b) == Crossing::Direct);
        }
    }
}
