//! The null binding: a packet that reaches a NAT before its inside host has opened kills the pair, and low TTL first does not.
//! If these fail, the lab can no longer show that `mesh` opens in the right order. Not here: `mesh` doing so.

use netns_tests::lab::{Access, Nat};

use crate::common::{FULL_TTL, mapped_socket, receive, send};
use crate::pair::Pair;

/// Those that map independently of the endpoint: all others meet nobody but open ones.
const KINDS: [Nat; 5] = [Nat::Masq, Nat::Azure, Nat::EimEif, Nat::EimAdf, Nat::EimApdf];

#[test]
fn full_ttl_first_kills_azure_to_masq() {
    full_ttl_first_kills(Nat::Azure, Nat::Masq);
}

#[test]
fn full_ttl_first_kills_masq_to_azure() {
    full_ttl_first_kills(Nat::Masq, Nat::Azure);
}

#[test]
fn full_ttl_first_kills_azure_to_azure() {
    full_ttl_first_kills(Nat::Azure, Nat::Azure);
}

#[test]
fn full_ttl_first_kills_masq_to_masq() {
    full_ttl_first_kills(Nat::Masq, Nat::Masq);
}

#[test]
fn full_ttl_first_does_no_harm_to_a_nat_with_a_table_of_its_own() {
    let harmless = [Nat::EimEif, Nat::EimAdf, Nat::EimApdf].map(Access::behind);
    for pair in Pair::all("harmless", &[Nat::Masq, Nat::Azure].map(Access::behind), &harmless) {
        send(&pair.a, pair.b_addr, "too early", FULL_TTL);
        pair.wait_until_arrived();

        pair.is_connected();
    }
}

#[test]
fn low_ttl_first_connects_every_pair() {
    for pair in Pair::all("low-ttl", &KINDS.map(Access::behind), &KINDS.map(Access::behind)) {
        pair.open_a();
        pair.open_b();

        pair.is_connected();
    }
}

#[test]
fn the_very_first_full_ttl_packet_arrives_at_a_peer_that_has_opened() {
    for pair in Pair::all("ordered", &KINDS.map(Access::behind), &KINDS.map(Access::behind)) {
        pair.open_b();
        send(&pair.a, pair.b_addr, "first", FULL_TTL);

        assert_eq!(receive(&pair.b), ("first".to_owned(), pair.a_addr), "{}", pair.kinds());
    }
}

#[test]
fn a_fresh_port_and_low_ttl_first_heal_a_clashed_pair() {
    let mut pair = Pair::new("heal", Nat::Azure, Nat::Masq);
    pair.clash();
    pair.is_dead();

    (pair.b, pair.b_addr) = mapped_socket(&pair.lab, &pair.runner_b, 50_002);
    pair.open_a();
    pair.open_b();

    pair.is_connected();
}

fn full_ttl_first_kills(nat_a: Nat, nat_b: Nat) {
    let pair = Pair::new("clash", nat_a, nat_b);

    pair.clash();

    pair.is_dead();
}
