//! What NAT is this? Compares what several STUN servers saw of one socket (RFC 4787 section 4.1, RFC 5780 section 4.3).

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

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

/// What one server saw of our socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The server that answered.
    pub server: SocketAddr,
    /// Our address as it saw it.
    pub mapped: SocketAddr,
}

/// Classifies by comparing every pair of samples. Servers on one address tell ports apart; servers on two tell addresses apart.
pub fn mapping(samples: &[Sample]) -> Mapping {
    let pairs = || samples.iter().enumerate().flat_map(|(i, a)| samples[i + 1..].iter().map(move |b| (a, b)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(server: &str, mapped: &str) -> Sample {
        Sample { server: server.parse().expect("an address"), mapped: mapped.parse().expect("an address") }
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
}
