//! What comes over the link.

use super::Device;
use agent_core::update::Input;
use bytes::Bytes;
use edgewright_agent::{
    link::{Link, LinkEvent},
    trust::Heard,
};
use shared::{
    Digest, Signed, signing,
    topic::{Filter, Topic, TrustFile},
    wire::{self, Desired},
};
use std::sync::atomic::Ordering;

impl Device {
    /// Takes in one thing; true where the machine heard of it.
    pub(super) fn handle(&mut self, event: LinkEvent) -> bool {
        match event {
            LinkEvent::Up { .. } => {
                self.handle_up();
                true
            }
            LinkEvent::Down { .. } => {
                let was_up = self.connection.as_mut().is_some_and(|it| std::mem::take(&mut it.up));
                self.handle_down(was_up);
                true
            }
            LinkEvent::Published { token, result } => {
                let now = self.fleet.now();
                self.reporter.published(token, &result, now);
                if let Err(what) = self.outbox.published(token, &result, now, &self.fleet.counts) {
                    self.fleet.complain(format!("{}: {what}", self.id));
                }
                false
            }
            LinkEvent::Message { topic, payload, receipt } => {
                let told = match topic.parse() {
                    Ok(Topic::Desired(_)) => self.handle_desired(payload),
                    Ok(Topic::Trust(file)) => self.handle_trust(file, &payload),
                    Ok(Topic::BlobChunk { digest, index, .. } | Topic::BlobBroadcast { digest, index }) => {
                        self.handle_chunk(digest, index, &payload);
                        true
                    }
                    _ => false,
                };
                if let Some(connection) = &self.connection {
                    connection.link.acknowledge(receipt);
                }
                told
            }
        }
    }

    fn handle_up(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        connection.up = true;
        connection.gate = None;
        let link = connection.link.clone();
        self.fleet.counts.connects.add(1);
        if !std::mem::replace(&mut self.was_seen, true) {
            self.fleet.counts.seen.add(1);
        }
        link.subscribe(Filter::Trust.to_string());
        link.subscribe(Filter::Desired(self.id.clone()).to_string());
        link.subscribe(Filter::BlobChunks(self.id.clone()).to_string());
        for digest in &self.listening {
            link.subscribe(Filter::BlobBroadcast(*digest).to_string());
        }
        if let Ok(online) = wire::encode_json("presence", &wire::Presence { online: true }) {
            let _ = link.publish(Topic::Presence(self.id.clone()).to_string(), online, true);
        }
        self.reporter.connected();
        self.input(Input::Online(true));
    }

    pub(super) fn handle_down(&mut self, was_up: bool) {
        if was_up {
            self.fleet.counts.disconnects.add(1);
        }
        self.reporter.disconnected();
        self.outbox.disconnected();
        self.input(Input::Online(false));
    }

    fn handle_trust(&mut self, file: TrustFile, bytes: &[u8]) -> bool {
        match self.fleet.offer(file, bytes) {
            Ok(Heard::Refused { word, detail }) => {
                self.fleet.complain(format!("trust metadata was refused: {word}: {detail}"));
            }
            Ok(Heard::Same | Heard::Waits | Heard::Updated(_)) => {}
            Err(error) => self.fleet.complain(format!("{error:#}")),
        }
        // Another device may have brought what was lacking.
        self.unsigned.take().is_some_and(|envelope| self.handle_desired(envelope))
    }

    fn handle_desired(&mut self, envelope: Bytes) -> bool {
        if envelope.is_empty() {
            return false;
        }
        let keyring = self.fleet.trust.keyring();
        match Signed::<Desired>::parse(&envelope).and_then(|signed| signed.verify(&keyring)) {
            Ok(desired) => {
                self.input(Input::Desired(Box::new(desired)));
                true
            }
            Err(signing::Error::Untrusted { .. }) => {
                self.unsigned = Some(envelope);
                false
            }
            Err(error) => {
                self.fleet.complain(format!("{}: a desired state: {error}", self.id));
                false
            }
        }
    }

    fn handle_chunk(&mut self, digest: Digest, index: u32, payload: &Bytes) {
        let wave = self.fleet.wave();
        let bytes = payload.len() as u64;
        wave.delivered_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.fleet.counts.chunks.add(1);
        if self.lots.next_u64() % 1000 < wave.loss_permille {
            return;
        }
        self.input(Input::ChunksReceived { digest, bytes });
        let Some(blob) = self.blobs.get_mut(&digest) else { return };
        match blob.store(index, payload) {
            Ok(()) => self.input(Input::ChunkStored { digest, index }),
            Err(what) => {
                self.fleet.complain(format!("{}: chunk {index} of {}: {what}", self.id, digest.short()));
            }
        }
    }
}
