//! Who may call, what is announced, and who does not go on.

use std::io::{Read as _, Write as _};

use tonic::codegen::{Service as _, http};

use super::*;

#[tokio::test]
async fn what_is_announced_is_what_clients_ask_for() {
    let stage = Stage::start().await;
    for writes in [true, false] {
        let mut client = stage.other("main", writes);
        let told = client.capabilities.get_capabilities(api::GetCapabilitiesRequest::default()).await;
        let told = told.expect("an answer").into_inner();
        let cache = told.cache_capabilities.expect("a cache");

        assert_eq!(told.low_api_version.map(|version| (version.major, version.minor)), Some((2, 0)));
        assert_eq!((cache.digest_functions, cache.supported_compressors), (vec![1], vec![1]));
        let update = cache.action_cache_update_capabilities.expect("said");
        assert_eq!((update.update_enabled, cache.max_batch_total_size_bytes), (writes, 4 << 20));
        assert_eq!((told.execution_capabilities, cache.max_cas_blob_size_bytes), (None, BUDGET as i64 / 4));
    }
}

#[tokio::test]
async fn nobody_is_answered_without_the_token() {
    let headers = [None, Some("Bearer x"), Some("Bearer rw.main.AAAAAAAAAAAAAAAAAAAAAA"), Some("Negotiate x")];
    for header in headers {
        // Each is sent away after it has asked.
        let stage = Stage::start().await;
        let digest = stage.client().put(b"content").await;
        let code = |told: Option<Status>| told.map(|status| status.code());
        let asked = api::GetCapabilitiesRequest::default();
        let told = stage.bearer(header).capabilities.get_capabilities(asked).await;
        assert_eq!(code(told.err()), Some(Code::Unauthenticated));
        assert_eq!(stage.bearer(header).get(digest, Form::Plain).await, Err(Code::Unauthenticated));
        let told = stage.bearer(header).cas.find_missing_blobs(api::FindMissingBlobsRequest::default()).await;
        assert_eq!(code(told.err()), Some(Code::Unauthenticated));
        let told = stage.bearer(header).actions.get_action_result(api::GetActionResultRequest::default()).await;
        assert_eq!(code(told.err()), Some(Code::Unauthenticated));
        let other = sha256::digest(b"other");
        assert_eq!(stage.bearer(header).write(other, Form::Plain, b"other", 9).await, Err(Code::Unauthenticated));
        assert_eq!(stage.client().missing(&[other]).await, [other]);
    }
}

#[tokio::test]
async fn a_token_is_good_as_a_password_too() {
    use base64::Engine as _;
    let stage = Stage::start().await;
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("mesh:{}", stage.token("main", false)));

    let mut client = stage.bearer(Some(&format!("Basic {pair}")));

    assert_eq!(client.get(Digest::EMPTY, Form::Plain).await, Ok(vec![]));
}

#[tokio::test]
async fn a_reader_reads_its_own_namespace_and_changes_nothing() {
    let stage = Stage::start().await;
    let digest = stage.client().put(b"content").await;
    let (mut reader, mut stranger) = (stage.other("main", false), stage.other("other", true));

    assert_eq!(reader.get(digest, Form::Plain).await, Ok(b"content".to_vec()));
    assert_eq!(stranger.get(digest, Form::Plain).await, Err(Code::NotFound));
    let other = sha256::digest(b"other");
    assert_eq!(reader.write(other, Form::Plain, b"other", 9).await, Err(Code::PermissionDenied));
    assert_eq!(reader.write(digest, Form::Plain, b"content", 9).await, Err(Code::PermissionDenied));
    let told = reader.cas.batch_update_blobs(api::BatchUpdateBlobsRequest::default()).await;
    assert_eq!(told.expect_err("refused").code(), Code::PermissionDenied);
    let told = reader.actions.update_action_result(api::UpdateActionResultRequest::default()).await;
    assert_eq!(told.expect_err("refused").code(), Code::PermissionDenied);
}

#[tokio::test]
async fn what_is_not_offered_is_said_to_be() {
    let stage = Stage::start().await;
    let mut client = stage.client();

    let told = client.cas.split_blob(api::SplitBlobRequest::default()).await;
    assert_eq!(told.expect_err("refused").code(), Code::Unimplemented);
    let mut execution = api::execution_client::ExecutionClient::new(stage.channel.clone());
    let mut request = Request::new(api::ExecuteRequest::default());
    let header = format!("Bearer {}", stage.token("main", true)).parse().expect("a header");
    request.metadata_mut().insert("authorization", header);
    assert_eq!(execution.execute(request).await.expect_err("refused").code(), Code::Unimplemented);
    let asked = api::FindMissingBlobsRequest { digest_function: 9, ..Default::default() };
    assert_eq!(client.cas.find_missing_blobs(asked).await.expect_err("refused").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn http2_without_grpc_is_refused() {
    let stage = Stage::start().await;
    let request = http::Request::get(format!("http://{}/webdav/x", stage.addr));
    let request = request.header("authorization", format!("Bearer {}", stage.token("main", true)));
    let mut channel = stage.channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.expect("connected");

    let told = channel.call(request.body(tonic::body::Body::empty()).expect("a request")).await;

    assert_eq!(told.expect("an answer").status().as_u16(), 415);
}

#[tokio::test]
async fn who_does_not_go_on_writing_is_told() {
    let stage = Stage::with(Limits { connections: 2, patience: SHORT }).await;
    let digest = sha256::digest(b"content");
    let named = Resource { instance: String::new(), upload: Some("u".into()), form: Form::Plain, digest };
    let mut first = messages(&named.to_string(), b"content", 3);
    first.truncate(1);
    let endless = tokio_stream::StreamExt::chain(tokio_stream::iter(first), tokio_stream::pending());

    let told = tokio::time::timeout(PATIENCE, stage.client().bytes.write(endless)).await.expect("an answer");

    assert_eq!(told.expect_err("refused").code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn who_does_not_read_loses_its_place() {
    let stage = Stage::with(Limits { connections: 1, patience: SHORT }).await;
    let digest = stage.client().put(&content(15_000_000)).await;
    let named = Resource { instance: String::new(), upload: None, form: Form::Plain, digest };
    let asked = ReadRequest { resource_name: named.to_string(), ..Default::default() };
    let mut idle = stage.client().bytes.read(asked).await.expect("a stream").into_inner();

    // There is one place, and it is taken.
    assert!(stage.client().missing(&[digest]).await.is_empty());

    let mut came = 0;
    let ended = loop {
        match idle.message().await {
            Ok(Some(piece)) => came += piece.data.len(),
            ended => break ended,
        }
    };
    let code = ended.map(drop).map_err(|status| status.code());
    assert_eq!(code, Err(Code::DeadlineExceeded), "{came} bytes came");
}

/// What comes until the connection ends.
async fn raw(addr: SocketAddr, bytes: Vec<u8>) -> Vec<u8> {
    let told = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(addr).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let _ = stream.write_all(&bytes);
        let mut told = vec![];
        stream.read_to_end(&mut told).map(|_| told)
    });
    told.await.expect("ended").unwrap_or_default()
}

#[tokio::test]
async fn who_never_calls_loses_its_connection() {
    let stage = Stage::with(Limits { connections: 1, patience: SHORT }).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];

    let idle = [&preface[..0], &preface[..1], &preface[..20], &[&preface[..], &settings].concat()];
    for bytes in idle.map(<[u8]>::to_vec) {
        let told = tokio::time::timeout(PATIENCE, raw(stage.addr, bytes.clone())).await;
        assert!(told.is_ok(), "{bytes:?}");
    }
    assert_eq!(stage.client().missing(&[Digest::EMPTY]).await, []);
}

#[tokio::test]
async fn who_has_no_token_is_sent_away() {
    let stage = Stage::with(Limits { connections: 1, patience: PATIENCE }).await;
    let asked = api::GetCapabilitiesRequest::default();
    let mut stranger = stage.bearer(None);
    let told = stranger.capabilities.get_capabilities(asked).await;
    assert_eq!(told.expect_err("refused").code(), Code::Unauthenticated);

    // Its connection took the only place.
    let channel = Endpoint::from_shared(format!("http://{}", stage.addr)).expect("a URL").connect_lazy();
    let mut client = stage.client();
    let bearer = Bearer(Some(format!("Bearer {}", stage.token("main", true)).parse().expect("a header")));
    client.bytes = ByteStreamClient::new(InterceptedService::new(channel, bearer));
    let told = tokio::time::timeout(PATIENCE / 2, client.get(Digest::EMPTY, Form::Plain)).await;

    assert_eq!(told, Ok(Ok(vec![])));
}
