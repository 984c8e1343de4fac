//! A `mesh` whose descriptors run out: it answers less, and loses nothing.

use std::process::Command;

use netns_tests::stage::{Home, alone};
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

#[test]
fn with_too_few_descriptors_to_begin_with_nothing_panics() {
    let folder = tempfile::tempdir().unwrap();
    let mut without_cache = 0;
    for descriptors in 12..40 {
        let mesh = alone(folder.path()).unwrap();
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={descriptors}"))
            .arg(mesh.get_program())
            .args(mesh.get_args())
            .args(["--", "true"]);
        command.envs(mesh.get_envs().filter_map(|(name, value)| Some((name, value?))));

        let output = command.output().unwrap();

        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{descriptors}: {said}");
        without_cache += u32::from(said.contains("M801"));
    }
    assert!(without_cache > 0, "it was never the cache that could not begin");
}
