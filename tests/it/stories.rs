//! What stories on the simulated internet are told with: a star of hosts, any weather, packets both ways, and who noticed what.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh::proto::role::Role;
use proptest::prelude::*;

use crate::packet::segment;
use crate::sim::nat::Kind;
use crate::sim::{HostId, Internet, Weather};

/// A primary behind the first of `kinds`, and an aux behind each of the others.
pub fn star(net: &mut Internet, kinds: &[Kind]) -> Vec<HostId> {
    let role = |number: usize| Role::from_number(number as u16).expect("a small number");
    kinds.iter().enumerate().map(|(number, kind)| net.host(role(number), *kind)).collect()
}

/// Any weather in which a build is still possible.
pub fn weathers() -> impl Strategy<Value = Weather> {
    let ms = |range: std::ops::Range<u64>| Strategy::prop_map(range, Duration::from_millis);
    (ms(1..200), ms(0..150), 0.0..0.15, 0.0..0.2, ms(1000..3000), ms(0..4000), 1..3usize).prop_map(
        |(latency, jitter, loss, duplication, rendezvous, rendezvous_jitter, readings)| Weather {
            latency,
            jitter,
            loss,
            duplication,
            rendezvous,
            rendezvous_jitter,
            readings,
        },
    )
}

/// The overlay address of the role with this number.
pub fn address(number: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number as u8 + 1)
}

/// A packet from the role with one number to that with another.
pub fn between(from: u16, to: u16, seq: u32) -> Vec<u8> {
    segment(address(from), address(to), seq)
}

/// A packet each way between two hosts, which comes within a second.
pub fn deliver_both_ways(net: &mut Internet, one: HostId, other: HostId) {
    let (a, b) = (net.hosts[one].role.number(), net.hosts[other].role.number());
    let (out, back) = (between(a, b, 71), between(b, a, 72));
    net.send_inner(one, &out);
    net.send_inner(other, &back);
    net.run_for(Duration::from_secs(1));
    assert!(net.hosts[other].inner.contains(&out), "{}", story(net));
    assert!(net.hosts[one].inner.contains(&back), "{}", story(net));
}

/// What every host noticed, for a failure's message.
pub fn story(net: &Internet) -> String {
    let line = |id: HostId| {
        let host = &net.hosts[id];
        let notices = host.events.iter().map(|(_, event)| format!("{event:?}").chars().take(90).collect());
        let routes: Vec<_> = host.node.peers(net.now).iter().map(|view| (view.role, view.state, view.route)).collect();
        format!(
            "{}: {}\n   {routes:?}\n   {:?}",
            host.role,
            notices.collect::<Vec<String>>().join("; "),
            host.node.dropped()
        )
    };
    (0..net.hosts.len()).map(line).collect::<Vec<_>>().join("\n")
}
