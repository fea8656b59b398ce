//! What comes over the link: wishes, chunks, and how the broker took what was sent.

use super::{REFUSED_MAX, Updater, records};
use crate::{
    blobs,
    link::{LinkEvent, Receipt},
    trust::Heard,
};
use agent_core::update::Input;
use bytes::Bytes;
use shared::{
    Digest, Signed,
    topic::{Filter, Topic, TrustFile},
    wire::{self, Desired, EventKind},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

impl Updater {
    pub(super) fn handle_link(&mut self, events: Vec<LinkEvent>) {
        let mut chunks: BTreeMap<Digest, Vec<(u32, Bytes, Receipt)>> = BTreeMap::new();
        // Subscriptions of an earlier run, or of a blob that was given up while the link was down.
        let mut stale = BTreeSet::new();
        for event in events {
            match event {
                LinkEvent::Up { session_present } => self.handle_up(session_present),
                LinkEvent::Down { reason } => {
                    tracing::info!(reason, "disconnected");
                    self.parts.shared.connected.store(false, Ordering::Relaxed);
                    self.sender.disconnected(self.clock.monotonic());
                    self.reporter.disconnected();
                    self.profiling.disconnected();
                    self.input(Input::Online(false));
                }
                LinkEvent::Published { token, result } => {
                    let now = self.clock.monotonic();
                    self.reporter.published(token, &result, now);
                    self.profiling.published(token, &result, now);
                    self.sender.published(&self.parts.store, token, result, now);
                }
                LinkEvent::Message { topic, payload, receipt } => match topic.parse() {
                    Ok(Topic::Desired(device)) if device == self.parts.device => {
                        self.handle_desired(&payload);
                        self.parts.link.acknowledge(receipt);
                    }
                    Ok(Topic::ProfileAsk(device)) if device == self.parts.device => {
                        self.handle_profile_ask(&payload);
                        self.parts.link.acknowledge(receipt);
                    }
                    Ok(Topic::Trust(file)) => {
                        self.handle_trust(file, &payload);
                        self.parts.link.acknowledge(receipt);
                    }
                    Ok(
                        topic @ (Topic::BlobChunk { digest, index, .. }
                        | Topic::BlobBroadcast { digest, index }),
                    ) => {
                        if matches!(topic, Topic::BlobBroadcast { .. }) && !self.listening.contains(&digest) {
                            stale.insert(digest);
                        }
                        chunks.entry(digest).or_default().push((index, payload, receipt));
                    }
                    _ => self.parts.link.acknowledge(receipt),
                },
            }
        }
        for digest in stale {
            self.parts.link.unsubscribe(Filter::BlobBroadcast(digest).to_string());
        }
        for (digest, chunks) in chunks {
            self.handle_chunks(digest, &chunks);
        }
    }

    fn handle_up(&mut self, session_present: bool) {
        tracing::info!(session_present, "connected to the broker");
        self.parts.shared.connected.store(true, Ordering::Relaxed);
        let device = &self.parts.device;
        let link = &self.parts.link;
        // With a session the subscriptions are there already; to subscribe again brings what is retained at once: first
        // the metadata that says whom to believe, then the wish.
        link.subscribe(Filter::Trust.to_string());
        link.subscribe(Filter::Desired(device.clone()).to_string());
        link.subscribe(Filter::ProfileAsk(device.clone()).to_string());
        if !session_present {
            link.subscribe(Filter::BlobChunks(device.clone()).to_string());
        }
        // Even a session does not know of blobs that were opened while the link was down.
        for digest in &self.listening {
            link.subscribe(Filter::BlobBroadcast(*digest).to_string());
        }
        if let Ok(online) = wire::encode_json("presence", &wire::Presence { online: true }) {
            let _ = link.publish(Topic::Presence(device.clone()).to_string(), online, true);
        }
        self.reporter.connected();
        self.sender.connected();
        self.input(Input::Online(true));
    }

    fn handle_trust(&mut self, file: TrustFile, bytes: &[u8]) {
        match self.parts.trust.offer(file, bytes) {
            Ok(heard) => self.heard_of_trust(heard, bytes),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "trust metadata is in force and is not kept");
                self.read_unsigned_again();
            }
        }
    }

    /// The keys that count may have changed.
    fn read_unsigned_again(&mut self) {
        if let Some(envelope) = self.unsigned.take() {
            self.handle_desired(&envelope);
        }
        if let Some(envelope) = self.profiling.take_unsigned() {
            self.handle_profile_ask(&envelope);
        }
    }

    /// Tells what became of trust metadata; `subject` says which refusals are the same.
    pub(super) fn heard_of_trust(&mut self, heard: Heard, subject: &[u8]) {
        match heard {
            Heard::Same | Heard::Waits => {}
            Heard::Updated(roles) => {
                tracing::info!(roles, "newer trust metadata is in force");
                self.tell_of_trust(EventKind::TrustUpdated, roles);
                self.read_unsigned_again();
            }
            Heard::Refused { word, detail } => {
                if self.is_first_refusal(subject) {
                    tracing::warn!(word, detail, "trust metadata was refused");
                    self.tell_of_trust(EventKind::TrustRefused, format!("{word}: {detail}"));
                }
            }
        }
    }

    fn tell_of_trust(&self, kind: EventKind, detail: String) {
        if let Err(error) = self.parts.store.put(&[records::of_the_agent(kind, detail)]) {
            tracing::warn!(error = crate::chain(&error), "an event was lost");
        }
    }

    /// Of what is refused again and again, or in ever new forms, a bounded number of events tells.
    pub(super) fn is_first_refusal(&mut self, bytes: &[u8]) -> bool {
        self.refused.len() < REFUSED_MAX && self.refused.insert(Digest::of(bytes))
    }

    fn handle_desired(&mut self, envelope: &[u8]) {
        if envelope.is_empty() {
            return;
        }
        let verified =
            Signed::<Desired>::parse(envelope).and_then(|signed| signed.verify(&self.parts.trust.keyring()));
        match verified {
            Ok(desired) => {
                self.unsigned = None;
                self.input(Input::Desired(Box::new(desired)));
            }
            Err(error) => {
                if matches!(error, shared::signing::Error::Untrusted { .. }) {
                    self.unsigned = Some(envelope.to_vec());
                }
                if !self.is_first_refusal(envelope) {
                    return;
                }
                tracing::warn!(%error, "a desired state was refused");
                let refused = records::of_the_agent(EventKind::DesiredRefused, crate::chain(&error));
                if let Err(error) = self.parts.store.put(&[refused]) {
                    tracing::warn!(error = crate::chain(&error), "an event was lost");
                }
            }
        }
    }

    /// Puts chunks of one blob on disk, then tells the machine, then the broker.
    fn handle_chunks(&mut self, digest: Digest, chunks: &[(u32, Bytes, Receipt)]) {
        let borrowed: Vec<(u32, &[u8])> =
            chunks.iter().map(|(index, bytes, _)| (*index, bytes.as_ref())).collect();
        // Whatever becomes of them, they came.
        let bytes = borrowed.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        self.input(Input::ChunksReceived { digest, bytes });
        let written = match self.parts.blobs.write(digest, &borrowed) {
            // One bad chunk among them: the others count.
            Err(blobs::Error::Chunk { .. }) => {
                let each = borrowed.iter().map(|chunk| self.parts.blobs.write(digest, &[*chunk]));
                Ok(each.filter_map(Result::ok).flatten().collect())
            }
            written => written,
        };
        match written {
            Ok(indices) => {
                for index in indices {
                    self.input(Input::ChunkStored { digest, index });
                }
            }
            // Late chunks of a blob that is complete or given up; the machine knows whether it still waits for it.
            Err(error @ blobs::Error::NotOpen { .. }) => {
                self.input(Input::ChunkNotStored { digest, detail: error.to_string() });
            }
            Err(error) => {
                let detail = crate::chain(&error);
                tracing::warn!(detail, "chunks could not be stored");
                self.input(Input::ChunkNotStored { digest, detail });
            }
        }
        for (_, _, receipt) in chunks {
            self.parts.link.acknowledge(*receipt);
        }
    }
}
