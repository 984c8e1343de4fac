//! The pure wing: everything that decides.
//!
//! **Nothing in here reads a clock, opens a socket, touches a file or the environment, or draws from the operating system's
//! randomness.** Time and seeds come in as arguments; datagrams ([`transmit::Transmit`]) and notices ([`transmit::Event`]) go out
//! as values. One exception, written where it is made: boringtun reads the time inside [`tunnel`]. `tests/it/house.rs` keeps the rule.

pub mod announcement;
mod base64url;
pub mod batch;
pub mod call;
pub mod candidate;
pub mod checksum;
pub mod coalesce;
pub mod crossing;
pub mod digest;
pub mod filter;
pub mod filtering;
pub mod guess;
pub mod hops;
pub mod ipv4;
pub mod key;
pub mod keyring;
pub mod mss;
pub mod nat;
pub mod node;
pub mod output;
pub mod overlay;
pub mod packets;
pub mod path;
pub mod peer;
pub mod placement;
pub mod probe;
pub mod registration;
pub mod relay;
pub mod relay_client;
pub mod relay_server;
pub mod renewal;
pub mod reset;
pub mod role;
pub mod route;
pub mod schedule;
pub mod spray;
pub mod stun;
pub mod super_packet;
pub mod too_big;
pub mod transmit;
pub mod tunnel;
pub mod virtio;
