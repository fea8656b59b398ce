//! Sends out what devices want, as the delivery planner says.

use super::{App, Result, chain, now};
use crate::store::Store;
use control_core::delivery::{Chunk, Delivery, Send, Target};
use shared::{
    DeviceId, Digest, RolloutId, Timestamp,
    topic::Topic,
    wire::{Want, chunk_count},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::mpsc;

/// What delivery is told.
#[derive(Debug)]
pub enum Message {
    Want(DeviceId, Want),
    Forget(DeviceId),
}

/// How often the counts of rollouts go into the store.
const FLUSH_PERIOD: Duration = Duration::from_millis(250);

/// Runs until the application stops.
pub async fn run(app: Arc<App>, mut messages: mpsc::Receiver<Message>) {
    let mut delivery = Delivery::new(app.settings.blob_bytes_per_s);
    let mut served = Served::default();
    let mut flush = tokio::time::interval(FLUSH_PERIOD);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        while let Some(send) = delivery.poll_send(now()) {
            app.send_chunk(&send, &served).await;
            // Wants that came meanwhile may join what still waits.
            while let Ok(message) = messages.try_recv() {
                app.take_message(message, &mut delivery, &mut served).await;
            }
        }
        app.counters.chunks_waiting.store(delivery.len() as u64, Ordering::Relaxed);
        let ready = delivery.poll_timeout().map(|at| Duration::from_millis(at.since_ms(now()).max(1)));
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => app.take_message(message, &mut delivery, &mut served).await,
                None => return,
            },
            () = tokio::time::sleep(ready.unwrap_or(Duration::MAX)), if ready.is_some() => {}
            _ = flush.tick() => {
                if let Err(error) = app.flush_published().await {
                    tracing::warn!("the count of published bytes waits: {}", chain(&error));
                }
            }
            () = app.stopped() => return,
        }
    }
}

/// Blobs that have been asked for: their sizes, and the rollouts that they belong to.
#[derive(Debug, Default)]
struct Served {
    sizes: HashMap<Digest, u64>,
    rollouts: HashMap<Digest, BTreeSet<RolloutId>>,
    /// When the rollouts were looked up.
    looked_at: Timestamp,
}

/// Blobs of which the size is remembered.
const SERVED_MAX: usize = 4096;
/// Which rollouts are open is looked up again after this long.
const ROLLOUTS_MS_MAX: u64 = 1000;

impl App {
    async fn take_message(&self, message: Message, delivery: &mut Delivery, served: &mut Served) {
        match message {
            Message::Forget(device) => delivery.forget(&device),
            Message::Want(device, want) => {
                let size = match self.served_size(&want.digest, served).await {
                    Ok(Some(size)) => size,
                    Ok(None) => {
                        tracing::warn!("{device} wants {}, which is no published blob", want.digest);
                        return;
                    }
                    Err(error) => {
                        tracing::error!("a want of {device} cannot be served: {}", chain(&error));
                        return;
                    }
                };
                let count = chunk_count(size, want.chunk_bytes);
                let chunks = want.indices().filter(|&index| index < count).map(|index| Chunk {
                    digest: want.digest,
                    index,
                    chunk_bytes: want.chunk_bytes,
                });
                if let Err(full) = delivery.want(&device, chunks, now()) {
                    tracing::warn!("a want of {device} is dropped: {full}");
                }
            }
        }
    }

    /// Nothing goes out but bundles and their files.
    async fn served_size(&self, digest: &Digest, served: &mut Served) -> Result<Option<u64>> {
        if served.sizes.len() > SERVED_MAX {
            *served = Served::default();
        }
        self.look_up_rollouts(digest, served).await?;
        if let Some(size) = served.sizes.get(digest) {
            return Ok(Some(*size));
        }
        if !self.store.is_published(digest).await? {
            return Ok(None);
        }
        let size = self.store.blobs.size_bytes(digest)?;
        if let Some(size) = size {
            served.sizes.insert(*digest, size);
        }
        Ok(size)
    }

    /// A blob without a rollout may belong to one that was created a moment ago.
    async fn look_up_rollouts(&self, digest: &Digest, served: &mut Served) -> Result<()> {
        let now = now();
        if served.rollouts.contains_key(digest) && now.since_ms(served.looked_at) < ROLLOUTS_MS_MAX {
            return Ok(());
        }
        let mut rollouts: HashMap<Digest, BTreeSet<RolloutId>> = HashMap::new();
        for (rollout, digest) in self.store.open_blobs().await? {
            rollouts.entry(digest).or_default().insert(rollout);
        }
        (served.rollouts, served.looked_at) = (rollouts, now);
        Ok(())
    }

    async fn send_chunk(&self, send: &Send, served: &Served) {
        let Chunk { digest, index, chunk_bytes } = send.chunk;
        let Some(bytes) = read_chunk(&self.store, send.chunk).await else { return };
        let Some(broker) = self.broker.get() else { return };
        let (topic, counter) = match &send.target {
            Target::Device(device) => {
                (Topic::BlobChunk { device: device.clone(), digest, index }, &self.counters.chunks_unicast)
            }
            Target::Everybody(_) => (Topic::BlobBroadcast { digest, index }, &self.counters.chunks_broadcast),
        };
        let size = bytes.len() as u64;
        if let Err(error) = broker.publish(&topic, bytes.into(), false).await {
            tracing::warn!("chunk {index} of {} bytes did not go out: {}", chunk_bytes, chain(&error));
            return;
        }
        counter.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_published.fetch_add(size, Ordering::Relaxed);
        if let Ok(mut published) = self.published.lock() {
            for rollout in served.rollouts.get(&digest).into_iter().flatten() {
                *published.entry(*rollout).or_default() += size;
            }
        }
    }

    /// Puts the counts of published bytes into the store.
    pub(super) async fn flush_published(&self) -> Result<()> {
        let counts: Vec<(RolloutId, u64)> = match self.published.lock() {
            Ok(mut published) => published.drain().collect(),
            Err(_) => return Ok(()),
        };
        if counts.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.store.add_bytes_published(&counts).await {
            if let Ok(mut published) = self.published.lock() {
                for (rollout, bytes) in counts {
                    *published.entry(rollout).or_default() += bytes;
                }
            }
            return Err(error.into());
        }
        Ok(())
    }
}

async fn read_chunk(store: &Store, chunk: Chunk) -> Option<Vec<u8>> {
    let blobs = store.blobs.clone();
    let read =
        tokio::task::spawn_blocking(move || blobs.chunk(&chunk.digest, chunk.index, chunk.chunk_bytes)).await;
    match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            tracing::error!("chunk {} of {} cannot be read: {}", chunk.index, chunk.digest, chain(&error));
            None
        }
        Err(error) => {
            tracing::error!("reading a chunk broke off: {error}");
            None
        }
    }
}
