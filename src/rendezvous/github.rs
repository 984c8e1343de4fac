//! A rendezvous in the artifacts of one workflow run: publish through the artifact service, list and fetch through it too, and
//! by REST while it does not answer. Which failure is worth another try is decided here; trying again is not.

mod listing;
mod verdict;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::{Client, Url};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{Entry, Error, MAX_LEN, Rendezvous, bounded, check};
use crate::github::artifacts::ArtifactService;
use crate::github::config::{Config, Unusable};
use crate::github::error::{Error as Failure, Kind};
use crate::github::rest::Rest;
use crate::github::{archive, blob, http};
use listing::{Fallback, Locator, Side};

/// The least that GitHub keeps an artifact; a run that forgets to remove its own leaves nothing for long.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The artifact service's share of a listing when REST stands behind it, so that both fit into one call.
const SERVICE_SHARE: Duration = Duration::from_secs(8);

/// The artifacts of one workflow run.
#[derive(Debug)]
pub struct Github {
    http: Client,
    service: Result<ArtifactService, Unusable>,
    rest: Option<Rest>,
    fallback: Mutex<Fallback>,
}

impl Github {
    /// For a member of the mesh: needs the artifact service, since nothing else takes a publication. REST is used for reading where
    /// there is a `GITHUB_TOKEN`. Needs a running tokio runtime; nothing is sent yet.
    pub fn member(config: Config) -> Result<Self, Error> {
        match &config.service {
            Ok(_) => Self::reader(config),
            Err(why) => Err(unusable(why)),
        }
    }

    /// For one that only lists and fetches: either side will do.
    pub fn reader(config: Config) -> Result<Self, Error> {
        if let (Err(why), Err(_)) = (&config.service, &config.rest) {
            return Err(unusable(why));
        }
        if let Err(why) = &config.rest {
            tracing::debug!(%why, "no fallback by REST");
        }
        let http = http::client().map_err(verdict::setting_up)?;
        let rest = config.rest.ok().map(|rest| Rest::new(http.clone(), rest)).transpose();
        let service = config.service.map(|service| ArtifactService::new(http.clone(), service));
        Ok(Self { http, service, rest: rest.map_err(verdict::setting_up)?, fallback: Mutex::default() })
    }

    async fn publish_once(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let service = self.service.as_ref().map_err(unusable)?;
        let expires_at = OffsetDateTime::now_utc() + LIFETIME;
        let url = service.create(name, expires_at).await.map_err(verdict::publishing)?;
        blob::upload(&self.http, &url, bytes).await.map_err(verdict::publishing)?;
        let id = service.finalize(name, bytes.len() as u64, &sha256(bytes)).await.map_err(verdict::publishing)?;
        tracing::debug!(name, id, len = bytes.len(), "published artifact");
        Ok(())
    }

    async fn list_once(&self) -> Result<Vec<Entry>, Error> {
        match (&self.service, &self.rest) {
            (Ok(service), None) => by_service(service).await.map_err(verdict::reading),
            (Ok(service), Some(rest)) => self.list_by_either(service, rest).await,
            (Err(_), Some(rest)) => by_rest(rest).await.map_err(verdict::reading),
            (Err(why), None) => Err(unusable(why)),
        }
    }

    async fn list_by_either(&self, service: &ArtifactService, rest: &Rest) -> Result<Vec<Entry>, Error> {
        if self.fallback().side(Instant::now()) == Side::Service {
            let listed = tokio::time::timeout(SERVICE_SHARE, by_service(service)).await;
            match listed.unwrap_or_else(|_| Err(Failure::passing("list artifacts: no answer in time"))) {
                Ok(entries) => {
                    self.fallback().worked();
                    return Ok(entries);
                }
                Err(failure) if !self.fallback().failed(&failure, Instant::now()) => {
                    return Err(verdict::reading(failure));
                }
                Err(_) => {}
            }
        }
        by_rest(rest).await.map_err(|failure| verdict::both(self.fallback().last(), failure))
    }

    fn fallback(&self) -> std::sync::MutexGuard<'_, Fallback> {
        self.fallback.lock().expect("no panic while it is held")
    }

    async fn fetch_once(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let locator = Locator::parse(&entry.locator)
            .ok_or_else(|| Error::refused(format!("fetch {}", entry.name), "its listing is not of this rendezvous"))?;
        let artifact = match self.download(&entry.name, &locator).await {
            // A signed URL lives for minutes, and its clock is not ours.
            Err(failure) if failure.kind == Kind::Forbidden => self.download(&entry.name, &locator).await,
            downloaded => downloaded,
        };
        let artifact = artifact.map_err(verdict::reading)?;
        if locator.digest().is_some_and(|digest| digest != format!("sha256:{}", sha256(&artifact))) {
            return Err(Error::again(format!("fetch {}: the bytes do not match their digest", entry.name)));
        }
        archive::unpack(artifact, MAX_LEN).map_err(|why| verdict::foreign(&entry.name, &why))
    }

    async fn download(&self, name: &str, locator: &Locator) -> Result<Vec<u8>, Failure> {
        let url = self.signed_url(name, locator).await?;
        blob::download(&self.http, &url, MAX_LEN).await
    }

    async fn signed_url(&self, name: &str, locator: &Locator) -> Result<Url, Failure> {
        let absent =
            || Failure::new(Kind::Unusable, format!("find artifact {name}: listed by a side that is not set up"));
        match locator {
            Locator::Service { owner, .. } => {
                self.service.as_ref().map_err(|_| absent())?.signed_url(owner, name).await
            }
            Locator::Rest { id, .. } => self.rest.as_ref().ok_or_else(absent)?.signed_url(*id).await,
        }
    }
}

#[async_trait]
impl Rendezvous for Github {
    async fn publish(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        check(name, bytes)?;
        bounded(&format!("publish artifact {name}"), self.publish_once(name, bytes)).await
    }

    async fn list(&self) -> Result<Vec<Entry>, Error> {
        bounded("list artifacts", self.list_once()).await
    }

    async fn fetch(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        if entry.len.is_some_and(|len| len > MAX_LEN as u64) {
            return Err(verdict::foreign(&entry.name, &archive::Error::TooLong(MAX_LEN)));
        }
        bounded(&format!("fetch artifact {}", entry.name), self.fetch_once(entry)).await
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        check(name, &[])?;
        let service = self.service.as_ref().map_err(unusable)?;
        let removed = async { service.delete(name).await.or_else(verdict::removing) };
        bounded(&format!("remove artifact {name}"), removed).await
    }

    fn describe(&self) -> String {
        "github artifacts".to_owned()
    }
}

async fn by_service(service: &ArtifactService) -> Result<Vec<Entry>, Failure> {
    Ok(listing::ours(service.list().await?.into_iter().map(listing::of_service)))
}

async fn by_rest(rest: &Rest) -> Result<Vec<Entry>, Failure> {
    Ok(listing::ours(rest.list().await?.into_iter().map(listing::of_rest)))
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn unusable(why: &Unusable) -> Error {
    Error::refused(why.what.clone(), why.hint.clone())
}
