//! `mesh relay`: passes datagrams between runners that cannot reach each other, on a machine of the user's own with a public address. What is
//! inside stays sealed; who may use it is decided in `proto::relay_server`.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::actions::{say, warn};
use super::signals::{Signals, exit_code};
use super::{Outcome, env};
use crate::config::{RelayArgs, context};
use crate::link::clock;
use crate::link::socket::Socket;
use crate::privilege;
use crate::proto::key::Secret;
use crate::proto::relay_server::{Counts, RelayServer};
use crate::proto::route::SocketId;
use crate::proto::transmit::Transmit;
use crate::report::bytes;

/// How often silent runners are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// How often a relay that is in use says so.
const PROGRESS: Duration = Duration::from_secs(60);

/// The largest datagram read.
const BUFFER: usize = 64 * 1024;

/// Runs the verb until a signal ends it.
pub(super) async fn run(args: RelayArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let keys = args.key.keys(env(), &context(env(), None))?;
    for name in keys.passphrases() {
        warn(&format!("the {name} is a passphrase: `mesh keygen` prints a key that nobody can guess"));
    }
    let socket = Socket::bind(args.listen)?;
    privilege::drop_all_capabilities();
    say(&format!("relay on UDP port {}; runners of the same key reach it with --relay ADDRESS:{0}", socket.port()));
    let keys = keys.iter().map(|keys| (keys.key_id(), keys.relay())).collect();
    let mut relay =
        Relay { server: RelayServer::new(clock::now(), keys, Secret(rand::rng().random())), socket, lost: 0 };
    let signal = relay.serve(&mut signals).await;
    say(&relay.summary());
    Ok(exit_code(signal))
}

struct Relay {
    server: RelayServer,
    socket: Socket,
    lost: u64,
}

impl Relay {
    async fn serve(&mut self, signals: &mut Signals) -> nix::sys::signal::Signal {
        let (mut look, mut progress) = (tokio::time::interval(LOOK), tokio::time::interval(PROGRESS));
        let (mut buffer, mut told) = (vec![0; BUFFER], Counts::default());
        let mut rng = ChaCha20Rng::from_os_rng();
        loop {
            tokio::select! {
                signal = signals.next() => return signal,
                _ = self.socket.readable() => self.receive(&mut buffer, &mut rng),
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
        while let Ok(Some(received)) = self.socket.try_receive(buffer) {
            for datagram in received.datagrams(buffer) {
                if let Some((to, bytes)) = self.server.handle_datagram(now, received.from, datagram, rng) {
                    let transmit = Transmit { socket: SocketId::MAIN, to, ttl: None, bytes };
                    self.lost += u64::from(self.socket.send(&transmit).is_err());
                }
            }
        }
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
