//! Blobs, piece by piece and by the batch.

use bazel_remote_apis::google::bytestream::QueryWriteStatusRequest;
use tonic::codegen::http::StatusCode;

use super::*;

const PLAIN: i32 = api::compressor::Value::Identity as i32;
const ZSTD: i32 = api::compressor::Value::Zstd as i32;

#[tokio::test]
async fn what_is_written_is_read_in_either_form() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    for (size, form) in SIZES.into_iter().flat_map(|size| [(size, Form::Plain), (size, Form::Zstd)]) {
        let bytes = content(size + usize::from(form == Form::Zstd && size > 0));
        let digest = sha256::digest(&bytes);
        let sent = if form == Form::Plain { bytes.clone() } else { packed(&bytes) };
        let told = if bytes.is_empty() && form == Form::Zstd { -1 } else { sent.len() as i64 };
        let step = if size < 2000 { 20 } else { 3 << 20 };

        assert_eq!(client.write(digest, form, &sent, step).await, Ok(told), "{size} {form:?}");

        assert!(client.missing(&[digest]).await.is_empty(), "{size} {form:?}");
        assert!(client.get(digest, Form::Plain).await.as_ref() == Ok(&bytes), "{size} {form:?}");
        assert!(unpacked(&client.get(digest, Form::Zstd).await.expect("found")) == bytes, "{size} {form:?}");
    }
}

#[tokio::test]
async fn messages_of_20_bytes_and_with_the_name_on_all_are_taken() {
    let stage = Stage::start().await;
    let bytes = content(4000);
    let named = Resource {
        instance: String::new(),
        upload: Some("u".into()),
        form: Form::Zstd,
        digest: sha256::digest(&bytes),
    };
    let mut messages = messages(&named.to_string(), &packed(&bytes), 20);
    messages.iter_mut().for_each(|message| message.resource_name = named.to_string());

    stage.client().bytes.write(tokio_stream::iter(messages)).await.expect("stored");

    assert_eq!(stage.client().get(named.digest, Form::Plain).await, Ok(bytes));
}

#[tokio::test]
async fn other_bytes_than_the_digest_says_are_refused() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    for size in [100, 1 << 20] {
        let digest = sha256::digest(&content(size));
        let mut other = content(size);
        other[size / 2] ^= 1;
        let longer = [&content(size)[..], b"x"].concat();
        for bytes in [&other, &longer, &content(size - 1)] {
            let forms = [(Form::Plain, bytes.clone()), (Form::Zstd, packed(bytes))];
            for (form, sent) in forms {
                assert_eq!(client.write(digest, form, &sent, 1 << 20).await, Err(Code::InvalidArgument));
            }
        }
        assert_eq!(client.write(digest, Form::Zstd, &content(size), 1 << 20).await, Err(Code::InvalidArgument));
        assert_eq!(client.missing(&[digest]).await, [digest]);
    }
    assert_eq!((stage.cache.usage().entries, stage.cache.usage().bytes), (0, 0));
}

#[tokio::test]
async fn a_bomb_is_refused() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let (digest, bomb) = (sha256::digest(b"small"), packed(&vec![0; 500 << 20]));
    let asked = api::BatchUpdateBlobsRequest {
        requests: vec![api::batch_update_blobs_request::Request {
            digest: Some(digests::write(&digest)),
            data: bomb.clone(),
            compressor: ZSTD,
        }],
        ..Default::default()
    };

    assert_eq!(client.write(digest, Form::Zstd, &bomb, 1 << 20).await, Err(Code::InvalidArgument));
    let told = client.cas.batch_update_blobs(asked).await.expect("an answer").into_inner();

    assert_eq!(told.responses[0].status.as_ref().map(|status| status.code), Some(Code::InvalidArgument as i32));
    assert_eq!(stage.cache.usage().entries, 0);
}

#[tokio::test]
async fn what_is_there_need_not_come_again() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let bytes = content(20_000_000 / 4);
    let digest = client.put(&bytes).await;

    assert_eq!(client.write(digest, Form::Plain, &bytes, 16 << 10).await, Ok(bytes.len() as i64));
    assert_eq!(client.write(digest, Form::Zstd, b"not even looked at", 5).await, Ok(-1));
    // By its hash alone nobody gets into another namespace.
    assert_eq!(stage.other("other", true).missing(&[digest]).await, [digest]);
    let other = stage.other("other", true).write(digest, Form::Plain, b"x", 1).await;
    assert_eq!(other, Err(Code::InvalidArgument));
}

#[tokio::test]
async fn any_part_of_a_blob_can_be_read() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    for size in [1000, 300_000] {
        let bytes = content(size);
        let digest = client.put(&bytes).await;
        let mut read = async |form, read_offset: i64, read_limit: i64| {
            let named = Resource { instance: String::new(), upload: None, form, digest };
            client.read(ReadRequest { resource_name: named.to_string(), read_offset, read_limit }).await
        };

        for (at, limit) in [(0, 0), (0, 1), (1, 0), (10, 500), (size - 1, 5), (size, 0), (size / 2, size)] {
            let end = if limit == 0 { size } else { size.min(at + limit) };
            assert_eq!(read(Form::Plain, at as i64, limit as i64).await, Ok(bytes[at..end].to_vec()), "{at} {limit}");
            if limit == 0 {
                let told = read(Form::Zstd, at as i64, 0).await.expect("found");
                assert_eq!(unpacked(&told), bytes[at..], "{at}");
            }
        }
        assert_eq!(read(Form::Plain, size as i64 + 1, 0).await, Err(Code::OutOfRange));
        assert_eq!(read(Form::Plain, -1, 0).await, Err(Code::OutOfRange));
        assert_eq!(read(Form::Plain, 0, -1).await, Err(Code::InvalidArgument));
        assert_eq!(read(Form::Zstd, 0, 10).await, Err(Code::InvalidArgument));
    }
}

#[tokio::test]
async fn the_status_of_an_upload_is_all_or_nothing() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let digest = sha256::digest(b"content");
    let named = Resource { instance: String::new(), upload: Some("u".into()), form: Form::Plain, digest };
    let status = async || {
        let asked = QueryWriteStatusRequest { resource_name: named.to_string() };
        let told = stage.client().bytes.query_write_status(asked).await.expect("an answer").into_inner();
        (told.committed_size, told.complete)
    };

    assert_eq!(status().await, (0, false));
    client.put(b"content").await;
    assert_eq!(status().await, (7, true));
}

#[tokio::test]
async fn a_batch_is_told_of_blob_by_blob() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let (good, large) = (content(50), content(200_000));
    let blob = |bytes: &[u8], data: Vec<u8>, compressor| api::batch_update_blobs_request::Request {
        digest: Some(digests::write(&sha256::digest(bytes))),
        data,
        compressor,
    };
    let requests = vec![
        blob(&good, good.clone(), PLAIN),
        blob(&large, packed(&large), ZSTD),
        blob(b"other", b"bytes".to_vec(), PLAIN),
        blob(b"other", b"no zstd".to_vec(), ZSTD),
        blob(b"other", b"other".to_vec(), 3),
        blob(b"", vec![], PLAIN),
        api::batch_update_blobs_request::Request::default(),
    ];

    let asked = api::BatchUpdateBlobsRequest { requests, ..Default::default() };
    let told = client.cas.batch_update_blobs(asked).await.expect("an answer").into_inner();

    let codes: Vec<i32> = told.responses.iter().map(|blob| blob.status.as_ref().map_or(-1, |told| told.code)).collect();
    assert_eq!(codes, [0, 0, 3, 3, 3, 0, 3]);
    let wanted = [&good[..], &large, b"other", b""].map(sha256::digest);
    assert_eq!(client.missing(&wanted).await, [wanted[2]]);
    for acceptable_compressors in [vec![], vec![PLAIN, ZSTD]] {
        let zstd = acceptable_compressors.contains(&ZSTD);
        let digests = wanted.iter().map(digests::write).collect();
        let asked = api::BatchReadBlobsRequest { digests, acceptable_compressors, ..Default::default() };
        let told = client.cas.batch_read_blobs(asked).await.expect("an answer").into_inner().responses;
        let codes: Vec<i32> = told.iter().map(|blob| blob.status.as_ref().map_or(-1, |told| told.code)).collect();
        assert_eq!(codes, [0, 0, Code::NotFound as i32, 0]);
        assert_eq!((told[0].data == good, told[3].data.len()), (true, 0));
        assert_eq!((told[1].compressor == ZSTD, told[1].data.len() < 200_000), (zstd, zstd));
        assert!(if zstd { unpacked(&told[1].data) == large } else { told[1].data == large });
    }
}

#[tokio::test]
async fn a_batch_has_a_limit() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let bytes = content(3 << 20);
    let digest = digests::write(&client.put(&bytes).await);
    let blob =
        api::batch_update_blobs_request::Request { digest: Some(digest.clone()), data: bytes, compressor: PLAIN };

    let update = api::BatchUpdateBlobsRequest { requests: vec![blob.clone(), blob], ..Default::default() };
    let told = client.cas.batch_update_blobs(update).await.expect_err("too large");
    assert!(told.code() == Code::InvalidArgument && told.message().contains("4194304"), "{told}");
    let read = |digests| api::BatchReadBlobsRequest { digests, ..Default::default() };
    let twice = vec![digest.clone(), digest];
    let told = client.cas.batch_read_blobs(read(twice.clone())).await.expect_err("too large");
    assert!(told.code() == Code::InvalidArgument && told.message().contains("4194304"), "{told}");
    assert_eq!(client.cas.batch_read_blobs(read(twice[..1].to_vec())).await.expect("one").get_ref().responses.len(), 1);
    let endless = vec![api::Digest { size_bytes: i64::MAX, ..twice[0].clone() }; 3];
    assert!(client.cas.batch_read_blobs(read(endless)).await.is_err());
}

#[tokio::test]
async fn a_digest_of_another_size_is_of_another_blob() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let digest = client.put(b"content").await;
    let other = Digest { size: 8, ..digest };

    assert_eq!(client.missing(&[digest, other]).await, [other]);
    assert_eq!(client.get(other, Form::Plain).await, Err(Code::NotFound));
}

#[tokio::test]
async fn bazels_http_cache_has_the_same_blobs() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stage = Stage::start().await;
    let mut client = stage.client();
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = |digest: Digest| format!("http://{}/bazel/any/cas/{}", stage.addr, digest.hex());
    let token = stage.token("main", true);

    let digest = client.put(b"by gRPC").await;
    let got = http.get(url(digest)).bearer_auth(&token).send().await.expect("an answer");
    assert_eq!(got.bytes().await.expect("a body"), "by gRPC");
    let digest = sha256::digest(b"by HTTP");
    let put = http.put(url(digest)).bearer_auth(&token).body("by HTTP").send().await.expect("an answer");
    assert_eq!(put.status().as_u16(), StatusCode::CREATED.as_u16());
    assert_eq!(client.get(digest, Form::Plain).await, Ok(b"by HTTP".to_vec()));
}

#[tokio::test]
async fn a_damaged_blob_is_never_given_out_whole() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    for at in [0, 2_999_999] {
        let digest = client.put(&content(3_000_000)).await;
        let path = stage.folder.path().join("files").join(&digest.hex()[..2]).join(digest.hex());
        let mut bytes = std::fs::read(&path).expect("a file");
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("written");

        let told = client.get(digest, Form::Plain).await;

        assert_eq!(told, Err(if at == 0 { Code::NotFound } else { Code::DataLoss }));
        assert_eq!(client.missing(&[digest]).await, [digest]);
    }
}

#[tokio::test]
async fn where_there_is_no_room_that_is_said() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let too_large = Digest { size: BUDGET / 4 + 1, ..sha256::digest(b"large") };
    assert_eq!(client.write(too_large, Form::Plain, b"la", 9).await, Err(Code::InvalidArgument));
    // What has not yet come whole may take half of the budget.
    let others = [15_900_000; 2].map(|size| {
        let mut incoming = stage.cache.incoming();
        incoming.write(&content(size)).expect("room");
        incoming
    });
    let bytes = content(5_000_000);

    assert_eq!(client.write(sha256::digest(&bytes), Form::Plain, &bytes, 1 << 20).await, Err(Code::ResourceExhausted));

    drop(others);
    assert_eq!(client.write(sha256::digest(&bytes), Form::Plain, &bytes, 1 << 20).await, Ok(5_000_000));
}
