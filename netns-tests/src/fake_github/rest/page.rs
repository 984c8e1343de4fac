//! Which artifacts a list shows: exact name, order, and pages with a `Link` header (RFC 8288).
//!
//! Not here: the artifacts themselves.

use serde::Deserialize;

use super::Artifact;

const DEFAULT_PER_PAGE: usize = 30;
const MAX_PER_PAGE: usize = 100;

/// The query of a list. Numbers that make no sense count as absent, as with GitHub.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    per_page: Option<String>,
    page: Option<String>,
    name: Option<String>,
    direction: Option<String>,
}

impl ListQuery {
    /// The artifacts of this name, newest first unless `direction=asc`.
    pub(super) fn select(&self, oldest_first: Vec<Artifact>) -> Vec<Artifact> {
        let wanted = |artifact: &Artifact| self.name.as_ref().is_none_or(|name| *name == artifact.name);
        let mut artifacts: Vec<Artifact> = oldest_first.into_iter().filter(wanted).collect();
        if self.direction.as_deref() != Some("asc") {
            artifacts.reverse();
        }
        artifacts
    }

    pub(super) fn page<'a>(&self, artifacts: &'a [Artifact]) -> &'a [Artifact] {
        let first = (self.number() - 1).saturating_mul(self.per_page()).min(artifacts.len());
        let last = first.saturating_add(self.per_page()).min(artifacts.len());
        &artifacts[first..last]
    }

    /// The `Link` header of this page below `url`; none when one page holds everything.
    pub(super) fn link(&self, url: &str, total: usize) -> Option<String> {
        let (number, last) = (self.number(), total.div_ceil(self.per_page()).max(1));
        let before = [("prev", number - 1), ("first", 1)].into_iter().filter(|_| number > 1);
        let after = [("next", number + 1), ("last", last)].into_iter().filter(|_| number < last);
        let links = before.chain(after).map(|(relation, page)| self.reference(url, relation, page));
        Some(links.collect::<Vec<String>>().join(", ")).filter(|header| !header.is_empty())
    }

    fn reference(&self, url: &str, relation: &str, page: usize) -> String {
        let encoded = |text: &String| super::super::signing::percent_encoded(text);
        let name = self.name.as_ref().map(|name| format!("&name={}", encoded(name))).unwrap_or_default();
        let direction = self.direction.as_ref().map(|way| format!("&direction={}", encoded(way))).unwrap_or_default();
        format!("<{url}?per_page={}&page={page}{name}{direction}>; rel=\"{relation}\"", self.per_page())
    }

    fn per_page(&self) -> usize {
        positive(self.per_page.as_deref()).map_or(DEFAULT_PER_PAGE, |asked| asked.min(MAX_PER_PAGE))
    }

    fn number(&self) -> usize {
        positive(self.page.as_deref()).unwrap_or(1)
    }
}

fn positive(text: Option<&str>) -> Option<usize> {
    let number: u32 = text?.parse().ok()?;
    usize::try_from(number).ok().filter(|number| *number > 0)
}
