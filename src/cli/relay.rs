//! `mesh relay`: passes datagrams between runners that cannot reach each other, on a machine of the user's own with a public address. What is
//! inside stays sealed; who may use it is decided in `proto::relay_server`.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::actions::{say, warn};
use super::network::warn_one_by_one;
use super::signals::{Signals, exit_code};
use super::{Outcome, env};
use crate::config::{RelayArgs, context};
use crate::link::clock;
use crate::link::socket::{Room, made};
use crate::link::sockets::{Sent, Sockets};
use crate::privilege;
use crate::proto::batch::{Batches, Bulk};
use crate::proto::key::Secret;
use crate::proto::relay_server::{Counts, Outgoing, RelayServer};
use crate::proto::route::{Route, SocketId};
use crate::proto::transmit::Transmit;
use crate::report::bytes;

/// How often silent runners are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// How often a relay that is in use says so.
const PROGRESS: Duration = Duration::from_secs(60);

/// Reads before what was read is sent: each may bring 64 KiB.
const TURN: usize = 8;

/// The largest datagram read.
const BUFFER: usize = 64 * 1024;

/// Runs the verb until a signal ends it.
pub(super) async fn run(args: RelayArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let keys = args.key.keys(env(), &context(env(), None))?;
    for name in keys.passphrases() {
        warn(&format!("the {name} is a passphrase: `mesh keygen` prints a key that nobody can guess"));
    }
    let sockets = Sockets::bind_one(args.listen)?;
    privilege::drop_all_capabilities();
    say(&format!("relay on UDP port {}; runners of the same key reach it with --relay ADDRESS:{0}", sockets.port()));
    let keys = keys.iter().map(|keys| (keys.key_id(), keys.relay())).collect();
    let server = RelayServer::new(clock::now(), keys, Secret(rand::rng().random()));
    let mut relay = Relay { server, sockets, batches: Batches::default(), stalled: None, lost: 0, one_by_one: false };
    let signal = relay.serve(&mut signals).await;
    say(&relay.summary());
    Ok(exit_code(signal))
}

struct Relay {
    server: RelayServer,
    sockets: Sockets,
    batches: Batches,
    /// What the full socket did not take yet, and what tells when it does. Meanwhile nothing is read: what comes waits in the system, or is
    /// lost there, as in any router.
    stalled: Option<(Bulk, Room)>,
    lost: u64,
    /// Whether it was told that batches are refused.
    one_by_one: bool,
}

impl Relay {
    async fn serve(&mut self, signals: &mut Signals) -> nix::sys::signal::Signal {
        let (mut look, mut progress) = (tokio::time::interval(LOOK), tokio::time::interval(PROGRESS));
        let (mut buffer, mut told) = (vec![0; BUFFER], Counts::default());
        let mut rng = ChaCha20Rng::from_os_rng();
        loop {
            tokio::select! {
                signal = signals.next() => return signal,
                _ = self.sockets.readable(), if self.stalled.is_none() => self.receive(&mut buffer, &mut rng),
                () = made(self.stalled.as_ref().map(|(_, room)| room)) => self.send(),
                _ = look.tick() => self.server.handle_timeout(clock::now()),
                _ = progress.tick() => {
                    let counts = self.server.counts();
                    if std::mem::replace(&mut told, counts) != counts {
                        say(&self.summary());
                    }
                }
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8], rng: &mut ChaCha20Rng) {
        let now = clock::now();
        for _ in 0..TURN {
            let Ok(Some(received)) = self.sockets.try_receive(SocketId::MAIN, buffer) else { break };
            for datagram in received.datagrams(buffer) {
                match self.server.handle_datagram(now, received.from, datagram, rng) {
                    Some(Outgoing::Frame(frame)) => {
                        let route = Route::to(frame.to);
                        self.batches.add(frame.head.to, route, frame.length(), |buffer| frame.write(buffer));
                    }
                    Some(Outgoing::Answer(to, bytes)) => {
                        let transmit = Transmit { socket: SocketId::MAIN, to, ttl: None, bytes };
                        self.lost += u64::from(self.sockets.send(&transmit).is_err());
                    }
                    None => {}
                }
            }
        }
        self.send();
    }

    fn send(&mut self) {
        let mut stalled = self.stalled.take();
        while let Some(mut bulk) = stalled.take().map(|(bulk, _)| bulk).or_else(|| self.next_bulk()) {
            match self.sockets.send_bulk(&mut bulk) {
                Sent::All => {}
                Sent::Later(count) => {
                    self.lost += count as u64;
                    match self.sockets.room(SocketId::MAIN) {
                        Ok(room) => return self.stalled = Some((bulk, room)),
                        Err(_) => self.lost += bulk.batch.len() as u64,
                    }
                }
                Sent::Lost(count) | Sent::TooLong(count) => self.lost += count as u64,
            }
            self.batches.recycle(bulk.batch);
            if !self.sockets.segments() && !std::mem::replace(&mut self.one_by_one, true) {
                warn_one_by_one("this system or its network card takes datagrams");
            }
        }
    }

    fn next_bulk(&mut self) -> Option<Bulk> {
        let batch = self.batches.pop()?;
        Some(Bulk { socket: SocketId::MAIN, to: batch.route.addr()?, batch })
    }

    fn summary(&self) -> String {
        let Counts { sessions, frames, bytes: passed, undeliverable, dropped } = self.server.counts();
        let (runs, lost, passed) = (self.server.runs(), self.lost, bytes(passed));
        format!(
            "{sessions} runners of {runs} runs; {frames} datagrams ({passed}) passed on, {undeliverable} for nobody, {dropped} not authentic, {lost} \
             not sent"
        )
    }
}
