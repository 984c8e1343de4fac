//! Real `mesh` processes behind real NATs, meeting at a fake GitHub. Needs root: `cargo test -p netns-tests --test mesh`.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod action;
mod bad_input;
mod building;
mod bulk;
mod common;
mod doctor;
mod forming;
mod matrix;
mod networks;
mod opening;
mod privilege;
mod relaying;
mod releasing;
mod rendezvous_faults;
mod repairing;
mod secrets;
mod surviving;
mod transfer;
mod userspace;
