//! The messages of the artifact service as proto3 JSON: requests are read leniently, answers written one way.
//!
//! Not here: what the messages mean.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Artifact;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Create {
    pub(super) workflow_run_backend_id: String,
    pub(super) workflow_job_run_backend_id: String,
    pub(super) name: String,
    pub(super) expires_at: Option<String>,
    pub(super) version: i32,
    pub(super) mime_type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Finalize {
    pub(super) workflow_run_backend_id: String,
    pub(super) workflow_job_run_backend_id: String,
    pub(super) name: String,
    #[serde(deserialize_with = "int64")]
    pub(super) size: i64,
    /// `sha256:<hex>`.
    pub(super) hash: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct List {
    pub(super) workflow_run_backend_id: String,
    pub(super) name_filter: Option<String>,
    #[serde(deserialize_with = "optional_int64")]
    pub(super) id_filter: Option<i64>,
}

impl List {
    pub(super) fn wants(&self, artifact: &Artifact) -> bool {
        let named = self.name_filter.as_ref().is_none_or(|name| *name == artifact.name);
        named && self.id_filter.is_none_or(|id| u64::try_from(id) == Ok(artifact.id))
    }
}

/// A request that names one artifact: GetSignedArtifactURL and DeleteArtifact.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) workflow_run_backend_id: String,
    pub(super) workflow_job_run_backend_id: String,
    pub(super) name: String,
}

/// proto3 JSON has two spellings of each field, and null for a field that is not set: one spelling, and no nulls.
pub(super) fn normalised(fields: Map<String, Value>) -> Value {
    let set = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(set.map(|(name, value)| (snake_case(&name), value)).collect())
}

fn snake_case(name: &str) -> String {
    let spelled = |c: char| if c.is_ascii_uppercase() { format!("_{}", c.to_ascii_lowercase()) } else { c.to_string() };
    name.chars().map(spelled).collect()
}

pub(super) fn listed(artifact: &Artifact) -> Value {
    json!({
        "workflow_run_backend_id": artifact.run,
        "workflow_job_run_backend_id": artifact.job,
        "database_id": artifact.id.to_string(),
        "name": artifact.name,
        "size": artifact.size.to_string(),
        "created_at": timestamp(artifact.created_at),
        "digest": artifact.digest,
    })
}

pub(super) fn digest(content: &[u8]) -> String {
    let hex = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{hex}")
}

/// RFC 3339 with three digits: proto3 JSON has 0, 3, 6 or 9 of them, and the official client takes no other count.
fn timestamp(at: OffsetDateTime) -> String {
    let seconds = at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), at.millisecond())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Int64 {
    Number(i64),
    Text(String),
}

fn int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Int64::deserialize(deserializer)? {
        Int64::Number(number) => Ok(number),
        Int64::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

fn optional_int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    int64(deserializer).map(Some)
}
