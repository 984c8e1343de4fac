//! Several runners of one run on this machine's loopback, each with its own store, and one that lies.

mod hostile;

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU16;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::cache::Cache;
use crate::link::ports::Ports;
use crate::proto::overlay::Prefix;

/// A test that waits longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);

const BUDGET: u64 = 1 << 30;
const PORT: u16 = 7077;

/// A network of loopback addresses that no other test has.
fn overlay() -> Prefix {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) as u8;
    let process = (std::process::id() % 200) as u8;
    Prefix::new(Ipv4Addr::new(127, 20 + process, number, 0), 24)
}

fn tokens() -> Tokens {
    Tokens::new([[7; 32]])
}

fn dialer(overlay: Prefix, role: Role) -> Dialer {
    Dialer { ports: Ports::Kernel(overlay.address(role).expect("an address")), overlay, port: PORT }
}

/// One of them, on threads of its own: so it can end at any moment.
struct Runner {
    runtime: Option<Runtime>,
    peers: Peers,
    cache: Cache,
    store: Arc<Store>,
    folder: TempDir,
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Runner {
    fn start(overlay: Prefix, own: Role) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(folder.path(), BUDGET).expect("a store"));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let peers = {
            let _inside = runtime.enter();
            let dialer = dialer(overlay, own);
            let listener = dialer.ports.listen(PORT).expect("a port");
            Peers::start(Config { own, run: 1, tokens: tokens(), dialer }, Arc::clone(&store), listener)
        };
        let cache = Cache::new(Arc::clone(&store), Some(peers.clone()));
        Self { runtime: Some(runtime), peers, cache, store, folder }
    }

    fn put(&self, name: &Name, bytes: &[u8]) {
        let digest = self.store.put(bytes).expect("there is room");
        self.cache.set(name, digest, Bytes::new(), true).expect("there is room");
    }

    async fn get(&self, name: &Name) -> Option<Vec<u8>> {
        let peers = self.peers.clone();
        let runtime = self.runtime.as_ref().expect("it runs");
        let (cache, name) = (Cache::new(Arc::clone(&self.store), Some(peers)), name.clone());
        let found = runtime.spawn(async move { cache.find(&name).await }).await.expect("no panic");
        let (record, blob) = found?;
        let mut bytes = vec![];
        while bytes.len() < record.digest.size as usize {
            bytes.extend_from_slice(&blob.read(bytes.len() as u64).expect("it is sound"));
        }
        Some(bytes)
    }

    fn members(&self) -> u64 {
        self.peers.stats().members
    }
}

/// A primary and so many aux, each of which knows all.
async fn run(aux: u16) -> Vec<Runner> {
    let overlay = overlay();
    let roles = std::iter::once(Role::Primary).chain((0..aux).map(Role::Aux));
    let runners: Vec<Runner> = roles.map(|role| Runner::start(overlay, role)).collect();
    acquainted(&runners).await;
    runners
}

async fn acquainted(runners: &[Runner]) {
    for runner in runners {
        runner.runtime.as_ref().expect("it runs").block_on_later(&runner.peers);
    }
    eventually("all know all", async || {
        runners.iter().all(|runner| {
            let inner = &runner.peers.0;
            let others = inner.member_roles().into_iter().filter(|role| *role != inner.own);
            let there = others.filter_map(|role| inner.peer(role)).filter(|peer| peer.is_good()).count();
            there == runners.len() - 1
        })
    })
    .await;
}

/// Begins to listen to everyone.
trait Later {
    fn block_on_later(&self, peers: &Peers);
}

impl Later for Runtime {
    fn block_on_later(&self, peers: &Peers) {
        let _inside = self.enter();
        peers.warm_up();
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"));
}

fn name(text: &str) -> Name {
    Name::new("test", text).expect("a name")
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 / 7 + at / 1000) as u8).collect()
}

#[tokio::test]
async fn what_one_runner_sets_every_other_finds() {
    let runners = run(3).await;

    for (at, len) in [1, 5_000, 64 << 10, (64 << 10) + 1, 3_000_000].into_iter().enumerate() {
        let (name, content) = (name(&format!("name {at}")), bytes(len));
        runners[at % 4].put(&name, &content);
        for runner in &runners {
            eventually("found", async || runner.get(&name).await.as_ref() == Some(&content)).await;
        }
    }
    assert_eq!(runners.iter().map(|runner| runner.peers.stats().wrong).sum::<u64>(), 0);
}

#[tokio::test]
async fn nobody_is_asked_for_what_surely_nobody_has() {
    let runners = run(2).await;

    for at in 0..200 {
        assert_eq!(runners[1].get(&name(&format!("absent {at}"))).await, None);
    }

    let stats = runners[1].peers.stats();
    assert!(stats.known_misses >= 190, "{stats:?}");
}

#[tokio::test]
async fn of_two_values_all_come_to_the_later_one() {
    let runners = run(2).await;
    let name = name("again");

    for round in 0..5_u8 {
        let content = vec![round; 100 + usize::from(round)];
        runners[usize::from(round) % 3].put(&name, &content);
        for runner in &runners {
            eventually("the later one", async || runner.get(&name).await.as_ref() == Some(&content)).await;
        }
    }
}

#[tokio::test]
async fn two_writers_at_once_come_to_one_value() {
    let runners = run(3).await;

    for round in 0..10 {
        let name = name(&format!("contended {round}"));
        for (at, runner) in runners.iter().enumerate() {
            runner.put(&name, format!("of {at}").as_bytes());
        }
        eventually("one value", async || {
            let mut found = vec![];
            for runner in &runners {
                found.push(runner.get(&name).await);
            }
            found[0].is_some() && found.iter().all(|value| *value == found[0])
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_removed_is_found_no_more() {
    let runners = run(2).await;
    let name = name("removed");
    runners[0].put(&name, b"content");
    for runner in &runners {
        eventually("found", async || runner.get(&name).await.is_some()).await;
    }

    assert!(runners[0].cache.remove(&name).await);

    for runner in &runners {
        eventually("removed", async || runner.get(&name).await.is_none()).await;
    }
}

#[tokio::test]
async fn a_large_blob_leaves_its_origin_about_once_however_many_want_it() {
    let runners = run(6).await;
    let (name, content) = (name("large"), bytes(40_000_000));
    runners[0].put(&name, &content);
    for runner in &runners {
        eventually("known", async || runner.peers.look(std::slice::from_ref(&name)).await[0].is_some()).await;
    }

    let mut tasks = tokio::task::JoinSet::new();
    for runner in &runners[1..] {
        let (peers, name) = (runner.peers.clone(), name.clone());
        let handle = runner.runtime.as_ref().expect("it runs").handle().clone();
        tasks.spawn(
            async move { handle.spawn(async move { peers.find(&name).await.is_some() }).await.expect("no panic") },
        );
    }
    let found = tokio::time::timeout(DEADLINE, tasks.join_all()).await.expect("in time");

    assert_eq!(found, [true; 6]);
    let sent: Vec<u64> = runners.iter().map(|runner| runner.peers.stats().sent_bytes).collect();
    assert!(sent[0] <= content.len() as u64 + (12 << 20), "each sent {sent:?}");
}

#[tokio::test]
async fn of_a_blob_that_its_holder_has_lost_the_homes_are_told() {
    let runners = run(2).await;
    let (name, content) = (name("lost"), bytes(300_000));
    let holder = runners.iter().find(|runner| !runner.peers.0.homes(&name.hash()).contains(&runner.peers.0.own));
    let holder = holder.expect("one that is no home");
    holder.put(&name, &content);
    let homes: Vec<&Runner> = runners.iter().filter(|runner| runner.peers.0.own != holder.peers.0.own).collect();
    eventually("told", async || homes.iter().all(|home| home.peers.0.known(&name.hash()).is_some())).await;
    let digest = holder.store.record(&name).expect("it is there").digest;
    let file = holder.folder.path().join("files").join(&digest.hex()[..2]).join(digest.hex());
    std::fs::remove_file(file).expect("a file of its own");

    assert_eq!(homes[0].get(&name).await, None);

    eventually("it is known", async || homes.iter().all(|home| home.peers.0.known(&name.hash()).is_none())).await;
}

#[tokio::test]
async fn a_home_that_was_away_is_told_what_it_has_missed() {
    let mut runners = run(1).await;
    let names: Vec<Name> = (0..40).map(|at| name(&format!("early {at}"))).collect();
    names.iter().for_each(|name| runners[0].put(name, name.name().as_bytes()));
    let overlay = runners[0].peers.0.dialer.overlay;

    // Its place is taken by one that knows nothing, before it has been missed.
    drop(runners.pop());
    runners.push(Runner::start(overlay, Role::Aux(0)));

    eventually("it is told", async || names.iter().all(|name| runners[1].store.record(name).is_some())).await;
}

#[tokio::test]
async fn who_comes_later_finds_what_was_there_and_becomes_a_home() {
    let overlay = overlay();
    let mut runners: Vec<Runner> = [Role::Primary, Role::Aux(0)].map(|role| Runner::start(overlay, role)).into();
    acquainted(&runners).await;
    let names: Vec<Name> = (0..60).map(|at| name(&format!("early {at}"))).collect();
    names.iter().for_each(|name| runners[1].put(name, name.name().as_bytes()));
    eventually("the primary knows all", async || runners[0].peers.look(&names).await.iter().all(Option::is_some)).await;

    runners.push(Runner::start(overlay, Role::Aux(1)));
    acquainted(&runners).await;

    for name in &names {
        eventually("found", async || runners[2].get(name).await.as_deref() == Some(name.name().as_bytes())).await;
    }
    let own = runners[2].peers.0.homes(&names[0].hash());
    assert_eq!(own.len(), 2);
    eventually("some are at home there", async || {
        names.iter().filter(|name| runners[2].store.record(name).is_some()).count() > 20
    })
    .await;
}

#[tokio::test]
async fn what_only_a_leaving_runner_has_is_handed_on() {
    let mut runners = run(2).await;
    let contents: Vec<(Name, Vec<u8>)> = (0..4).map(|at| (name(&format!("large {at}")), bytes(200_000 + at))).collect();
    contents.iter().for_each(|(name, content)| runners[2].put(name, content));
    let names: Vec<Name> = contents.iter().map(|(name, _)| name.clone()).collect();
    eventually("known", async || runners[0].peers.look(&names).await.iter().all(Option::is_some)).await;

    let (peers, runtime) = (runners[2].peers.clone(), runners[2].runtime.as_ref().expect("it runs").handle().clone());
    let taken = runtime.spawn(async move { peers.hand_over().await }).await.expect("no panic");
    assert_eq!(taken, 4);
    drop(runners.pop());

    eventually("it is missed", async || runners.iter().all(|runner| runner.members() == 2)).await;
    for (name, content) in &contents {
        for runner in &runners {
            eventually("found", async || runner.get(name).await.as_ref() == Some(content)).await;
        }
    }
}

#[tokio::test]
async fn who_leaves_just_after_another_hands_on_all_to_whoever_stays() {
    let mut runners = run(3).await;
    let contents: Vec<(Name, Vec<u8>)> = (0..8).map(|at| (name(&format!("large {at}")), bytes(200_000 + at))).collect();
    contents.iter().for_each(|(name, content)| runners[2].put(name, content));
    drop(runners.pop());

    let (peers, runtime) = (runners[2].peers.clone(), runners[2].runtime.as_ref().expect("it runs").handle().clone());
    let taken = runtime.spawn(async move { peers.hand_over().await }).await.expect("no panic");
    assert_eq!(taken, 8, "the one that has gone is a member still, and should have had some of them");
    drop(runners.pop());

    for (name, content) in &contents {
        for runner in &runners {
            eventually("found", async || runner.get(name).await.as_ref() == Some(content)).await;
        }
    }
}

#[tokio::test]
async fn of_many_that_want_what_is_not_there_one_makes_it() {
    let runners = run(3).await;
    let name = name("expensive");
    let made = Arc::new(AtomicU64::new(0));

    let mut tasks = tokio::task::JoinSet::new();
    for runner in &runners {
        let (peers, store, name, made) =
            (runner.peers.clone(), Arc::clone(&runner.store), name.clone(), Arc::clone(&made));
        let handle = runner.runtime.as_ref().expect("it runs").handle().clone();
        tasks.spawn(async move {
            let work = async move {
                match peers.turn(&name).await {
                    Turn::Ours(lease) => {
                        made.fetch_add(1, Ordering::Relaxed);
                        let cache = Cache::new(Arc::clone(&store), Some(peers.clone()));
                        let digest = store.put(b"made").expect("there is room");
                        cache.set(&name, digest, Bytes::new(), true).expect("there is room");
                        // It is at its homes before the next one's turn.
                        while peers.look(std::slice::from_ref(&name)).await[0].is_none() {}
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        drop(lease);
                        true
                    }
                    Turn::Made => peers.find(&name).await.is_some() || store.record(&name).is_some(),
                    Turn::Alone => false,
                }
            };
            handle.spawn(work).await.expect("no panic")
        });
    }
    let done = tokio::time::timeout(DEADLINE, tasks.join_all()).await.expect("in time");

    assert_eq!(done, [true; 4]);
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn when_who_makes_it_dies_the_next_one_does() {
    let mut runners = run(2).await;
    let name = name("abandoned");
    let homes = runners[0].peers.0.homes(&name.hash());
    // Neither the home, nor who waits.
    let at = (0..3).rev().find(|at| runners[*at].peers.0.own != homes[0]).expect("one that is not its home");
    let dying = runners.remove(at);
    let (peers, of_it) = (dying.peers.clone(), name.clone());
    let handle = dying.runtime.as_ref().expect("it runs").handle().clone();
    let first = handle.spawn(async move { peers.turn(&of_it).await }).await.expect("no panic");
    assert!(matches!(first, Turn::Ours(_)));

    let next = runners.iter().find(|runner| runner.peers.0.own != homes[0]).expect("another");
    let peers = next.peers.clone();
    let waiting = next.runtime.as_ref().expect("it runs").spawn(async move { peers.turn(&name).await });
    drop(dying);

    let turn = tokio::time::timeout(DEADLINE, waiting).await.expect("in time").expect("no panic");
    assert!(matches!(turn, Turn::Ours(_)), "{turn:?}");
}

#[tokio::test]
async fn without_the_tokens_of_the_run_nobody_is_answered() {
    let overlay = overlay();
    let _runner = Runner::start(overlay, Role::Primary);
    for header in ["Bearer x", "", &format!("Bearer {}", Tokens::new([[8; 32]]).peer_header())] {
        let dialer = dialer(overlay, Role::Aux(0));
        let peer = Peer::new(Role::Primary, Role::Aux(0), &dialer, header).expect("an address");
        let refused = [
            peer.watch(Role::Aux(0)).await.map(drop).map_err(|status| status.code()),
            peer.get(&name("a"), DEADLINE).await.map(drop).map_err(|status| status.code()),
            peer.look(&[[1; 32]], DEADLINE).await.map(drop).map_err(|status| status.code()),
            peer.read(&Digest::EMPTY, 0, false).await.map(drop).map_err(|status| status.code()),
        ];
        assert_eq!(refused, [Err(tonic::Code::Unauthenticated); 4], "{header}");
    }
}
