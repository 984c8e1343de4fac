//! The artifacts of each run: names are reserved, then finalized or burnt, and unique in their run.
//!
//! Not here: their bytes ([`super::blobs`]) and who may ask ([`super::twirp`], [`super::rest`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

/// An artifact; before it is finalized its id is 0 and its size and digest are empty.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The same in the artifact service (`database_id`) and in REST.
    pub id: u64,
    /// The run it belongs to.
    pub run: String,
    /// The job that created it.
    pub job: String,
    /// Unique in its run.
    pub name: String,
    /// Bytes as uploaded.
    pub size: u64,
    /// `sha256:<hex>` of the bytes as uploaded.
    pub digest: String,
    /// The media type of a download.
    pub mime_type: String,
    /// 7 for any single file with a media type; older versions are zips.
    pub version: i32,
    /// When its name was reserved.
    pub created_at: OffsetDateTime,
    /// When GitHub would remove it.
    pub expires_at: OffsetDateTime,
    pub(super) blob: String,
}

impl Artifact {
    pub(super) fn has_expired(&self) -> bool {
        self.expires_at <= OffsetDateTime::now_utc()
    }
}

#[derive(Debug)]
enum State {
    Reserved,
    Burnt,
    Finalized(Instant),
}

#[derive(Debug)]
struct Slot {
    artifact: Artifact,
    state: State,
}

/// Why an operation on a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    AlreadyExists,
    NotFound,
}

#[derive(Debug, Default)]
pub(super) struct Artifacts {
    runs: BTreeMap<String, BTreeMap<String, Slot>>,
    last_id: u64,
}

impl Artifacts {
    pub(super) fn learn(&mut self, run: &str) {
        self.runs.entry(run.to_owned()).or_default();
    }

    pub(super) fn knows(&self, run: &str) -> bool {
        self.runs.contains_key(run)
    }

    /// Takes the name of `artifact` in its run, whatever becomes of it.
    pub(super) fn reserve(&mut self, artifact: Artifact) -> Result<(), Refusal> {
        let names = self.runs.entry(artifact.run.clone()).or_default();
        if names.contains_key(&artifact.name) {
            return Err(Refusal::AlreadyExists);
        }
        names.insert(artifact.name.clone(), Slot { artifact, state: State::Reserved });
        Ok(())
    }

    /// The artifact that `job` reserved and has not finalized.
    pub(super) fn reserved(&self, run: &str, job: &str, name: &str) -> Result<Artifact, Refusal> {
        let slot = self.runs.get(run).and_then(|names| names.get(name)).ok_or(Refusal::NotFound)?;
        match slot.state {
            _ if slot.artifact.job != job => Err(Refusal::NotFound),
            State::Reserved => Ok(slot.artifact.clone()),
            State::Burnt => Err(Refusal::NotFound),
            State::Finalized(_) => Err(Refusal::AlreadyExists),
        }
    }

    /// Leaves a reserved name taken for ever and never visible.
    pub(super) fn burn(&mut self, run: &str, job: &str, name: &str) -> Result<(), Refusal> {
        self.reserved(run, job, name)?;
        self.slot(run, name)?.state = State::Burnt;
        Ok(())
    }

    /// Makes a reserved artifact visible; ids grow, so of two the newer has the higher one.
    pub(super) fn finalize(&mut self, reserved: &Artifact, size: u64, digest: String) -> Result<u64, Refusal> {
        self.reserved(&reserved.run, &reserved.job, &reserved.name)?;
        self.last_id += 1;
        let id = self.last_id;
        let slot = self.slot(&reserved.run, &reserved.name)?;
        slot.artifact = Artifact { id, size, digest, ..slot.artifact.clone() };
        slot.state = State::Finalized(Instant::now());
        Ok(id)
    }

    /// The finalized artifacts of a run, oldest first.
    pub(super) fn list(&self, run: &str) -> Vec<Artifact> {
        self.list_older_than(run, Duration::ZERO)
    }

    /// The artifacts of a run that were finalized at least `age` ago, oldest first.
    pub(super) fn list_older_than(&self, run: &str, age: Duration) -> Vec<Artifact> {
        let names = self.runs.get(run).into_iter().flat_map(BTreeMap::values);
        let old = names.filter(|slot| matches!(slot.state, State::Finalized(at) if at.elapsed() >= age));
        let mut artifacts: Vec<Artifact> = old.map(|slot| slot.artifact.clone()).collect();
        artifacts.sort_by_key(|artifact| artifact.id);
        artifacts
    }

    /// The finalized artifact with this id, in whatever run.
    pub(super) fn with_id(&self, id: u64) -> Option<Artifact> {
        self.runs.keys().flat_map(|run| self.list(run)).find(|artifact| artifact.id == id)
    }

    /// The finalized artifact that `job` created under `name`.
    pub(super) fn finalized(&self, run: &str, job: &str, name: &str) -> Result<Artifact, Refusal> {
        let found = self.list(run).into_iter().find(|artifact| artifact.job == job && artifact.name == name);
        found.ok_or(Refusal::NotFound)
    }

    /// Removes a finalized artifact and frees its name.
    pub(super) fn delete(&mut self, artifact: &Artifact) {
        if let Some(names) = self.runs.get_mut(&artifact.run) {
            names.remove(&artifact.name);
        }
    }

    fn slot(&mut self, run: &str, name: &str) -> Result<&mut Slot, Refusal> {
        self.runs.get_mut(run).and_then(|names| names.get_mut(name)).ok_or(Refusal::NotFound)
    }
}
