//! The integration tests that need no kernel's network: a simulated internet in virtual time, and the house rules.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod cases;
mod corpus;
mod fates;
mod hostile;
mod house;
mod matrix;
mod packet;
mod punch;
mod relays;
mod scale;
mod sim;
mod stories;
