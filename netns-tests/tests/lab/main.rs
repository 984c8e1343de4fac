//! The lab shows what it promises: its NATs, its paths, and that nothing of it stays. Not here: `mesh` in the lab.

mod clash;
mod common;
mod lifetime;
mod nat;
mod path;
mod stun;
