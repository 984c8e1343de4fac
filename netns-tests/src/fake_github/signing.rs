//! Signed URLs: who holds one may do one thing to one blob for a while, and nobody can guess one.
//!
//! Azure derives `sig` from a secret key; here it is random and remembered, which no client can tell apart.
//!
//! Not here: what is done with the right ([`super::blob`]).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::artifacts::Artifact;

/// The first segment of every blob's path: Azure's container.
pub(super) const CONTAINER: &str = "actions-results";

/// What one signature permits.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) blob: String,
    pub(super) write: bool,
    /// `Content-Type` and `Content-Disposition` of the answer, as Azure's `rsct` and `rscd` set them.
    pub(super) headers: Option<(String, String)>,
}

impl Grant {
    pub(super) fn write(blob: &str) -> Self {
        Self { blob: blob.to_owned(), write: true, headers: None }
    }

    pub(super) fn read(artifact: &Artifact) -> Self {
        let headers = Some((artifact.mime_type.clone(), disposition(artifact)));
        Self { blob: artifact.blob.clone(), write: false, headers }
    }
}

#[derive(Debug, Default)]
pub(super) struct Grants(HashMap<String, (Grant, Instant)>);

impl Grants {
    /// A URL below `base` that carries the grant for `lifetime`.
    pub(super) fn sign(&mut self, base: &str, grant: Grant, lifetime: Duration) -> String {
        let now = Instant::now();
        self.0.retain(|_, (_, expiry)| *expiry > now);
        let signature = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let url = url(base, &grant, &signature, lifetime);
        self.0.insert(signature, (grant, now + lifetime));
        url
    }

    /// What `signature` permits to the blob at `path`, while it lasts.
    pub(super) fn find(&self, signature: &str, path: &str) -> Option<Grant> {
        let (grant, expiry) = self.0.get(signature)?;
        (*expiry > Instant::now() && grant.blob == path).then(|| grant.clone())
    }
}

fn url(base: &str, grant: &Grant, signature: &str, lifetime: Duration) -> String {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let stamp = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default().replace(':', "%3A");
    let (start, end) = (stamp(now), stamp(now + lifetime));
    let permissions = if grant.write { "cw" } else { "r" };
    format!(
        "{base}/{CONTAINER}/{}?se={end}&sig={signature}&sp={permissions}&spr=https%2Chttp&sr=b&st={start}&sv=2021-12-02",
        grant.blob
    )
}

/// A zip is saved as `<name>.zip`, any other file under the artifact's own name.
fn disposition(artifact: &Artifact) -> String {
    let is_bare_zip = artifact.mime_type == "application/zip" && !artifact.name.ends_with(".zip");
    let file = if is_bare_zip { format!("{}.zip", artifact.name) } else { artifact.name.clone() };
    let plain: String = file.chars().map(|c| if c.is_ascii_graphic() && c != '"' { c } else { '_' }).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", percent_encoded(&file))
}

pub(super) fn percent_encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
