//! The bodies of the fuzz targets: what is done with some bytes, and what must hold. libFuzzer is not here but in `fuzz_targets/`, and
//! `tests/it/corpus.rs` runs the same bodies on everything that is committed below `corpus/`, with a stable compiler.
//!
//! Each body has seeds: real messages in the form that it reads, made by the code as it is now.

pub mod announcement;
pub mod batch;
pub mod front;
mod inner;
mod input;
pub mod node;
pub mod offload;
pub mod packet;
pub mod probe;
pub mod relay;
mod seal;
mod stage;
pub mod store;
pub mod stun;
pub mod token;
pub mod wireguard;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As `cargo fuzz run` and the folders of the corpus call it.
    pub name: &'static str,
    /// What is done with some bytes; panics where something does not hold.
    pub run: fn(&[u8]),
    /// Where to begin.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const ALL: [Target; 12] = [
    Target { name: "stun", run: stun::run, seeds: stun::seeds },
    Target { name: "announcement", run: announcement::run, seeds: announcement::seeds },
    Target { name: "probe", run: probe::run, seeds: probe::seeds },
    Target { name: "relay", run: relay::run, seeds: relay::seeds },
    Target { name: "wireguard", run: wireguard::run, seeds: wireguard::seeds },
    Target { name: "packet", run: packet::run, seeds: packet::seeds },
    Target { name: "offload", run: offload::run, seeds: offload::seeds },
    Target { name: "batch", run: batch::run, seeds: batch::seeds },
    Target { name: "node", run: node::run, seeds: node::seeds },
    Target { name: "front", run: front::run, seeds: front::seeds },
    Target { name: "token", run: token::run, seeds: token::seeds },
    Target { name: "store", run: store::run, seeds: store::seeds },
];
