//! The cache of a real `mesh` process, as real clients use it and as a crash leaves it: on this machine's loopback, and, in `shared`, behind NATs, which needs root.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod builds;
mod clients;
mod crash;
mod making;
mod shared;
mod starved;
mod transfer;
