//! What NAT is this? Compares what several STUN servers saw of our sockets (RFC 4787 section 4.1, RFC 5780 section 4.3). How it draws
//! ports is not here but in [`ports`], and what two NATs mean for each other in [`super::crossing`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use self::ports::Ports;

pub mod ports;

/// How a NAT chooses the external address and port of one internal socket (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// The same towards everyone: can be punched.
    EndpointIndependent,
    /// Another for each destination address.
    AddressDependent,
    /// Another for each destination address and port.
    AddressAndPortDependent,
    /// Fewer than two servers answered from different addresses.
    #[default]
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
            Self::Unknown => "unknown",
        })
    }
}

/// What one server saw of one of our sockets. A slice of them is in the order in which they were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The server that answered.
    pub server: SocketAddr,
    /// Our address as it saw it.
    pub mapped: SocketAddr,
    /// The UDP port of our own that asked, the same for all samples of one socket; 0 where it is not known.
    pub local: u16,
}

/// Classifies by comparing every pair of samples of one own socket: another socket has another mapping anyway. Servers on one address
/// tell ports apart; servers on two tell addresses apart.
///
/// Address and port are compared together, as RFC 4787 section 4.1 does. So a NAT with several egress addresses depends on the
/// destination if one socket is seen at two of them (section 4.1, "IP address pooling": arbitrary), even where the port is preserved: a
/// peer cannot tell at which of them it will see us. If each socket keeps to one ("paired"), it does not.
pub fn mapping(samples: &[Sample]) -> Mapping {
    let later = |i: usize| samples[i + 1..].iter();
    let pairs = || samples.iter().enumerate().flat_map(move |(i, a)| later(i).map(move |b| (a, b)));
    let pairs = || pairs().filter(|(a, b)| a.local == b.local && a.server != b.server);
    let same_host = |a: &Sample, b: &Sample| a.server.ip() == b.server.ip();
    if pairs().any(|(a, b)| same_host(a, b) && a.mapped != b.mapped) {
        Mapping::AddressAndPortDependent
    } else if pairs().any(|(a, b)| !same_host(a, b) && a.mapped != b.mapped) {
        Mapping::AddressDependent
    } else if pairs().any(|(a, b)| !same_host(a, b)) {
        Mapping::EndpointIndependent
    } else {
        Mapping::Unknown
    }
}

/// How many egress addresses were seen. More than one means that address and port must never be taken from different answers.
pub fn egress_addresses(samples: &[Sample]) -> usize {
    samples.iter().map(|sample| sample.mapped.ip()).collect::<BTreeSet<_>>().len()
}

/// All that the answers of STUN servers tell about a NAT. The default knows nothing, as does a peer that announces nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// Of what the mapping of one socket depends.
    pub mapping: Mapping,
    /// How the ports of new mappings are chosen.
    pub ports: Ports,
    /// How many external addresses were seen; 255 stands for more as well.
    pub egress: u8,
}

impl Behaviour {
    /// What `samples`, of one or several own sockets and in the order in which they were asked, tell.
    pub fn classify(samples: &[Sample]) -> Self {
        Self {
            mapping: mapping(samples),
            ports: Ports::classify(samples),
            egress: u8::try_from(egress_addresses(samples)).unwrap_or(u8::MAX),
        }
    }

    /// Whether a peer meets another mapping than the servers did ("symmetric" in RFC 3489).
    pub fn is_dependent(&self) -> bool {
        matches!(self.mapping, Mapping::AddressDependent | Mapping::AddressAndPortDependent)
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.egress == 1 { "" } else { "es" };
        write!(f, "{} mapping, {}, {} egress address{plural}", self.mapping, self.ports, self.egress)
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(server: &str, mapped: &str) -> Sample {
        Sample { server: server.parse().expect("an address"), mapped: mapped.parse().expect("an address"), local: 0 }
    }

    #[test]
    fn one_mapping_towards_two_addresses_is_endpoint_independent() {
        let samples = [sample("192.0.2.1:3478", "198.51.100.1:1024"), sample("192.0.2.2:3478", "198.51.100.1:1024")];
        assert_eq!(mapping(&samples), Mapping::EndpointIndependent);
    }

    #[test]
    fn another_port_for_another_address_is_address_dependent() {
        let samples = [
            sample("192.0.2.1:3478", "198.51.100.1:1024"),
            sample("192.0.2.1:3479", "198.51.100.1:1024"),
            sample("192.0.2.2:3478", "198.51.100.1:1025"),
        ];
        assert_eq!(mapping(&samples), Mapping::AddressDependent);
    }

    #[test]
    fn another_port_for_another_port_is_address_and_port_dependent() {
        let samples = [sample("192.0.2.1:3478", "198.51.100.1:1024"), sample("192.0.2.1:3479", "198.51.100.1:1025")];
        assert_eq!(mapping(&samples), Mapping::AddressAndPortDependent);
    }

    #[test]
    fn one_answer_tells_nothing_about_the_mapping() {
        assert_eq!(mapping(&[]), Mapping::Unknown);
        assert_eq!(mapping(&[sample("192.0.2.1:3478", "198.51.100.1:1024")]), Mapping::Unknown);
    }

    #[test]
    fn egress_addresses_are_counted_once_each() {
        let samples = [
            sample("192.0.2.1:1", "198.51.100.1:1024"),
            sample("192.0.2.2:1", "198.51.100.2:1024"),
            sample("192.0.2.3:1", "198.51.100.1:1024"),
        ];
        assert_eq!(egress_addresses(&samples), 2);
    }

    #[test]
    fn sockets_are_not_compared_with_each_other() {
        let samples =
            [(5000, 1, 1024), (5000, 2, 1024), (5001, 1, 1025), (5001, 2, 1025)].map(|(local, server, mapped)| {
                let mapped = sample("192.0.2.1:1", &format!("198.51.100.1:{mapped}")).mapped;
                Sample { local, mapped, ..sample(&format!("192.0.2.{server}:3478"), "198.51.100.1:1") }
            });
        assert_eq!(mapping(&samples), Mapping::EndpointIndependent);
    }

    #[test]
    fn one_server_that_sees_a_mapping_move_tells_nothing_about_destinations() {
        let samples = [sample("192.0.2.1:3478", "198.51.100.1:1024"), sample("192.0.2.1:3478", "198.51.100.1:1025")];
        assert_eq!(mapping(&samples), Mapping::Unknown);
    }

    #[test]
    fn behaviour_reads_as_a_sentence() {
        let local = |sample: Sample| Sample { local: 1024, ..sample };
        let one = local(sample("192.0.2.1:3478", "198.51.100.1:1024"));
        let same = local(sample("192.0.2.2:3478", "198.51.100.1:1024"));
        let other = local(sample("192.0.2.2:3478", "198.51.100.2:1024"));
        let said = |samples: &[Sample]| Behaviour::classify(samples).to_string();
        assert_eq!(said(&[one, same]), "endpoint-independent mapping, ports preserved, 1 egress address");
        assert_eq!(said(&[one, other]), "address-dependent mapping, ports preserved, 2 egress addresses");
        assert_eq!(said(&[]), "unknown mapping, ports drawn in an unknown way, 0 egress addresses");
    }

    #[test]
    fn behaviour_of_an_older_or_a_newer_peer_is_readable() {
        let read = |json: &str| serde_json::from_str::<Behaviour>(json).expect("readable");
        assert_eq!(read("{}"), Behaviour::default());
        let newer = r#"{"mapping":"quantum","ports":{"kind":"dice","sides":6},"egress":2,"hairpin":true}"#;
        assert_eq!(read(newer), Behaviour { egress: 2, ..Behaviour::default() });
    }

    #[test]
    fn egress_addresses_saturate() {
        let many = (0..300).map(|at: u16| sample("192.0.2.1:1", &format!("198.51.{}.{}:1024", at / 256, at % 256)));
        assert_eq!(Behaviour::classify(&many.collect::<Vec<_>>()).egress, 255);
    }

    /// From few hosts, ports and sockets, so that they meet.
    fn any_samples() -> impl Strategy<Value = Vec<Sample>> {
        let mapped = prop_oneof![any::<u16>(), 0..40_u16, 65_500..=65_535_u16];
        let address = |host: u8, port: u16| SocketAddr::from(([192, 0, 2, host], port));
        let one = (0..3_u8, 0..3_u16, 0..3_u8, mapped, prop_oneof![0..3_u16, any::<u16>()]).prop_map(
            move |(server, port, egress, mapped, local)| Sample {
                server: address(server, port),
                mapped: address(egress, mapped),
                local,
            },
        );
        prop::collection::vec(one, 0..40)
    }

    proptest! {
        #[test]
        fn any_samples_are_classified(samples in any_samples()) {
            let behaviour = Behaviour::classify(&samples);
            let json = serde_json::to_string(&behaviour).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<Behaviour>(&json).expect("its own"), behaviour);
            prop_assert!(!behaviour.to_string().is_empty());
        }
    }
}
