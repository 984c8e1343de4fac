//! What speaks to GitHub: the artifact service, its blobs, and REST. What a rendezvous makes of them is not here but in
//! `rendezvous::github`.
//!
//! - [`archive`]: a downloaded artifact is raw or a zip of one file
//! - [`artifacts`]: the artifact service of the running workflow (Twirp)
//! - [`blob`]: bytes behind a signed URL
//! - [`config`]: what the runner's variables say
//! - [`error`]: what a call can answer, as a kind
//! - [`http`]: the one HTTP client, and how its answers are read
//! - [`rest`]: artifacts by the public API, for reading when the service does not answer
//! - [`token`]: secrets that never print, and what a runtime token tells

pub mod archive;
pub mod artifacts;
pub mod blob;
pub mod config;
pub mod error;
pub mod http;
pub mod rest;
pub mod token;
