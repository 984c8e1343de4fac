//! The control: one packet in the order in which the seed project opened (full TTL before the other side has opened) kills the very pair
//! that comes up without it. If this ever fails, the lab no longer has the clash (`tests/lab/clash.rs`), and `forming` proves nothing.

use netns_tests::lab::{Link, Nat, Runner, mapped_addr, wait_until};
use netns_tests::stage::Stage;

use crate::common::SOON;

const HOME_PORT: u16 = 40_001;
const AWAY_PORT: u16 = 40_002;

#[test]
fn without_a_packet_out_of_order_the_pair_comes_up() {
    let (stage, home, away) = pair("in-order");
    let (code, said) = run(&stage, &home, &away);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_full_ttl_packet_before_the_primary_has_opened_kills_the_pair() {
    let (stage, home, away) = pair("out-of-order");
    let [stun, _] = stage.lab.stun_servers().unwrap();
    let socket = away.udp_socket(AWAY_PORT).unwrap();
    mapped_addr(&socket, stun).unwrap();
    socket.send_to(b"too early", (home.public_addr(), HOME_PORT)).unwrap();
    let arrived = || home.nat_flows().unwrap().contains(&format!("sport={AWAY_PORT} dport={HOME_PORT}")).then_some(());
    wait_until(SOON, "the early packet at the primary's NAT", arrived).unwrap();
    drop(socket);

    let (code, said) = run(&stage, &home, &away);

    assert_eq!(code, 84, "{said}");
    assert!(said.contains("M301"), "{said}");
}

/// Two runners whose NATs keep ports, so that both addresses are known beforehand.
fn pair(name: &str) -> (Stage, Runner, Runner) {
    let stage = Stage::new(name).unwrap();
    let home = stage.lab.runner("primary", Nat::Masq, Link::default()).unwrap();
    let away = stage.lab.runner("aux0", Nat::Masq, Link::default()).unwrap();
    (stage, home, away)
}

/// A run of both: the primary's exit code and what it said.
fn run(stage: &Stage, home: &Runner, away: &Runner) -> (i32, String) {
    let listen = HOME_PORT.to_string();
    let insist =
        ["primary", "--aux", "1", "--min-aux", "1", "--join-timeout", "8s", "--offload", "none", "--listen", &listen];
    let mut primary = stage.mesh(home, &[&insist[..], &["--", "true"]].concat()).unwrap();
    let _aux = stage.mesh(away, &["aux", "--index", "0", "--listen", &AWAY_PORT.to_string()]).unwrap();
    let code = primary.wait(SOON).unwrap();
    (code, primary.output())
}
