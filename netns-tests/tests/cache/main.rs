//! The cache of a real `mesh` process, as real clients use it and as a crash leaves it. On this machine's loopback: no namespace, no privilege.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod builds;
mod clients;
mod crash;
mod starved;
mod transfer;
