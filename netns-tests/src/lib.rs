//! The lab: runners behind real NATs in network namespaces ([`lab`]), a GitHub that runs here ([`fake_github`]), and runs of `mesh` over both
//! ([`stage`]). [`demo`] is one such run in front of an audience, [`scale`] one with a crowd of simulated aux, [`tunnel`] sets the
//! tunnel beside those of others, [`load`] wears a mesh down, [`caching`] sets the cache beside nginx and redis, and [`sharing`] measures what
//! it costs and brings that runners share theirs.

pub mod caching;
pub mod demo;
pub mod fake_github;
pub mod interrupt;
pub mod lab;
pub mod load;
mod plot;
pub mod scale;
pub mod sharing;
pub mod stage;
pub mod throughput;
pub mod tunnel;
