//! As much of WebDAV (RFC 4918) as sccache needs: `/webdav/PATH`. Every path that ends in a slash is a collection, and exists: so nobody has to make one.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};

use super::{Answer, Front, Target, not_allowed, say, status};
use crate::proto::digest::Digest;

pub(super) const FRONT: Front = Front { name: "webdav", target, is_work: |_| true };

/// Some date: what is kept has none, and clients parse it strictly.
const DATE: &str = "Wed, 01 May 2024 06:39:47 GMT";

fn target(path: &str) -> Option<Target> {
    if path.is_empty() {
        return Some(Target::Folder);
    }
    let (name, is_folder) = path.strip_suffix('/').map_or((path, false), |name| (name, true));
    let good = name.split('/').all(|part| !["", ".", ".."].contains(&part));
    good.then(|| if is_folder { Target::Folder } else { Target::Entry(name.into()) })
}

/// Of a collection.
pub(super) fn folder(method: &Method, path: &str) -> Answer {
    match method.as_str() {
        "PROPFIND" => properties(path, "<D:collection/>", 0),
        "MKCOL" => status(StatusCode::CREATED),
        "OPTIONS" => status(StatusCode::NO_CONTENT),
        _ => not_allowed("PROPFIND, MKCOL, OPTIONS"),
    }
}

/// Of an entry.
pub(super) fn entry(path: &str, digest: Option<Digest>) -> Answer {
    digest.map_or_else(|| status(StatusCode::NOT_FOUND), |digest| properties(path, "", digest.size))
}

fn properties(path: &str, kind: &str, size: u64) -> Answer {
    let path = path.replace('&', "&amp;").replace('<', "&lt;");
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>{path}</D:href><D:propstat><D:prop>\
         <D:getlastmodified>{DATE}</D:getlastmodified><D:getcontentlength>{size}</D:getcontentlength><D:resourcetype>{kind}</D:resourcetype>\
         </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>"
    );
    let mut answer = say(StatusCode::MULTI_STATUS, text);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_in_a_slash_is_a_folder_and_the_rest_an_entry() {
        assert_eq!(target(""), Some(Target::Folder));
        assert_eq!(target("a/b/"), Some(Target::Folder));
        assert_eq!(target("a/b"), Some(Target::Entry("a/b".into())));
    }

    #[test]
    fn path_tricks_name_nothing() {
        for path in ["/", "//", "../a", "a/../b", "a//b", "a/./b", "a/.."] {
            assert_eq!(target(path), None, "{path}");
        }
    }
}
