//! Which TTL opens our own NATs without reaching the peer's. Sending the packets that find out is not here but in `link::hops`.
//!
//! An opening packet must pass every NAT of ours, so that each makes its mapping, and must die before the peer's NAT: there it would
//! create a flow of its own, and Linux would then give the peer's packets another source port. No retry heals that pair.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::candidate::is_private;

/// The TTL where nothing is known: passes three NATs, the most that a runner is known to sit behind.
pub const DEFAULT_OPENING_TTL: u8 = 4;

/// The least TTL used: one hop to the NAT, and one to leave it.
const MIN_OPENING_TTL: u8 = 2;

/// How many hops are worth asking: beyond, the packet is out of every NAT of ours.
pub const MAX_HOPS: u8 = 8;

/// Chooses from the routers that answered "time exceeded" (RFC 792), by the TTL they answered to.
///
/// The first router with a public address lies outside our NATs, so a packet that dies there is enough. A private router
/// beyond the default means more NATs than usual.
pub fn opening_ttl(routers: &BTreeMap<u8, IpAddr>) -> u8 {
    let last_private = routers.iter().filter(|(_, ip)| is_private(**ip)).map(|(ttl, _)| *ttl).max().unwrap_or(0);
    let first_public = routers.iter().find(|(ttl, ip)| !is_private(**ip) && **ttl > last_private).map(|(ttl, _)| *ttl);
    let guess = DEFAULT_OPENING_TTL.max(last_private + 1);
    first_public.map_or(guess, |ttl| ttl.min(guess)).max(MIN_OPENING_TTL)
}

/// Whether more answers would change nothing: every router up to the first one with a public address has answered.
pub fn is_told(routers: &BTreeMap<u8, IpAddr>) -> bool {
    let public = (1..=MAX_HOPS).map_while(|ttl| routers.get(&ttl)).position(|ip| !is_private(*ip));
    public.is_some_and(|at| !routers.values().skip(at).any(|ip| is_private(*ip)))
}

/// What is wrong with any TTL: even the last router that was asked has a private address, so a packet may die in our own networks.
pub fn too_low(routers: &BTreeMap<u8, IpAddr>) -> Option<String> {
    let router = routers.get(&MAX_HOPS).filter(|ip| is_private(**ip))?;
    Some(format!(
        "M303 a TTL of {MAX_HOPS} ends at a private router ({router}): opening packets may not leave our networks"
    ))
}

/// The TTL of the `tries`-th try from a fresh socket, where no router answers: the default first, then further, for more NATs than usual;
/// then nearer, for a peer that is close.
pub fn ladder(tries: usize) -> u8 {
    match tries % 4 {
        1 => DEFAULT_OPENING_TTL + 2,
        2 => DEFAULT_OPENING_TTL + 4,
        3 => DEFAULT_OPENING_TTL - 1,
        _ => DEFAULT_OPENING_TTL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ttl(routers: &[(u8, &str)]) -> u8 {
        opening_ttl(&routers.iter().map(|(ttl, ip)| (*ttl, ip.parse().expect("an address"))).collect())
    }

    #[test]
    fn each_try_from_a_fresh_socket_has_another_ttl() {
        assert_eq!([0, 1, 2, 3, 4].map(ladder), [4, 6, 8, 3, 4]);
    }

    #[test]
    fn it_is_told_when_every_router_up_to_a_public_one_has_answered() {
        let told = |routers: &[(u8, &str)]| {
            is_told(&routers.iter().map(|(ttl, ip)| (*ttl, ip.parse().expect("an address"))).collect())
        };
        assert!(told(&[(1, "10.0.0.1"), (2, "198.51.100.1")]));
        assert!(!told(&[(1, "10.0.0.1"), (3, "198.51.100.1")]), "the second may still be private");
        assert!(!told(&[(1, "198.51.100.1"), (2, "10.0.0.1")]));
        assert!(!told(&[(1, "10.0.0.1")]));
        assert!(!told(&[]));
    }

    #[test]
    fn a_private_router_at_the_end_of_what_is_asked_is_told_of() {
        let told = |last: &str| {
            too_low(&[(1, "10.0.0.1"), (MAX_HOPS, last)].map(|(ttl, ip)| (ttl, ip.parse().expect("an address"))).into())
        };
        assert!(
            told("10.0.0.8")
                .is_some_and(|what| what.starts_with("M303 a TTL of 8 ends at a private router (10.0.0.8)"))
        );
        assert_eq!(told("198.51.100.1"), None);
    }

    #[test]
    fn nothing_known_means_the_default() {
        assert_eq!(ttl(&[]), DEFAULT_OPENING_TTL);
    }

    #[test]
    fn one_nat_is_left_at_the_first_public_router() {
        assert_eq!(ttl(&[(1, "192.168.1.1"), (2, "198.51.100.1"), (3, "198.51.100.2")]), 2);
    }

    #[test]
    fn a_carrier_nat_needs_one_hop_more() {
        assert_eq!(ttl(&[(1, "192.168.1.1"), (2, "100.64.0.1"), (3, "198.51.100.2")]), 3);
    }

    #[test]
    fn a_first_answer_from_far_away_does_not_raise_the_default() {
        assert_eq!(ttl(&[(7, "198.51.100.1")]), DEFAULT_OPENING_TTL);
    }

    #[test]
    fn many_private_routers_raise_it() {
        assert_eq!(ttl(&[(1, "10.0.0.1"), (5, "10.0.1.1")]), 6);
    }

    #[test]
    fn a_public_host_still_leaves_its_first_router() {
        assert_eq!(ttl(&[(1, "198.51.100.1")]), 2);
    }
}
