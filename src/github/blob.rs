//! Bytes behind a signed URL, as Azure Blob Storage takes and gives them. The URL carries all authority: no token of ours is sent
//! here, and no URL is ever part of a message.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, RequestBuilder, Url};

use super::error::{Error, Kind};
use super::http;

/// Ids of blocks are base64 of at most 64 bytes and count only within their blob: one block needs one id (`block-0`).
const BLOCK_ID: &str = "YmxvY2stMA==";

const MIME_TYPE: &str = "application/octet-stream";

/// A version that knows all we use; a signed URL states one of its own, which wins.
const API_VERSION: &str = "2021-12-02";

/// Uploads `bytes` as one block and commits it (Put Block, Put Block List), as the official artifact client does.
pub async fn upload(client: &Client, url: &Url, bytes: &[u8]) -> Result<(), Error> {
    let what = format!("upload {} bytes to {}", bytes.len(), host(url));
    let block = client.put(with_query(url, &[("comp", "block"), ("blockid", BLOCK_ID)]));
    send(block.header(CONTENT_TYPE, MIME_TYPE).body(bytes.to_vec()), &what).await?;
    let list = format!(r#"<?xml version="1.0" encoding="utf-8"?><BlockList><Latest>{BLOCK_ID}</Latest></BlockList>"#);
    let commit = client.put(with_query(url, &[("comp", "blocklist")])).header("x-ms-blob-content-type", MIME_TYPE);
    send(commit.header(CONTENT_TYPE, "application/xml").body(list), &what).await
}

/// Downloads at most `max` bytes; a longer body is an error.
pub async fn download(client: &Client, url: &Url, max: usize) -> Result<Vec<u8>, Error> {
    let what = format!("download from {}", host(url));
    let response = client.get(url.clone()).send().await.map_err(|e| http::network(&what, e))?;
    if response.status() != 200 {
        return Err(http::failure(response, &what, explain).await);
    }
    if response.content_length().is_some_and(|len| len > max as u64) {
        return Err(Error::new(Kind::Unusable, format!("{what}: the body is longer than {max} bytes")));
    }
    http::body(response, max, &what).await
}

async fn send(request: RequestBuilder, what: &str) -> Result<(), Error> {
    let sent = request.header("x-ms-version", API_VERSION).send().await;
    let response = sent.map_err(|e| http::network(what, e))?;
    if response.status().is_success() { Ok(()) } else { Err(http::failure(response, what, explain).await) }
}

fn with_query(url: &Url, pairs: &[(&str, &str)]) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or("a URL without a host")
}

/// Azure's error code: a header, else an element of the XML body. Nothing else of the body, which may repeat the URL.
fn explain(headers: &HeaderMap, body: &[u8]) -> String {
    let header = headers.get("x-ms-error-code").and_then(|code| code.to_str().ok()).map(str::to_owned);
    header.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        code.map(|(code, _)| code.to_owned()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn the_signature_stays_as_it_was_signed() {
        let url = Url::parse("https://h/c/b?se=2099-01-01T00%3A00%3A00Z&sig=a%2Bb%2Fc%3D").expect("a URL");
        let put = with_query(&url, &[("comp", "block"), ("blockid", BLOCK_ID)]);
        assert_eq!(
            put.query(),
            Some("se=2099-01-01T00%3A00%3A00Z&sig=a%2Bb%2Fc%3D&comp=block&blockid=YmxvY2stMA%3D%3D")
        );
    }

    #[test]
    fn azure_names_its_error_in_a_header_or_in_the_body() {
        let body = b"<?xml?><Error><Code>AuthenticationFailed</Code><Message>sig=abc</Message></Error>";
        assert_eq!(explain(&HeaderMap::new(), body), "AuthenticationFailed");
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-error-code", HeaderValue::from_static("ServerBusy"));
        assert_eq!(explain(&headers, body), "ServerBusy");
        assert_eq!(explain(&HeaderMap::new(), b"nothing we know"), "");
    }
}
