//! The messages of the artifact service as JSON: proto3-JSON with the original field names when sent, either spelling when read,
//! 64-bit integers as texts (read as numbers too), unknown fields ignored. No requests are made here.

use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::github::token::BackendIds;

/// Artifacts that are one raw file exist since this version of the protocol; older ones are zips.
const RAW_VERSION: i32 = 7;

#[derive(Debug, Serialize)]
pub(super) struct Of<'a> {
    workflow_run_backend_id: &'a str,
    workflow_job_run_backend_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(super) struct Create<'a> {
    #[serde(flatten)]
    of: Of<'a>,
    expires_at: String,
    version: i32,
    mime_type: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Finalize<'a> {
    #[serde(flatten)]
    of: Of<'a>,
    size: String,
    hash: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Created {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) ok: bool,
    #[serde(default, alias = "signedUploadUrl", deserialize_with = "or_default")]
    pub(super) signed_upload_url: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Finalized {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) ok: bool,
    #[serde(default, alias = "artifactId", deserialize_with = "int64")]
    pub(super) artifact_id: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct List {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) artifacts: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Signed {
    #[serde(default, alias = "signedUrl", deserialize_with = "or_default")]
    pub(super) signed_url: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Deleted {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) ok: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    pub(super) msg: String,
}

/// One finalized artifact, as listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Artifact {
    /// Backend id of the run of the job that made it.
    #[serde(alias = "workflowRunBackendId")]
    pub workflow_run_backend_id: String,
    /// Backend id of the job that made it.
    #[serde(alias = "workflowJobRunBackendId")]
    pub workflow_job_run_backend_id: String,
    /// Its id, the same number as in the public API; grows with the time of creation.
    #[serde(alias = "databaseId", deserialize_with = "int64")]
    pub database_id: u64,
    /// Unique in the run, but for the seldom case of a finalize that was answered with a failure and worked.
    pub name: String,
    /// Bytes as uploaded.
    #[serde(default, deserialize_with = "int64")]
    pub size: u64,
    /// `sha256:` and hex, over the bytes as uploaded.
    #[serde(default)]
    pub digest: Option<String>,
}

impl<'a> Of<'a> {
    pub(super) fn run(ids: &'a BackendIds) -> Self {
        Self { workflow_run_backend_id: &ids.run, workflow_job_run_backend_id: &ids.job, name: None }
    }

    pub(super) fn artifact(ids: &'a BackendIds, name: &'a str) -> Self {
        Self { name: Some(name), ..Self::run(ids) }
    }
}

impl<'a> Create<'a> {
    pub(super) fn new(ids: &'a BackendIds, name: &'a str, expires_at: OffsetDateTime) -> Self {
        let expires_at =
            expires_at.format(&Rfc3339).expect("RFC 3339 holds the years 0 to 9999 and offsets in minutes");
        Self { of: Of::artifact(ids, name), expires_at, version: RAW_VERSION, mime_type: "application/octet-stream" }
    }
}

impl<'a> Finalize<'a> {
    pub(super) fn new(ids: &'a BackendIds, name: &'a str, size: u64, sha256: &str) -> Self {
        Self { of: Of::artifact(ids, name), size: size.to_string(), hash: format!("sha256:{sha256}") }
    }
}

/// A field that is `null` has its default, as proto3-JSON says.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Int64 {
        Number(u64),
        Text(String),
    }
    match Option::deserialize(deserializer)? {
        None => Ok(0),
        Some(Int64::Number(number)) => Ok(number),
        Some(Int64::Text(text)) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_shape_that_the_official_client_sends() {
        let ids = BackendIds { run: "run-a".into(), job: "job-b".into() };
        let then = OffsetDateTime::from_unix_timestamp(1_795_310_033).expect("2026");
        assert_eq!(
            json(&Create::new(&ids, "mesh-x", then)),
            r#"{"workflow_run_backend_id":"run-a","workflow_job_run_backend_id":"job-b","name":"mesh-x","expires_at":"2026-11-22T01:13:53Z","version":7,"mime_type":"application/octet-stream"}"#
        );
        assert_eq!(
            json(&Finalize::new(&ids, "mesh-x", 138, "18be")),
            r#"{"workflow_run_backend_id":"run-a","workflow_job_run_backend_id":"job-b","name":"mesh-x","size":"138","hash":"sha256:18be"}"#
        );
        assert_eq!(
            json(&Of::run(&ids)),
            r#"{"workflow_run_backend_id":"run-a","workflow_job_run_backend_id":"job-b"}"#
        );
    }

    #[test]
    fn answers_are_read_in_either_spelling_with_numbers_as_texts_or_not() {
        let created: Created = parse(r#"{"ok":true,"signed_upload_url":"https://h/p?sig=x","new":1}"#);
        assert!(created.ok && created.signed_upload_url.ends_with("sig=x"));
        let finalized: Finalized = parse(r#"{"ok":true,"artifactId":"101"}"#);
        assert_eq!(finalized.artifact_id, 101);
        let finalized: Finalized = parse(r#"{"ok":true,"artifact_id":101}"#);
        assert_eq!(finalized.artifact_id, 101);
        let snake: Artifact = parse(
            r#"{"workflow_run_backend_id":"r","workflow_job_run_backend_id":"j","database_id":"7","name":"n","size":"12","created_at":"x","digest":"sha256:00"}"#,
        );
        let camel: Artifact = parse(
            r#"{"workflowRunBackendId":"r","workflowJobRunBackendId":"j","databaseId":7,"name":"n","size":12,"digest":"sha256:00"}"#,
        );
        assert_eq!(snake, camel);
    }

    #[test]
    fn absent_and_null_fields_have_their_defaults() {
        assert!(!parse::<Created>("{}").ok);
        assert!(parse::<List>(r#"{"artifacts":null}"#).artifacts.is_empty());
        let bare: Artifact =
            parse(r#"{"workflow_run_backend_id":"r","workflow_job_run_backend_id":"j","database_id":"7","name":"n"}"#);
        assert_eq!((bare.size, bare.digest), (0, None));
    }

    #[test]
    fn an_artifact_without_an_id_or_with_an_odd_one_is_not_read() {
        for json in [
            r#"{"workflow_run_backend_id":"r","workflow_job_run_backend_id":"j","name":"n"}"#,
            r#"{"workflow_run_backend_id":"r","workflow_job_run_backend_id":"j","database_id":"-7","name":"n"}"#,
            r#"{"workflow_run_backend_id":"r","workflow_job_run_backend_id":"j","database_id":1.5,"name":"n"}"#,
            r#"[]"#,
        ] {
            assert!(serde_json::from_str::<Artifact>(json).is_err(), "{json}");
        }
    }

    fn json(message: &impl Serialize) -> String {
        serde_json::to_string(message).expect("plain data")
    }

    fn parse<T: serde::de::DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).expect("a valid answer")
    }
}
