//! Peers that give wrong bytes, break off, or never answer.
