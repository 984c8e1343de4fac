//! Who passes datagrams on for whom: frames that come, frames that go, and who is worth asking. The frame itself is in
//! [`super::super::relay`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use rand_chacha::ChaCha20Rng;

use super::super::batch::Batch;
use super::super::output::Relayed;
use super::super::peer::Peer;
use super::super::relay::{self, Head, SERVER};
use super::super::relay_client::RelayClient;
use super::super::role::Role;
use super::super::route::{Relay, Route, SocketId};
use super::super::transmit::Transmit;
use super::{Config, Node};

/// How many other aux an aux asks to be passed on to the primary; the fastest.
const MOST_ASKED: usize = 4;

/// A registration with each of the user's relays, by the current shared key.
pub(super) fn clients(now: Instant, config: &Config, rng: &mut ChaCha20Rng) -> Vec<RelayClient> {
    let Some(keys) = config.keys.iter().next() else { return vec![] };
    let client = |server: &SocketAddr| {
        RelayClient::new(now, *server, keys.key_id(), keys.relay(), keys.run_id(), config.role, rng)
    };
    config.relays.iter().map(client).collect()
}

impl Node {
    /// Takes a frame: passes it on, or takes what is inside.
    pub(super) fn handle_frame(&mut self, now: Instant, from: SocketAddr, frame: &[u8]) {
        let Some(head) = relay::head(frame) else { return self.drop_one("relay frame that is malformed") };
        if head.by == SERVER {
            return self.handle_frame_of_server(now, from, frame);
        }
        let hop = Role::from_number(head.by).and_then(|by| self.peers.get(&by));
        let Some((by, datagram)) = hop.and_then(|peer| Some((peer.role(), relay::open(frame, &peer.hops().receive)?)))
        else {
            return self.drop_one("relay frame that is not authentic");
        };
        if head.to == self.config.role && head.relayed && head.from != by {
            self.handle_sealed(now, Route::Relayed(Relay::Peer(by)), Some(head.from), datagram);
        } else if head.to != self.config.role && !head.relayed && head.from == by {
            self.pass_on(head, datagram);
        } else {
            self.drop_one("relay frame that goes in circles");
        }
    }

    /// Puts frames around what is to be relayed. What has nobody to relay it any more is dropped, as a network does.
    pub(super) fn frame_relayed(&mut self) {
        while let Some(Relayed { by, to, bytes }) = self.out.relayed.pop_front() {
            let (from, number) = (self.config.role, self.config.role.number());
            let framed = match by {
                Relay::Server(at) => {
                    self.relays.get(usize::from(at)).map(|relay| (relay.server(), relay.seal(to, &bytes)))
                }
                Relay::Peer(role) => self.peers.get(&role).and_then(|peer| {
                    let Route::Direct { addr, .. } = peer.route()? else { return None };
                    let head = Head { from, to, by: number, relayed: false };
                    Some((addr, relay::seal(head, &bytes, &peer.hops().send)))
                }),
            };
            let socket = match by {
                Relay::Peer(role) => self.peers.get(&role).and_then(direct_socket).unwrap_or(SocketId::MAIN),
                Relay::Server(_) => SocketId::MAIN,
            };
            match framed {
                Some((addr, bytes)) => self.out.transmits.push_back(Transmit { socket, to: addr, ttl: None, bytes }),
                None => self.drop_one("datagram whose relay is out of reach"),
            }
        }
    }

    /// Where a batch goes. One that is to be relayed gets its frames.
    pub(super) fn address(&self, batch: &mut Batch) -> Option<(SocketId, SocketAddr)> {
        let by = match batch.route {
            Route::Direct { socket, addr } => return Some((socket, addr)),
            Route::Relayed(by) => by,
        };
        let to = batch.to;
        match by {
            Relay::Server(at) => {
                let relay = self.relays.get(usize::from(at))?;
                batch.datagrams_mut().for_each(|frame| relay.write(to, frame));
                Some((SocketId::MAIN, relay.server()))
            }
            Relay::Peer(role) => {
                let peer = self.peers.get(&role)?;
                let Route::Direct { socket, addr } = peer.route()? else { return None };
                let head = Head { from: self.config.role, to, by: self.config.role.number(), relayed: false };
                batch.datagrams_mut().for_each(|frame| relay::write(head, frame, &peer.hops().send));
                Some((socket, addr))
            }
        }
    }

    /// Tells the peers who can relay, where that has changed: by a server, or by one of the peers that are `in_question`.
    pub(super) fn update_relays(&mut self, now: Instant, in_question: &[Role]) {
        if !self.is_able_changed(in_question) {
            return;
        }
        let servers = self.relays.iter().enumerate().filter(|(_, relay)| relay.is_registered());
        let servers = servers.filter_map(|(at, _)| u8::try_from(at).ok()).map(Relay::Server);
        let peers = self.peers.values().filter(|peer| peer.can_relay()).map(|peer| Relay::Peer(peer.role()));
        let able: BTreeSet<Relay> = servers.chain(peers).collect();
        let fresh: Vec<Relay> = able.difference(&self.able).copied().collect();
        self.able = able;
        for relay in fresh {
            if let Relay::Peer(helper) = relay {
                self.recruit(now, helper);
            }
        }
        let roles: Vec<Role> = self.peers.keys().copied().collect();
        roles.into_iter().for_each(|role| self.offer_relays(now, role));
    }

    fn is_able_changed(&self, in_question: &[Role]) -> bool {
        let server = |(at, relay): (usize, &RelayClient)| {
            u8::try_from(at).is_ok_and(|at| relay.is_registered() != self.able.contains(&Relay::Server(at)))
        };
        let peer = |role: &Role| {
            self.peers.get(role).is_some_and(|peer| peer.can_relay() != self.able.contains(&Relay::Peer(*role)))
        };
        self.relays.iter().enumerate().any(server) || in_question.iter().any(peer)
    }

    /// Tells one peer.
    pub(super) fn offer_relays(&mut self, now: Instant, role: Role) {
        let asking = self.worth_asking(role);
        if let Some(peer) = self.peers.get_mut(&role) {
            peer.set_relays(now, &self.able, asking);
        }
    }

    /// Every relay of the user's; for another aux the primary, who knows all; for the primary the nearest of the aux that are known. The
    /// primary itself asks nobody: whoever can relay will be heard.
    fn worth_asking(&self, role: Role) -> BTreeSet<Relay> {
        let is_server = |relay: &&Relay| matches!(relay, Relay::Server(_));
        let mut asking: BTreeSet<Relay> = self.able.iter().filter(is_server).copied().collect();
        match (self.config.role, role) {
            (Role::Primary, _) => {}
            (Role::Aux(_), Role::Primary) => {
                let mut aux: Vec<&Peer> = self.peers.values().filter(|peer| peer.can_relay()).collect();
                aux.sort_by_key(|peer| peer.rtt());
                asking.extend(
                    aux.iter().filter(|peer| peer.role() != role).take(MOST_ASKED).map(|peer| Relay::Peer(peer.role())),
                );
            }
            (Role::Aux(_), Role::Aux(_)) => {
                asking.extend([Relay::Peer(Role::Primary)].into_iter().filter(|relay| self.able.contains(relay)));
            }
        }
        asking
    }

    fn handle_frame_of_server(&mut self, now: Instant, from: SocketAddr, frame: &[u8]) {
        let relay = self.relays.iter().enumerate().find(|(_, relay)| relay.server() == from);
        let Some((at, (origin, datagram))) = relay.and_then(|(at, relay)| Some((at, relay.open(frame)?))) else {
            return self.drop_one("relay frame that is not authentic");
        };
        let route = Route::Relayed(Relay::Server(u8::try_from(at).unwrap_or(u8::MAX)));
        self.handle_sealed(now, route, Some(origin), datagram);
    }

    /// Only over a direct path: one hop, no loops.
    fn pass_on(&mut self, head: Head, datagram: &[u8]) {
        let to = self.peers.get(&head.to).filter(|peer| peer.can_relay());
        let Some((peer, Route::Direct { socket, addr })) = to.and_then(|peer| Some((peer, peer.route()?))) else {
            return self.drop_one("relay frame for somebody out of reach");
        };
        let head = Head { by: self.config.role.number(), relayed: true, ..head };
        let (route, len) = (Route::Direct { socket, addr }, relay::OVERHEAD + datagram.len());
        self.out.batches.add(head.to, route, len, |frame| {
            frame.get_mut(relay::OVERHEAD..)?.copy_from_slice(datagram);
            relay::write(head, frame, &peer.hops().send);
            Some(len)
        });
        self.relayed.0 += 1;
        self.relayed.1 += datagram.len() as u64;
    }
}

fn direct_socket(peer: &Peer) -> Option<SocketId> {
    match peer.route()? {
        Route::Direct { socket, .. } => Some(socket),
        Route::Relayed(_) => None,
    }
}
