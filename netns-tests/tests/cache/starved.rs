//! A `mesh` whose descriptors run out: it answers less, and loses nothing.

use std::process::Command;

use netns_tests::stage::Home;
use reqwest::{Client, StatusCode};

/// From now on it may have so many descriptors open.
fn limit(home: &Home, descriptors: usize) {
    let pid = home.process.pid().to_string();
    let status =
        Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={descriptors}:4096")]).status().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn too_few_descriptors_are_no_damage() {
    // Somebody else may have chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let http = Client::builder().no_proxy().pool_max_idle_per_host(1).build().unwrap();
    let (url, token) = (home.variable("MESH_CACHE_URL").unwrap(), home.variable("MESH_CACHE_TOKEN").unwrap());
    let url = format!("{url}/webdav/large");
    http.put(&url).bearer_auth(&token).body(vec![b'x'; 900_000]).send().await.unwrap();
    let get = || async { http.get(&url).bearer_auth(&token).send().await.unwrap().bytes().await.unwrap().len() };
    assert_eq!(get().await, 900_000);

    // What is open stays open; nothing more is.
    limit(&home, 3);
    let starved = http.get(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(starved.status(), StatusCode::NOT_FOUND, "its file cannot be opened");
    starved.bytes().await.unwrap();
    limit(&home, 1024);

    assert_eq!(get().await, 900_000);
    assert_eq!(home.stats().unwrap()["damaged"], 0);
}
