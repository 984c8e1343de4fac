//! `/metrics`: what the cache did and holds, as Prometheus reads it (its documentation, "Exposition formats", text format 0.0.4).

use std::fmt::Write as _;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};

use super::{Answer, not_allowed, say};
use crate::cache::store::Usage;
use crate::cache::{Cache, Stats, peers};

/// Where it is.
pub(super) const PATH: &str = "/metrics";

/// Of the format.
const TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// One number: its name, whether it is a counter or a gauge, and what it is of.
type Metric = (&'static str, &'static str, &'static str, u64);

/// Of all namespaces together, for the bearer of any token.
pub(super) fn answer(method: &Method, cache: &Cache) -> Answer {
    if ![Method::GET, Method::HEAD].contains(method) {
        return not_allowed("GET, HEAD");
    }
    let mut answer = say(StatusCode::OK, page(&metrics(cache.stats(), cache.usage(), cache.sharing())));
    answer.headers_mut().insert(CONTENT_TYPE, TYPE);
    answer
}

fn metrics(stats: Stats, usage: Usage, peers: peers::Stats) -> [Metric; 15] {
    [
        ("mesh_cache_hits_total", "counter", "Look-ups that were answered.", stats.hits),
        ("mesh_cache_peer_hits_total", "counter", "Look-ups that another runner answered.", stats.peer_hits),
        ("mesh_cache_misses_total", "counter", "Look-ups that were not answered.", stats.misses),
        ("mesh_cache_puts_total", "counter", "Names that were set.", stats.puts),
        ("mesh_cache_served_bytes_total", "counter", "Bytes of blobs that were given out.", stats.bytes),
        (
            "mesh_cache_saved_milliseconds_total",
            "counter",
            "What it had taken to make what was given out, as far as that was seen.",
            stats.saved_ms,
        ),
        ("mesh_cache_damaged_total", "counter", "Entries that were found damaged, and forgotten.", usage.damaged),
        ("mesh_cache_peer_late_total", "counter", "Look-ups that no runner answered in time.", peers.late),
        (
            "mesh_cache_peer_wrong_total",
            "counter",
            "Blobs of other runners that were not what they should be.",
            peers.wrong,
        ),
        ("mesh_cache_known_misses_total", "counter", "Look-ups that nobody had to be asked for.", peers.known_misses),
        (
            "mesh_cache_fetched_bytes_total",
            "counter",
            "Bytes of blobs that came from other runners.",
            peers.fetched_bytes,
        ),
        (
            "mesh_cache_sent_bytes_total",
            "counter",
            "Bytes of large blobs that went to other runners.",
            peers.sent_bytes,
        ),
        ("mesh_cache_peers", "gauge", "Other runners that have a cache.", peers.members.saturating_sub(1)),
        ("mesh_cache_entries", "gauge", "Blobs and records that are held.", usage.entries as u64),
        ("mesh_cache_stored_bytes", "gauge", "Bytes that the cache takes of the disk.", usage.bytes),
    ]
}

/// Without its last line break, as [`say`] adds one.
fn page(metrics: &[Metric]) -> String {
    let mut page = String::new();
    for (name, kind, help, value) in metrics {
        // INVARIANT: a String takes all that is written to it.
        writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}").expect("a String takes all");
    }
    page.truncate(page.trim_end().len());
    page
}

#[cfg(test)]
mod tests {
    use super::super::tests::Stage;
    use super::*;

    #[test]
    fn each_number_has_its_help_its_type_and_its_line() {
        let page =
            page(&[("mesh_cache_hits_total", "counter", "Look-ups.", 7), ("mesh_cache_entries", "gauge", "All.", 0)]);

        assert_eq!(
            page,
            "# HELP mesh_cache_hits_total Look-ups.\n# TYPE mesh_cache_hits_total counter\nmesh_cache_hits_total 7\n\
             # HELP mesh_cache_entries All.\n# TYPE mesh_cache_entries gauge\nmesh_cache_entries 0"
        );
    }

    #[test]
    fn what_only_grows_is_a_counter_and_named_so() {
        let stats = Stats::default();
        for (name, kind, help, _) in metrics(stats, Usage { entries: 0, bytes: 0, damaged: 0 }, peers::Stats::default())
        {
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(name.starts_with("mesh_cache_") && name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'));
            assert!(help.ends_with('.') && !help.contains(['\n', '\\']), "{help}");
        }
    }

    #[tokio::test]
    async fn every_token_opens_it_and_what_was_done_is_counted() {
        let stage = Stage::start().await;
        stage.put("/webdav/x", "content").await;
        stage.get("/webdav/x").await;
        stage.get("/webdav/none").await;
        let reader = stage.token("other", false);

        let asked = stage.client.get(stage.url(PATH)).basic_auth("prometheus", Some(reader));
        let answer = asked.send().await.expect("an answer");

        assert_eq!(answer.headers().get("content-type"), Some(&TYPE));
        let page = answer.text().await.expect("text");
        for line in ["hits_total 1", "misses_total 1", "puts_total 1", "served_bytes_total 7", "entries 2"] {
            assert!(page.contains(&format!("\nmesh_cache_{line}\n")), "{line}: {page}");
        }
        assert_eq!(stage.ask("POST", PATH).send().await.expect("an answer").status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
