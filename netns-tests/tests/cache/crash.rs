//! A `mesh` that is killed while it stores: whatever it acknowledged is there when the next one starts, and nothing is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use reqwest::{Client, StatusCode};

use netns_tests::stage::Home;

/// How often it is killed: so often, or as `MESH_ROUNDS` says.
const ROUNDS: usize = 25;

/// So often in one folder: much less than the cache may take, so that nothing has to go.
const LIVES: usize = 25;

/// Names that are set again and again, by so many clients at once.
const NAMES: u32 = 40;
const CLIENTS: u32 = 4;

/// It ends at once.
const SOON: Duration = Duration::from_secs(40);

/// Killed within this time.
const LIFE: Duration = Duration::from_millis(150);

fn rounds() -> usize {
    std::env::var("MESH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// Where the cache answers, and the token it asks for.
fn door(home: &Home) -> (String, String) {
    (home.variable("MESH_CACHE_URL").unwrap(), home.variable("MESH_CACHE_TOKEN").unwrap())
}

/// What a version of a name holds: small, around the border, or large; nothing else has the same bytes.
fn content(name: u32, version: u32) -> Vec<u8> {
    let mut chance = StdRng::seed_from_u64(u64::from(name) << 32 | u64::from(version));
    let len = [100, 4000, 131_000, 132_000, 700_000][chance.random_range(0..5)];
    let mut bytes = vec![0; len];
    chance.fill_bytes(&mut bytes);
    bytes
}

/// The last version of a name that was acknowledged, and the last that was sent.
type Versions = BTreeMap<u32, (u32, u32)>;

/// Sets names of its own until nobody answers any more.
async fn store(url: String, token: String, client: u32, mut versions: Versions) -> Versions {
    let http = Client::builder().no_proxy().build().unwrap();
    for turn in 0.. {
        let name = client + CLIENTS * (turn % (NAMES / CLIENTS));
        let (acknowledged, sent) = versions.entry(name).or_default();
        *sent += 1;
        let put = http.put(format!("{url}/webdav/{name}")).bearer_auth(&token).body(content(name, *sent)).send().await;
        match put {
            Ok(answer) => {
                assert!(answer.status().is_success(), "{}", answer.status());
                *acknowledged = *sent;
            }
            Err(_) => break,
        }
    }
    versions
}

/// Every name has its last acknowledged version or a later one that was sent.
async fn check(url: &str, token: &str, versions: &mut Versions) {
    let http = Client::builder().no_proxy().build().unwrap();
    for (name, (acknowledged, sent)) in versions {
        let answer = http.get(format!("{url}/webdav/{name}")).bearer_auth(token).send().await.unwrap();
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap();
        let found = (*acknowledged..=*sent).find(|version| *version > 0 && content(*name, *version) == bytes);
        match found {
            Some(version) => *acknowledged = version,
            None => assert!(
                *acknowledged == 0 && status == StatusCode::NOT_FOUND,
                "{name}: of the versions {acknowledged} to {sent} none is there, but {status} with {} bytes",
                bytes.len()
            ),
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill_in_mid_write() {
    // Somebody else may have chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut chance = StdRng::seed_from_u64(1);
    let mut left = rounds();
    while left > 0 {
        let lives = left.min(LIVES);
        left -= lives;
        live_and_die(lives, &mut chance).await;
    }
}

async fn live_and_die(lives: usize, chance: &mut StdRng) {
    let folder = tempfile::tempdir().unwrap();
    let mut versions = Versions::new();
    for _ in 0..lives {
        let mut home = Home::start(folder.path()).unwrap();
        let (url, token) = door(&home);
        check(&url, &token, &mut versions).await;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let own =
                    versions.iter().filter(|(name, _)| *name % CLIENTS == client).map(|(name, known)| (*name, *known));
                tokio::spawn(store(url.clone(), token.clone(), client, own.collect()))
            })
            .collect();
        // The moment is what is tried.
        tokio::time::sleep(chance.random_range(Duration::ZERO..LIFE)).await;
        home.process.signal(Signal::SIGKILL).unwrap();
        home.process.wait(SOON).unwrap();
        for client in clients {
            versions.extend(client.await.unwrap());
        }
    }
    let stored: u32 = versions.values().map(|(acknowledged, _)| acknowledged).sum();
    let home = Home::start(folder.path()).unwrap();
    let (url, token) = door(&home);
    check(&url, &token, &mut versions).await;

    assert!(stored as usize > 4 * lives, "only {stored} were stored in {lives} lives");
    assert_eq!(home.stats().unwrap()["damaged"], 0, "a kill damages nothing");
}
