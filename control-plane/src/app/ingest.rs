//! What devices say: into the store first, and only then acknowledged.

use super::{App, chain, changes::ChangeKind, now};
use crate::{
    broker::{Ingest, Refused},
    store::{
        self,
        ingest::{Input, Message},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use shared::{
    DeviceId, Digest, Timestamp,
    profile::ProfileReport,
    topic::Topic,
    wire::{self, Presence, Reported, Want},
};
use std::collections::HashSet;

#[async_trait]
impl Ingest for App {
    fn settled(&self, device: &DeviceId, topic: &Topic) {
        if let Topic::BlobChunk { digest, index, .. } | Topic::BlobBroadcast { digest, index } = topic {
            self.inbox.settle(device, *digest, *index);
        }
    }

    async fn admit(&self, device: &DeviceId, serial: &str) -> Result<bool, Refused> {
        self.store.use_certificate(device, serial, now()).await.map_err(|error| {
            tracing::error!("the certificate of {device} could not be looked up: {}", chain(&error));
            Refused::Unavailable
        })
    }

    async fn with_good_certificates(&self, devices: &[DeviceId]) -> Result<HashSet<DeviceId>, Refused> {
        let theirs = self.store.authorities_of_devices(devices).await.map_err(|error| {
            tracing::error!(
                "the certificates of {} devices could not be looked up: {}",
                devices.len(),
                chain(&error)
            );
            Refused::Unavailable
        })?;
        let ours = self.signer.authority_infos();
        // Of some that were issued long ago it is not on record which CA did.
        let is_ours = |authority: Option<Digest>| {
            authority.is_none_or(|authority| ours.iter().any(|info| info.digest == authority))
        };
        Ok(theirs
            .into_iter()
            .filter(|(_, authority)| is_ours(*authority))
            .map(|(device, _)| device)
            .collect())
    }

    async fn receive(&self, device: &DeviceId, topic: &Topic, payload: Bytes) -> Result<(), Refused> {
        self.take(device, topic, payload, Some(now())).await
    }

    async fn recall(&self, device: &DeviceId, topic: &Topic, payload: Bytes) -> Result<(), Refused> {
        self.take(device, topic, payload, None).await
    }

    async fn refused(&self, subject: &str, kind: &'static str, detail: String) {
        self.note_refusal(subject, kind, &detail);
    }
}

enum Failed {
    Refused(Refused),
    Store(store::Error),
}

impl From<store::Error> for Failed {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

fn decode<T>(result: Result<T, wire::Error>) -> Result<T, Refused> {
    result.map_err(|error| Refused::Invalid(chain(&error)))
}

impl App {
    /// Takes a message from a device that was `seen` by it.
    async fn take(
        &self,
        device: &DeviceId,
        topic: &Topic,
        payload: Bytes,
        seen: Option<Timestamp>,
    ) -> Result<(), Refused> {
        let taken = match topic {
            Topic::Reported(_) => self.take_reported(device, &payload, seen).await,
            Topic::Presence(_) => self.take_presence(device, &payload, seen).await,
            Topic::Telemetry(_) => {
                self.keep(Input::Records(decode(Message::telemetry(device, payload))?)).await
            }
            Topic::Feedback(_) => {
                self.keep(Input::Records(decode(Message::feedback(device, payload))?)).await
            }
            Topic::Event(_) => self.keep(Input::Records(decode(Message::events(device, payload))?)).await,
            Topic::BlobWant(_) => self.take_want(device, &payload),
            Topic::ProfileReport(_) => self.take_profile(device, &payload).await,
            Topic::Desired(_)
            | Topic::ProfileAsk(_)
            | Topic::BlobChunk { .. }
            | Topic::BlobBroadcast { .. }
            | Topic::Trust(_) => {
                return Err(Refused::Invalid("devices do not publish here".to_owned()));
            }
        };
        taken.map_err(|failed| match failed {
            Failed::Refused(refused) => refused,
            Failed::Store(error) => {
                tracing::error!("a message of {device} could not be kept: {}", chain(&error));
                Refused::Unavailable
            }
        })
    }

    /// On the disk when it returns; what went wrong has been logged.
    async fn keep(&self, input: Input) -> Result<(), Failed> {
        self.numbers.intake.keep(input).await.map_err(|_not_kept| Failed::Refused(Refused::Unavailable))
    }

    async fn take_reported(
        &self,
        device: &DeviceId,
        payload: &[u8],
        seen: Option<Timestamp>,
    ) -> Result<(), Failed> {
        let reported: Reported = decode(wire::decode_json("report", payload)).map_err(Failed::Refused)?;
        if reported.device != *device {
            return Err(Failed::Refused(Refused::Invalid(
                "it names another device than its sender".to_owned(),
            )));
        }
        reported.validate().map_err(|reason| Failed::Refused(Refused::Invalid(reason)))?;
        self.keep(Input::Reported { reported: Box::new(reported), seen }).await?;
        self.tell(ChangeKind::Device, device, "reported");
        self.planner_wake.notify_one();
        Ok(())
    }

    async fn take_presence(
        &self,
        device: &DeviceId,
        payload: &[u8],
        seen: Option<Timestamp>,
    ) -> Result<(), Failed> {
        let presence: Presence = decode(wire::decode_json("presence", payload)).map_err(Failed::Refused)?;
        self.keep(Input::Presence { device: device.clone(), online: presence.online, seen }).await?;
        self.tell(ChangeKind::Device, device, if presence.online { "online" } else { "offline" });
        if !presence.online {
            self.inbox.forget(device);
        }
        self.planner_wake.notify_one();
        Ok(())
    }

    async fn take_profile(&self, device: &DeviceId, payload: &[u8]) -> Result<(), Failed> {
        let report: ProfileReport =
            decode(wire::decode_json("profile report", payload)).map_err(Failed::Refused)?;
        if report.device != *device {
            return Err(Failed::Refused(Refused::Invalid(
                "it names another device than its sender".to_owned(),
            )));
        }
        report.validate().map_err(|reason| Failed::Refused(Refused::Invalid(reason)))?;
        // One of an earlier request was overtaken; it is acknowledged, and nobody needs it.
        self.store.set_profile_report(&report, now()).await?;
        Ok(())
    }

    fn take_want(&self, device: &DeviceId, payload: &[u8]) -> Result<(), Failed> {
        let want: Want = decode(wire::decode_json("want", payload)).map_err(Failed::Refused)?;
        want.validate().map_err(|reason| Failed::Refused(Refused::Invalid(reason)))?;
        self.inbox.want(device, want);
        Ok(())
    }
}
