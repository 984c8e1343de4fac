//! Results of actions, and what they need.

use prost::Message as _;

use super::*;

fn action(of: &str) -> Option<api::Digest> {
    Some(digests::write(&sha256::digest(of.as_bytes())))
}

fn file(path: &str, bytes: &[u8]) -> api::OutputFile {
    api::OutputFile { path: path.into(), digest: Some(digests::write(&sha256::digest(bytes))), ..Default::default() }
}

fn node(bytes: &[u8]) -> api::FileNode {
    api::FileNode { name: "f".into(), digest: Some(digests::write(&sha256::digest(bytes))), ..Default::default() }
}

impl Client {
    async fn update(&mut self, instance: &str, action: Option<api::Digest>, result: &api::ActionResult) -> Code {
        let asked = api::UpdateActionResultRequest {
            instance_name: instance.into(),
            action_digest: action,
            action_result: Some(result.clone()),
            ..Default::default()
        };
        self.actions.update_action_result(asked).await.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    async fn result(&mut self, instance: &str, action: Option<api::Digest>) -> Result<api::ActionResult, Code> {
        let asked =
            api::GetActionResultRequest { instance_name: instance.into(), action_digest: action, ..Default::default() };
        let told = self.actions.get_action_result(asked).await;
        told.map(tonic::Response::into_inner).map_err(|status| status.code())
    }

    async fn put_message(&mut self, message: &impl prost::Message) -> Option<api::Digest> {
        Some(digests::write(&self.put(&message.encode_to_vec()).await))
    }
}

#[tokio::test]
async fn a_result_is_of_its_instance_and_namespace() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let result = api::ActionResult { exit_code: 3, stdout_raw: b"said".to_vec(), ..Default::default() };
    assert_eq!(client.result("", action("a")).await, Err(Code::NotFound));

    assert_eq!(client.update("of/us", action("a"), &result).await, Code::Ok);

    assert_eq!(client.result("of/us", action("a")).await, Ok(result));
    assert_eq!(client.result("of", action("a")).await, Err(Code::NotFound));
    assert_eq!(client.result("of/us", action("b")).await, Err(Code::NotFound));
    assert_eq!(stage.other("other", true).result("of/us", action("a")).await, Err(Code::NotFound));
    let empty = api::ActionResult::default();
    assert_eq!(client.update("", action("c"), &empty).await, Code::Ok);
    assert_eq!(client.result("", action("c")).await, Ok(empty));
}

#[tokio::test]
async fn a_result_of_which_something_is_missing_is_none() {
    let stage = Stage::start().await;
    let tree = api::Tree {
        root: Some(api::Directory { files: vec![node(b"in the root")], ..Default::default() }),
        children: vec![api::Directory { files: vec![node(b"below")], ..Default::default() }],
    };
    let below = api::Directory { files: vec![node(b"deep")], ..Default::default() };
    let below_digest = Some(digests::write(&sha256::digest(&below.encode_to_vec())));
    let directories = vec![api::DirectoryNode { name: "d".into(), digest: below_digest }];
    let root = api::Directory { directories, ..Default::default() };
    let digest_of = |bytes: Vec<u8>| Some(digests::write(&sha256::digest(&bytes)));
    let folder = |tree_digest, root_directory_digest| api::OutputDirectory {
        tree_digest,
        root_directory_digest,
        ..Default::default()
    };
    let result = api::ActionResult {
        output_files: vec![file("a", b"file a"), file("e", b"")],
        output_directories: vec![
            folder(digest_of(tree.encode_to_vec()), action("its root")),
            folder(None, digest_of(root.encode_to_vec())),
        ],
        stdout_digest: action("out"),
        stderr_digest: action("err"),
        ..Default::default()
    };
    let parts = [
        b"file a".to_vec(),
        b"out".to_vec(),
        b"err".to_vec(),
        tree.encode_to_vec(),
        b"in the root".to_vec(),
        b"below".to_vec(),
        b"its root".to_vec(),
        root.encode_to_vec(),
        below.encode_to_vec(),
        b"deep".to_vec(),
    ];
    for (index, part) in parts.iter().enumerate() {
        // Where nothing is yet.
        let mut client = stage.other(&format!("n{index}"), true);
        assert_eq!(client.update("", action("x"), &result).await, Code::Ok);
        for other in parts.iter().filter(|other| *other != part) {
            client.put(other).await;
        }
        assert_eq!(client.result("", action("x")).await, Err(Code::NotFound), "without {part:?}");
        client.put(part).await;
        assert_eq!(client.result("", action("x")).await.as_ref(), Ok(&result));
    }
}

#[tokio::test]
async fn small_contents_come_with_the_result_where_that_is_asked_for() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let large = content(900_000);
    for bytes in [&b"out"[..], b"err", b"file a", b"file b", &large] {
        client.put(bytes).await;
    }
    let result = api::ActionResult {
        output_files: vec![file("a", b"file a"), file("b", b"file b"), file("l", &large), file("m", &large)],
        stdout_digest: action("out"),
        stderr_digest: action("err"),
        ..Default::default()
    };
    client.update("", action("x"), &result).await;

    let asked = api::GetActionResultRequest {
        action_digest: action("x"),
        inline_stdout: true,
        inline_output_files: ["b", "l", "m", "none"].map(Into::into).to_vec(),
        ..Default::default()
    };
    let told = client.actions.get_action_result(asked).await.expect("found").into_inner();

    assert_eq!((told.stdout_raw, told.stderr_raw), (b"out".to_vec(), vec![]));
    let contents: Vec<usize> = told.output_files.iter().map(|file| file.contents.len()).collect();
    assert_eq!(contents, [0, 6, 900_000, 0], "no more than a message holds");
}

#[tokio::test]
async fn what_is_no_result_is_neither_taken_nor_given() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let absurd = api::ActionResult { stdout_raw: vec![0; 5 << 20], ..Default::default() };
    assert_eq!(client.update("", action("x"), &absurd).await, Code::InvalidArgument);
    assert_eq!(client.update("a//b", action("x"), &api::ActionResult::default()).await, Code::InvalidArgument);
    assert_eq!(client.update("", None, &api::ActionResult::default()).await, Code::InvalidArgument);

    // What HTTP put there may be anything.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}/bazel/ac/{}", stage.addr, sha256::digest(b"y").hex());
    let token = stage.token("main", true);
    http.put(url).bearer_auth(token).body("no message of this kind").send().await.expect("an answer");
    assert_eq!(client.result("", action("y")).await, Err(Code::NotFound));
}

#[tokio::test]
async fn a_tree_is_given_as_far_as_it_is_there() {
    let stage = Stage::start().await;
    let mut client = stage.client();
    let below = api::Directory { files: vec![node(b"deep")], ..Default::default() };
    let gone = api::Directory { files: vec![node(b"gone")], ..Default::default() };
    let named = |name: &str, digest| api::DirectoryNode { name: name.into(), digest };
    let below_digest = client.put_message(&below).await;
    let gone_digest = Some(digests::write(&sha256::digest(&gone.encode_to_vec())));
    let root = api::Directory {
        directories: vec![named("a", below_digest.clone()), named("b", below_digest), named("c", gone_digest.clone())],
        ..Default::default()
    };
    let root_digest = client.put_message(&root).await;

    let asked = api::GetTreeRequest { root_digest, ..Default::default() };
    let mut told = client.cas.get_tree(asked).await.expect("found").into_inner();

    let first = told.message().await.expect("whole").expect("one message");
    assert_eq!(first.directories, [root, below]);
    assert_eq!(told.message().await.expect("whole"), None);
    let asked = api::GetTreeRequest { root_digest: gone_digest, ..Default::default() };
    assert_eq!(client.cas.get_tree(asked).await.map(drop).expect_err("gone").code(), Code::NotFound);
}
