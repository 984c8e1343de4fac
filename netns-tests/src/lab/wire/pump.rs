//! A wire in user space: what one TUN device sends, the other receives, later or never. Not here: when it is used ([`super`]).
//!
//! Two threads shape one way: one takes what leaves a device and stamps it with the time it is due, the other waits for that time and hands
//! it over. Where only one way is shaped, a third thread copies the other. Frames carry the virtio header, so that a large segmented
//! packet crosses in one piece, as it does on a veth; only where one of its packets is lost or hurries it comes apart ([`fates`]).

mod fates;

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use tun_rs::{DeviceBuilder, SyncDevice};

use self::fates::{Fate, Sorted};
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

/// What is left of a frame, and when it arrives.
struct Frame {
    due: Instant,
    pieces: Vec<Vec<u8>>,
}

/// What happens to packets on their way back, from `far` to `near`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Back {
    /// They arrive at once.
    Unshaped,
    /// The same as on their way there.
    Alike,
}

impl Pump {
    pub(super) fn start(near: (&Netns, &str), far: (&Netns, &str), back: Back) -> Result<Self> {
        let (near, far) = (open_tun(near)?, open_tun(far)?);
        let link = Arc::new(Mutex::new(Link::default()));
        let mut threads = lane(&near, &far, &link);
        match back {
            Back::Unshaped => threads.push(thread::spawn(move || copy(&far, &near))),
            Back::Alike => threads.extend(lane(&far, &near, &link)),
        }
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

/// One shaped way.
fn lane(from: &Arc<SyncDevice>, to: &Arc<SyncDevice>, link: &Arc<Mutex<Link>>) -> Vec<JoinHandle<()>> {
    let (sender, receiver) = sync_channel(QUEUE);
    let (from, ahead, to, link) = (Arc::clone(from), Arc::clone(to), Arc::clone(to), Arc::clone(link));
    vec![thread::spawn(move || depart(&from, &ahead, &sender, &link)), thread::spawn(move || arrive(&receiver, &to))]
}

/// What hurries is handed over here, past the queue.
fn depart(from: &SyncDevice, to: &SyncDevice, sender: &SyncSender<Frame>, link: &Mutex<Link>) {
    let mut buffer = vec![0; FRAME];
    while let Ok(len) = from.recv(&mut buffer) {
        let link = *link.lock().unwrap_or_else(PoisonError::into_inner);
        let Sorted { hurrying, waiting } = fates::sort(&buffer[..len], || fate(link));
        hurrying.iter().for_each(|piece| hand_over(to, piece));
        if waiting.is_empty() {
            continue;
        }
        let frame = Frame { due: Instant::now() + link.delay, pieces: waiting };
        if let Err(TrySendError::Disconnected(_)) = sender.try_send(frame) {
            return;
        }
    }
}

fn fate(link: Link) -> Fate {
    let happens = |percent: f32| percent > 0.0 && rand::random::<f32>() * 100.0 < percent;
    if happens(link.loss_percent) {
        Fate::Lost
    } else if link.reorders() && happens(link.reorder_percent) {
        Fate::Hurries
    } else {
        Fate::Waits
    }
}

fn arrive(receiver: &Receiver<Frame>, to: &SyncDevice) {
    for frame in receiver {
        thread::sleep(frame.due.saturating_duration_since(Instant::now()));
        frame.pieces.iter().for_each(|piece| hand_over(to, piece));
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
