//! What `fake-github` answers on every route, under every fault, and what other people's clients make of it.

mod artifact_service;
mod azurite;
mod blobs;
mod control;
mod faults;
mod gh;
mod official;
mod rest;
mod support;
