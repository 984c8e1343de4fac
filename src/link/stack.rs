//! The overlay's TCP without a TUN device and without any privilege: a stack of our own (smoltcp, which nothing outside of this folder
//! names) takes the tunnel's packets in the kernel's place. What is led where through it is not here but in [`super::forward`].
//!
//! Programs on this machine cannot use it, only this process can: it has one end of each connection. A connection costs two buffers, whose
//! size goes down as their number goes up (`connection`), and a place among a bounded number (`core`).
//!
//! The driver of the link is its driver too: [`Stack`] waits for packets and timers there as a TUN device would. Users wake it.

mod connection;
mod core;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::core::{Core, Id};
pub use self::stream::Stream;
use super::clock;
use crate::proto::overlay::Prefix;

/// The side of the driver: packets.
#[derive(Debug)]
pub struct Stack(Arc<Shared>);

/// The side of everybody else: connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

/// Takes connections to one port of ours, until it is dropped.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    /// Somebody has done what wants a turn of the driver.
    wanted: Notify,
}

impl Stack {
    /// A stack that has `address` of `overlay`. `seed` is drawn for each process, so that sequence numbers are not those of the one before.
    pub fn new(address: Ipv4Addr, overlay: Prefix, seed: u64) -> (Self, Handle) {
        let core = Mutex::new(Core::new(clock::now(), address, overlay, seed));
        let shared = Arc::new(Shared { core, wanted: Notify::new() });
        (Self(Arc::clone(&shared)), Handle(shared))
    }

    /// Waits until a packet can be read, and runs what is due meanwhile.
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            let due = {
                let (mut core, now) = (self.0.core(), clock::now());
                core.poll(now);
                if core.has_output() {
                    return Ok(());
                }
                core.poll_at(now)
            };
            tokio::select! {
                () = self.0.wanted.notified() => {}
                () = super::sleep_until(due) => {}
            }
        }
    }

    /// A packet that is there; `None` when there is none.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(packet) = self.0.core().output() else { return Ok(None) };
        buffer[..packet.len()].copy_from_slice(&packet);
        Ok(Some(packet.len()))
    }

    /// Takes a packet out of the tunnel. What is not for us or makes no sense is dropped, as a kernel does.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.0.core().input(clock::now(), packet);
        Ok(())
    }
}

impl Handle {
    /// Takes connections to `port` of ours.
    pub fn listen(&self, port: u16) -> io::Result<Listener> {
        self.0.core().listen(port)?;
        Ok(Listener { shared: Arc::clone(&self.0), port })
    }

    /// Calls a peer's port. Fails when it refuses, or does not answer within ten seconds.
    pub async fn connect(&self, peer: SocketAddrV4) -> io::Result<Stream> {
        let id = self.0.core().connect(peer)?;
        let stream = Stream::new(Arc::clone(&self.0), id);
        self.0.serve(id);
        poll_fn(|context| stream.poll_connected(context)).await?;
        Ok(stream)
    }

    /// How many connections there are, those included that only say goodbye.
    pub fn connections(&self) -> usize {
        self.0.core().count()
    }
}

impl Listener {
    /// The next connection.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        let id = poll_fn(|context| self.shared.core().poll_accept(self.port, context)).await?;
        Ok(Stream::new(Arc::clone(&self.shared), id))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.core().deafen(self.port);
        self.shared.wanted.notify_one();
    }
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        // Nobody leaves it half changed: whoever panicked in there has ended the driver too.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, id: Id) {
        self.core().enqueue(id);
        self.wanted.notify_one();
    }

    fn release(&self, id: Id) {
        self.core().release(id);
        self.wanted.notify_one();
    }
}
