//! Sends out what devices want, as the delivery planner says.

mod grants;
mod inbox;

pub use inbox::Inbox;

use super::{App, Result, chain, now};
use crate::store::Store;
use control_core::delivery::{Chunk, Delivery, Send, Target};
use grants::Grants;
use inbox::{Came, FromDevice};
use shared::{DeviceId, Digest, RolloutId, Timestamp, topic::Topic, wire::chunk_count};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// How often the counts of rollouts go into the store.
const FLUSH_PERIOD: Duration = Duration::from_millis(250);

/// Runs until the application stops.
pub async fn run(app: Arc<App>) {
    let told = app.broker().is_some_and(|broker| broker.tells_what_arrived());
    let mut delivery = Delivery::new(app.settings.blob_bytes_per_s, app.settings.chunk_bytes, told);
    let mut known = Known::default();
    let mut flushed_at = Instant::now();
    while !app.is_stopping() {
        // Who asked before this moment is heard before anything goes out, however long the hearing takes: time that passed
        // meanwhile is not a time in which nobody asked.
        let heard_until = now();
        for (device, came) in app.inbox.take() {
            app.take_wants(&device, came, &mut delivery, &mut known).await;
        }
        if flushed_at.elapsed() >= FLUSH_PERIOD {
            flushed_at = Instant::now();
            if let Err(error) = app.flush_published().await {
                tracing::warn!("the count of published bytes waits: {}", chain(&error));
            }
        }
        let send = delivery.poll_send(heard_until);
        app.counters.chunks_waiting.store(delivery.len() as u64, Ordering::Relaxed);
        if let Some(send) = send {
            app.send_chunk(&send, &mut known).await;
            continue;
        }
        let ready = delivery.poll_timeout().map(|at| Duration::from_millis(at.since_ms(now()).max(1)));
        tokio::select! {
            () = app.inbox.came() => {}
            () = tokio::time::sleep(ready.unwrap_or(FLUSH_PERIOD).min(FLUSH_PERIOD)) => {}
            () = app.stopped() => {}
        }
    }
}

/// What delivery has looked up.
#[derive(Debug, Default)]
struct Known {
    grants: Grants,
    /// The open rollouts that blobs belong to.
    rollouts: HashMap<Digest, BTreeSet<RolloutId>>,
    /// The devices of each that are to fetch its blobs now.
    fetching: HashMap<RolloutId, BTreeSet<DeviceId>>,
    /// When those were looked up.
    looked_at: Timestamp,
    /// The chunk before did not go out, and the log says why.
    in_trouble: bool,
}

impl Known {
    fn fetching(&self, digest: &Digest) -> impl Iterator<Item = &BTreeSet<DeviceId>> {
        let rollouts = self.rollouts.get(digest).into_iter().flatten();
        rollouts.filter_map(|rollout| self.fetching.get(rollout))
    }

    /// Devices that are to fetch the blob now.
    fn expected(&self, digest: &Digest) -> usize {
        self.fetching(digest).map(BTreeSet::len).sum()
    }
}

/// Which rollouts are open is looked up again after this long at the latest.
const ROLLOUTS_MS_MAX: u64 = 1000;
/// And after this long for a blob of none, which may belong to one that was created a moment ago, and for one that nobody
/// has fetched, whose wave may just have opened.
const ROLLOUTS_MS_MIN: u64 = 100;

impl App {
    async fn take_wants(
        &self,
        device: &DeviceId,
        came: FromDevice,
        delivery: &mut Delivery,
        known: &mut Known,
    ) {
        if came.gone {
            delivery.forget(device);
            known.grants.forget(device);
        }
        for came in came.came {
            let want = match came {
                Came::Want(want) => want,
                Came::Settled { digest, index } => {
                    delivery.settle(device, &digest, index, now());
                    continue;
                }
            };
            let size = match self.granted(device, &want, &mut known.grants).await {
                Ok(Some(size)) => size,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!("a want of {device} cannot be served: {}", chain(&error));
                    continue;
                }
            };
            let count = chunk_count(size, want.chunk_bytes);
            let chunks = want.indices().filter(|&index| index < count).map(|index| Chunk {
                digest: want.digest,
                index,
                chunk_bytes: want.chunk_bytes,
            });
            if let Err(error) = self.look_up_rollouts(&want.digest, delivery, known).await {
                tracing::error!("the rollouts of a blob cannot be looked up: {}", chain(&error));
            }
            let expected = known.expected(&want.digest);
            if let Err(full) = delivery.want(device, chunks, expected, now()) {
                tracing::debug!("a want of {device} is dropped: {full}");
            }
        }
    }

    async fn look_up_rollouts(
        &self,
        digest: &Digest,
        delivery: &mut Delivery,
        known: &mut Known,
    ) -> Result<()> {
        let now = now();
        let age_ms = now.since_ms(known.looked_at);
        let is_known = known.rollouts.contains_key(digest) && delivery.is_fetched(digest);
        let limit_ms = if is_known { ROLLOUTS_MS_MAX } else { ROLLOUTS_MS_MIN };
        if age_ms < limit_ms {
            return Ok(());
        }
        let mut rollouts: HashMap<Digest, BTreeSet<RolloutId>> = HashMap::new();
        for (rollout, digest) in self.store.open_blobs().await? {
            rollouts.entry(digest).or_default().insert(rollout);
        }
        let fetching = self.store.fetching_devices().await?;
        let before = std::mem::replace(&mut known.rollouts, rollouts);
        (known.fetching, known.looked_at) = (fetching, now);
        // A file that another rollout brings too is fetched anew.
        delivery.retain(|digest, device| {
            before.get(digest) == known.rollouts.get(digest)
                && known.fetching(digest).any(|devices| devices.contains(device))
        });
        Ok(())
    }

    async fn send_chunk(&self, send: &Send, known: &mut Known) {
        let Chunk { digest, index, chunk_bytes } = send.chunk;
        let Some(bytes) = read_chunk(&self.store, send.chunk).await else { return };
        let Some(broker) = self.broker() else { return };
        let (topic, counter) = match &send.target {
            Target::Device(device) => {
                (Topic::BlobChunk { device: device.clone(), digest, index }, &self.counters.chunks_unicast)
            }
            Target::Everybody => (Topic::BlobBroadcast { digest, index }, &self.counters.chunks_broadcast),
        };
        let size = bytes.len() as u64;
        tracing::debug!("chunk {index} of {digest}, {size} bytes, goes to {}", send.target);
        if let Err(error) = broker.publish(&topic, bytes.into(), false).await {
            if !std::mem::replace(&mut known.in_trouble, true) {
                tracing::warn!("chunk {index} of {chunk_bytes} bytes did not go out: {}", chain(&error));
            }
            return;
        }
        known.in_trouble = false;
        counter.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_published.fetch_add(size, Ordering::Relaxed);
        if let Ok(mut published) = self.published.lock() {
            for rollout in known.rollouts.get(&digest).into_iter().flatten() {
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

/// The size of a blob that a device may have, looked up afresh.
#[cfg(test)]
pub(super) async fn granted_size(app: &App, device: &DeviceId, want: &shared::wire::Want) -> Option<u64> {
    app.granted(device, want, &mut Grants::default()).await.unwrap()
}

#[cfg(test)]
mod tests;
