//! The lab shows what it promises: its NATs, its paths, and that nothing of it stays. Not here: `mesh` in the lab.

mod cable;
mod carrier;
mod clash;
mod common;
mod egress;
mod filtering;
mod hairpin;
mod ipv6;
mod lifetime;
mod mapping;
mod matrix;
mod mtu;
mod nat;
mod pair;
mod path;
mod punch;
mod rebinding;
mod site;
mod stun;
mod tunnel;
