//! What two peers tell each other over a relay, or any path that works, so that a direct one may be found: where each is now, and whether
//! it has opened towards the other. In place of a look at the rendezvous, which takes seconds.

use serde::{Deserialize, Serialize};

use super::candidate::{Candidate, MAX_CANDIDATES};
use super::nat::Behaviour;

/// "Here I am; call me maybe."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Which set of the sender's addresses this is, as in its announcements.
    pub epoch: u32,
    /// The epoch of the receiver's that the sender has opened towards. Its opening datagrams have left before this.
    pub opened: u32,
    /// The sender's NAT.
    pub nat: Behaviour,
    /// The sender's candidates.
    pub candidates: Vec<Candidate>,
}

impl Call {
    /// With nothing in it that cannot be used.
    pub fn checked(mut self) -> Self {
        self.candidates.retain(Candidate::is_usable);
        self.candidates.truncate(MAX_CANDIDATES);
        self
    }
}
