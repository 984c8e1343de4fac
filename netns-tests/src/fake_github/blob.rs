//! The blob side: Azure's Put Blob, Put Block, Put Block List and Get Blob behind signed URLs.
//!
//! Follows the Blob service REST API as a client with a service SAS sees it; errors are XML with `x-ms-error-code`.
//! Not here: what a block is ([`super::blobs`]) and what a signature permits ([`super::signing`]).

mod block_list;
mod range;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::blobs::BlockError;
use super::faults::Tamper;
use super::server::Fault;
use super::service::Service;
use super::signing::{CONTAINER, Grant};

/// An answer of Azure's that is an error.
#[derive(Debug)]
pub(super) struct BlobError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl BlobError {
    fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned() }
    }

    /// An error that a fault asked for.
    pub(super) fn of_status(status: StatusCode, message: Option<String>) -> Self {
        let (code, text) = match status.as_u16() {
            403 => ("AuthenticationFailed", AUTHENTICATION_FAILED),
            404 => ("BlobNotFound", BLOB_NOT_FOUND),
            503 => ("ServerBusy", "The server is currently unable to receive requests. Please retry your request."),
            400..=499 => ("InvalidInput", "One of the request inputs is not valid."),
            _ => ("InternalError", "The server encountered an internal error. Please retry the request."),
        };
        Self { status, code, message: message.unwrap_or_else(|| text.to_owned()) }
    }
}

const AUTHENTICATION_FAILED: &str = "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.";
const BLOB_NOT_FOUND: &str = "The specified blob does not exist.";
const PERMISSION_MISMATCH: &str = "This request is not authorized to perform this operation using this permission.";

impl IntoResponse for BlobError {
    fn into_response(self) -> Response {
        let Self { code, message, .. } = self;
        let xml = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        let headers = [(CONTENT_TYPE.as_str(), "application/xml"), ("x-ms-error-code", code)];
        (self.status, headers, xml).into_response()
    }
}

impl From<BlockError> for BlobError {
    fn from(error: BlockError) -> Self {
        let (code, message) = match error {
            BlockError::BadId => {
                ("InvalidQueryParameterValue", "Value for one of the query parameters is invalid: blockid.")
            }
            BlockError::UnevenId => ("InvalidBlobOrBlock", "The specified blob or block content is invalid."),
            BlockError::Missing => ("InvalidBlockList", "The specified block list is invalid."),
        };
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }
}

type Parameters = Query<HashMap<String, String>>;

pub(super) async fn put(
    State(service): State<Arc<Service>>,
    Query(query): Parameters,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, BlobError> {
    let grant = authorize(&service, &query, &uri)?;
    if !grant.write {
        return Err(BlobError::new(StatusCode::FORBIDDEN, "AuthorizationPermissionMismatch", PERMISSION_MISMATCH));
    }
    if !headers.contains_key(CONTENT_LENGTH) {
        let message = "You must provide the Content-Length HTTP header.";
        return Err(BlobError::new(StatusCode::LENGTH_REQUIRED, "MissingContentLengthHeader", message));
    }
    match query.get("comp").map(String::as_str) {
        None => put_blob(&service, &grant, &headers, body),
        Some("block") => put_block(&service, &grant, &query, body),
        Some("blocklist") => put_block_list(&service, &grant, &body),
        Some(_) => Err(bad_request("InvalidQueryParameterValue", "Value for one of the query parameters is invalid.")),
    }
}

fn put_blob(service: &Service, grant: &Grant, headers: &HeaderMap, body: Bytes) -> Result<Response, BlobError> {
    match headers.get("x-ms-blob-type").map(HeaderValue::as_bytes) {
        Some(b"BlockBlob") => {}
        Some(_) => return Err(bad_request("InvalidHeaderValue", "The value for one of the HTTP headers is invalid.")),
        None => return Err(bad_request("MissingRequiredHeader", "An HTTP header that's mandatory is not specified.")),
    }
    service.blobs().put(&grant.blob, body);
    Ok(created())
}

fn put_block(
    service: &Service,
    grant: &Grant,
    query: &HashMap<String, String>,
    body: Bytes,
) -> Result<Response, BlobError> {
    let missing = || bad_request("MissingRequiredQueryParameter", "A query parameter that's mandatory is not given.");
    let id = query.get("blockid").ok_or_else(missing)?;
    if body.is_empty() {
        return Err(bad_request("InvalidHeaderValue", "The value for one of the HTTP headers is invalid."));
    }
    service.blobs().put_block(&grant.blob, id, body)?;
    Ok(created())
}

fn put_block_list(service: &Service, grant: &Grant, body: &[u8]) -> Result<Response, BlobError> {
    let invalid = || bad_request("InvalidXmlDocument", "XML specified is not syntactically valid.");
    let list = std::str::from_utf8(body).ok().and_then(block_list::parse).ok_or_else(invalid)?;
    service.blobs().commit(&grant.blob, &list)?;
    Ok(created())
}

fn bad_request(code: &'static str, message: &str) -> BlobError {
    BlobError::new(StatusCode::BAD_REQUEST, code, message)
}

fn created() -> Response {
    (StatusCode::CREATED, [(ETAG, "\"0x8DD000000000000\"")]).into_response()
}

fn authorize(service: &Service, query: &HashMap<String, String>, uri: &Uri) -> Result<Grant, BlobError> {
    let path = uri.path().trim_start_matches('/').strip_prefix(CONTAINER).unwrap_or_default().trim_start_matches('/');
    let grant = query.get("sig").and_then(|signature| service.grants().find(signature, path));
    grant.ok_or_else(|| BlobError::new(StatusCode::FORBIDDEN, "AuthenticationFailed", AUTHENTICATION_FAILED))
}

pub(super) async fn get(
    State(service): State<Arc<Service>>,
    Query(query): Parameters,
    Extension(fault): Extension<Fault>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, BlobError> {
    let grant = authorize(&service, &query, &uri)?;
    let Some((media, disposition)) = &grant.headers else {
        return Err(BlobError::new(StatusCode::FORBIDDEN, "AuthorizationPermissionMismatch", PERMISSION_MISMATCH));
    };
    let content = service.blobs().content(&grant.blob);
    let content = content.ok_or_else(|| BlobError::new(StatusCode::NOT_FOUND, "BlobNotFound", BLOB_NOT_FOUND))?;
    let content = tampered(content, fault.0.and_then(|rule| rule.tamper));
    let mut response = ranged(&content, headers.get("x-ms-range").or(headers.get(RANGE)))?;
    let told = [(CONTENT_TYPE, media.as_str()), (CONTENT_DISPOSITION, disposition), (ACCEPT_RANGES, "bytes")];
    for (name, value) in told {
        response.headers_mut().insert(name, header_value(value));
    }
    Ok(response)
}

fn tampered(content: Bytes, tamper: Option<Tamper>) -> Bytes {
    let middle = content.len() / 2;
    match tamper {
        Some(Tamper::Truncate) => content.slice(..middle),
        Some(Tamper::Flip) if !content.is_empty() => {
            let mut bytes = content.to_vec();
            bytes[middle] ^= 1;
            bytes.into()
        }
        _ => content,
    }
}

fn ranged(content: &Bytes, asked: Option<&HeaderValue>) -> Result<Response, BlobError> {
    let whole = content.len();
    let Some(asked) = asked.and_then(|range| range.to_str().ok()).and_then(range::parse) else {
        return Ok(Body::from(content.clone()).into_response());
    };
    let invalid = "The range specified is invalid for the current size of the resource.";
    let slice = asked
        .within(whole)
        .ok_or_else(|| BlobError::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", invalid))?;
    let told = format!("bytes {}-{}/{whole}", slice.start, slice.end - 1);
    Ok((StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, told)], Body::from(content.slice(slice))).into_response())
}

/// Headers hold what a client chose (a media type); what cannot be said in one is left empty.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
