//! What `mesh doctor` asks of STUN servers and relays, each as a running mesh would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::super::env;
use super::super::primary::until;
use super::super::resolve::resolve;
use crate::config::CommonArgs;
use crate::link::clock;
use crate::link::socket::Socket;
use crate::link::sockets::Sockets;
use crate::proto::filtering::{Filtering, FilteringTest};
use crate::proto::nat::{Behaviour, Sample};
use crate::proto::relay_client::RelayClient;
use crate::proto::role::Role;
use crate::proto::route::SocketId;
use crate::proto::stun::StunClient;
use crate::proto::transmit::Transmit;

/// STUN settles after 3 s, twice where the mapping depends on the destination; a bound on top, in case the clock jumps.
const DEADLINE: Duration = Duration::from_secs(8);

/// How long a relay may take to answer twice.
const RELAY: Duration = Duration::from_secs(2);

/// What each server sees of our sockets; `local` is the port of the main one.
pub(super) async fn mapping(sockets: &mut Sockets, servers: &[SocketAddr], local: u16) -> Vec<Sample> {
    let mut rng = ChaCha20Rng::from_os_rng();
    let mut client = StunClient::new(clock::now(), servers, local, &mut rng);
    let mut buffer = [0; 2048];
    let rounds = async {
        loop {
            while let Some((socket, to, bytes)) = client.poll_transmit(clock::now()) {
                let _ = sockets.send(&Transmit { socket, to, ttl: None, bytes });
            }
            if client.handle_timeout(clock::now(), &mut rng) {
                if client.is_surveyed() || !Behaviour::classify(&client.samples()).is_dependent() {
                    return;
                }
                client.survey(clock::now(), &mut rng);
                continue;
            }
            tokio::select! {
                () = until(client.poll_timeout()) => {}
                ready = sockets.readable() => if let Ok(id) = ready {
                    while let Ok(Some(received)) = sockets.try_receive(id, &mut buffer) {
                        for datagram in received.datagrams(&buffer) {
                            client.handle_response(clock::now(), id, received.from, datagram);
                        }
                    }
                }
            }
        }
    };
    let _ = tokio::time::timeout(DEADLINE, rounds).await;
    client.samples()
}

/// Whether each relay of the user's own takes us.
pub(super) async fn relays(common: &CommonArgs) -> BTreeMap<String, bool> {
    let mut asked = tokio::task::JoinSet::new();
    for name in common.relay.clone() {
        let keys = common.keys(env()).ok();
        asked.spawn(async move {
            let found = resolve(std::slice::from_ref(&name)).await;
            let (Some(server), Some(keys)) = (found.first().copied(), keys) else { return (name, false) };
            let Some(key) = keys.iter().next() else { return (name, false) };
            let mut rng = ChaCha20Rng::from_os_rng();
            // A run that nobody is in, so that no runner loses its place to us.
            let nowhere = rng.random();
            let client =
                RelayClient::new(clock::now(), server, key.key_id(), key.relay(), nowhere, Role::Primary, &mut rng);
            (name, tokio::time::timeout(RELAY, register(client, rng)).await.unwrap_or(false))
        });
    }
    asked.join_all().await.into_iter().collect()
}

async fn register(mut client: RelayClient, mut rng: ChaCha20Rng) -> bool {
    let Ok(mut socket) = Socket::bind(0) else { return false };
    let mut buffer = [0; 2048];
    while !client.is_registered() {
        if let Some(bytes) = client.poll_transmit(clock::now(), &mut rng) {
            let _ = socket.send(&Transmit { socket: SocketId::MAIN, to: client.server(), ttl: None, bytes });
        }
        tokio::select! {
            () = until(Some(client.poll_timeout())) => {}
            _ = socket.readable() => {
                while let Ok(Some(received)) = socket.try_receive(&mut buffer) {
                    for datagram in received.datagrams(&buffer) {
                        client.handle_answer(clock::now(), datagram);
                    }
                }
            }
        }
    }
    true
}

/// How often the questions about filtering are put, and how far apart.
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_millis(400);

/// The first server that can tell decides. Each is asked from a socket of its own.
pub(super) async fn filtering(servers: &[SocketAddr]) -> Filtering {
    let asked = servers.iter().map(|server| ask_filtering(*server));
    let mut verdicts = tokio::task::JoinSet::new();
    asked.for_each(|verdict| drop(verdicts.spawn(verdict)));
    let verdicts = verdicts.join_all().await;
    verdicts.into_iter().find(|verdict| *verdict != Filtering::Unknown).unwrap_or_default()
}

async fn ask_filtering(server: SocketAddr) -> Filtering {
    let Ok(mut socket) = Socket::bind(0) else { return Filtering::Unknown };
    let mut test = FilteringTest::new(server, &mut ChaCha20Rng::from_os_rng());
    let mut buffer = [0; 2048];
    for _ in 0..ROUNDS {
        for (to, bytes) in test.questions() {
            let _ = socket.send(&Transmit { socket: SocketId::MAIN, to, ttl: None, bytes });
        }
        let answers = async {
            while !test.is_done() && socket.readable().await.is_ok() {
                while let Ok(Some(received)) = socket.try_receive(&mut buffer) {
                    received.datagrams(&buffer).for_each(|datagram| test.handle_response(datagram));
                }
            }
        };
        let _ = tokio::time::timeout(ROUND, answers).await;
        if test.is_done() {
            break;
        }
    }
    test.verdict()
}
