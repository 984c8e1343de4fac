//! Our rendezvous and its parts against a GitHub that runs here, with GitHub's own artifact client on the other side, and our blob client
//! against Microsoft's own Azurite. Not here:
//! whether that GitHub is true to the real one, which the official clients judge (test binary `fake_github`).

mod azurite;
mod faults;
mod odd_answers;
mod official;
mod parts;
mod publication;
mod rest;
mod support;
