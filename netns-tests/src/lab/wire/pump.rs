//! A wire in user space: what one TUN device sends, the other receives, later or never. Not here: when it is used ([`super`]).
//!
//! Three threads: one takes what leaves `near` and stamps it with the time it is due, one waits for that time and hands it to `far`,
//! one copies the other way. Frames carry the virtio header, so that a large segmented packet crosses in one piece, as it does on a veth.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::super::Netns;
use super::{Link, QUEUE};

/// A virtio header and the largest IP packet.
const FRAME: usize = 10 + 65_535;

/// A burst of small packets must not overflow the device while the pump's thread waits for a processor.
const DEVICE_QUEUE: u32 = 5_000;

#[derive(Debug)]
pub(super) struct Pump {
    link: Arc<Mutex<Link>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Frame {
    due: Instant,
    bytes: Vec<u8>,
}

impl Pump {
    pub(super) fn start(near: (&Netns, &str), far: (&Netns, &str)) -> Result<Self> {
        let (near, far) = (open_tun(near)?, open_tun(far)?);
        let link = Arc::new(Mutex::new(Link::default()));
        let (sender, receiver) = sync_channel(QUEUE);
        let threads = vec![
            thread::spawn({
                let (near, link) = (Arc::clone(&near), Arc::clone(&link));
                move || depart(&near, &sender, &link)
            }),
            thread::spawn({
                let far = Arc::clone(&far);
                move || arrive(&receiver, &far)
            }),
            thread::spawn(move || copy(&far, &near)),
        ];
        Ok(Self { link, threads: Mutex::new(threads) })
    }

    pub(super) fn set_link(&self, link: Link) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Waits for the threads. They end when both devices are removed.
    pub(super) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::warn!("a thread of the pump panicked");
            }
        }
    }
}

fn open_tun((netns, dev): (&Netns, &str)) -> Result<Arc<SyncDevice>> {
    let device =
        netns.enter(|| DeviceBuilder::new().name(dev).offload(true).tx_queue_len(DEVICE_QUEUE).build_sync())?;
    let device = device.with_context(|| format!("make TUN device {dev} in namespace {}", netns.name()))?;
    Ok(Arc::new(device))
}

fn depart(near: &SyncDevice, sender: &SyncSender<Frame>, link: &Mutex<Link>) {
    let mut buffer = vec![0; FRAME];
    while let Ok(len) = near.recv(&mut buffer) {
        let Link { delay, loss_percent } = *link.lock().unwrap_or_else(PoisonError::into_inner);
        if rand::random::<f32>() * 100.0 < loss_percent {
            continue;
        }
        let frame = Frame { due: Instant::now() + delay, bytes: buffer[..len].to_vec() };
        if let Err(TrySendError::Disconnected(_)) = sender.try_send(frame) {
            return;
        }
    }
}

fn arrive(receiver: &Receiver<Frame>, far: &SyncDevice) {
    for frame in receiver {
        thread::sleep(frame.due.saturating_duration_since(Instant::now()));
        hand_over(far, &frame.bytes);
    }
}

fn copy(from: &SyncDevice, to: &SyncDevice) {
    let mut buffer = vec![0; FRAME];
    while let Ok(len) = from.recv(&mut buffer) {
        hand_over(to, &buffer[..len]);
    }
}

/// A device that is down or going away refuses; on a real wire the packet would be lost too.
fn hand_over(device: &SyncDevice, bytes: &[u8]) {
    if let Err(error) = device.send(bytes) {
        tracing::trace!(%error, len = bytes.len(), "packet lost at the end of the wire");
    }
}
