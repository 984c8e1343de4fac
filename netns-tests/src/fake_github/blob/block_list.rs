//! The XML body of Put Block List.
//!
//! Not here: XML in general; the body is one element with flat children and no attributes.

use super::super::blobs::Source;

const SOURCES: [(&str, Source); 3] =
    [("Latest", Source::Latest), ("Committed", Source::Committed), ("Uncommitted", Source::Uncommitted)];

/// The block ids in order, each with where to look for it.
pub(super) fn parse(xml: &str) -> Option<Vec<(Source, String)>> {
    let mut rest = after_declaration(xml.trim_start_matches('\u{feff}').trim())?;
    if ["<BlockList/>", "<BlockList />"].contains(&rest) {
        return Some(Vec::new());
    }
    rest = rest.strip_prefix("<BlockList>")?.trim_start();
    let mut list = Vec::new();
    while rest != "</BlockList>" {
        let (entry, behind) = entry(rest)?;
        list.push(entry);
        rest = behind.trim_start();
    }
    Some(list)
}

fn after_declaration(xml: &str) -> Option<&str> {
    if xml.starts_with("<?xml") { Some(xml.split_once("?>")?.1.trim_start()) } else { Some(xml) }
}

fn entry(xml: &str) -> Option<((Source, String), &str)> {
    let (tag, rest) = xml.strip_prefix('<')?.split_once('>')?;
    let (_, source) = SOURCES.iter().find(|(name, _)| *name == tag)?;
    let (id, behind) = rest.split_once(&format!("</{tag}>"))?;
    Some(((*source, id.trim().to_owned()), behind))
}
