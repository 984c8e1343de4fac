//! What an action's result refers to: its files, and those in its folders. A result of which anything is gone is none: the client would find out in the middle of
//! the build (bazel-remote's and Bazel's issues on "missing digest" are about that). Not here: where results are kept.

use std::collections::HashSet;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use prost::Message as _;
use tonic::Status;

use super::{Desk, digests};
use crate::proto::digest::Digest;

/// Bytes of one description of folders, and of all in a tree together.
const LARGEST_TREE: u64 = 32 << 20;

impl Desk {
    /// Whether all that the result refers to is there.
    pub(super) async fn is_complete(&self, result: &api::ActionResult) -> bool {
        match self.references(result).await {
            Some(wanted) => self.present(&wanted).await.into_iter().all(|present| present),
            None => false,
        }
    }

    /// Each once; `None` where a description of folders is missing already, or something is no digest.
    async fn references(&self, result: &api::ActionResult) -> Option<Vec<Digest>> {
        let files = result.output_files.iter().map(|file| file.digest.as_ref());
        let mut wanted = files.map(|digest| digests::required(digest).ok()).collect::<Option<HashSet<_>>>()?;
        for digest in [&result.stdout_digest, &result.stderr_digest].into_iter().flatten() {
            wanted.insert(digests::read(digest).ok()?);
        }
        for folder in &result.output_directories {
            wanted.extend(self.below(folder).await?);
        }
        Some(wanted.into_iter().collect())
    }

    /// What a folder refers to.
    async fn below(&self, folder: &api::OutputDirectory) -> Option<Vec<Digest>> {
        let root = folder.root_directory_digest.as_ref().map(digests::read).transpose().ok()?;
        let folders = match (&folder.tree_digest, root) {
            (Some(tree), _) => self.tree(digests::read(tree).ok()?).await?,
            (None, Some(root)) => self.walk(root).await.ok().filter(|(_, complete)| *complete)?.0,
            (None, None) => return None,
        };
        let files = folders.iter().flat_map(|folder| &folder.files).map(|file| file.digest.as_ref());
        files.map(|digest| digests::required(digest).ok()).chain(root.map(Some)).collect()
    }

    async fn tree(&self, digest: Digest) -> Option<Vec<api::Directory>> {
        if digest.size > LARGEST_TREE {
            return None;
        }
        let tree = api::Tree::decode(self.content(&digest).await?).ok()?;
        Some(tree.root.into_iter().chain(tree.children).collect())
    }

    /// A folder and all below it, each once, and whether none of them is missing.
    ///
    /// # Errors
    /// If the first is not there, or together they are too large.
    pub(super) async fn walk(&self, root: Digest) -> Result<(Vec<api::Directory>, bool), Status> {
        let (mut folders, mut complete, mut left) = (vec![], true, LARGEST_TREE);
        let (mut known, mut next) = (HashSet::from([root]), vec![root]);
        while !next.is_empty() {
            let size = next.iter().fold(next.len() as u64, |sum, digest| sum.saturating_add(digest.size));
            left = left.checked_sub(size).ok_or_else(|| Status::resource_exhausted("the tree is too large"))?;
            let found = self.contents(&next).await.into_iter();
            let level: Vec<_> = found.map(|bytes| api::Directory::decode(bytes?).ok()).collect();
            if folders.is_empty() && level == [None] {
                return Err(Status::not_found("the tree's root is missing"));
            }
            complete &= level.iter().all(Option::is_some);
            let level: Vec<_> = level.into_iter().flatten().collect();
            let named = level.iter().flat_map(|folder| &folder.directories).map(|node| node.digest.as_ref());
            let named: Vec<_> = named.map(|digest| digests::required(digest).ok()).collect();
            complete &= named.iter().all(Option::is_some);
            next = named.into_iter().flatten().filter(|digest| known.insert(*digest)).collect();
            folders.extend(level);
        }
        Ok((folders, complete))
    }
}
