//! `mesh` turns the CI runners of one workflow run into one build machine.
//!
//! - [`proto`]: the pure wing: everything that decides, without a clock, a socket or a file
//! - [`link`]: the driver: UDP socket, TUN device or a stack of its own, and clock around `proto`
//! - [`rendezvous`]: where peers find each other
//! - [`github`]: what speaks to GitHub
//! - [`cache`]: blobs and records that the runners share
//! - [`offload`]: the distributed build
//! - [`cli`]: the verbs, and the wiring of everything above
//! - [`config`], [`control`], [`report`], [`privilege`], [`exit`], [`log`]: what the verbs share

pub mod cache;
pub mod cli;
pub mod config;
pub mod control;
pub mod exit;
pub mod github;
pub mod link;
pub mod log;
pub mod offload;
pub mod privilege;
pub mod proto;
pub mod rendezvous;
pub mod report;
