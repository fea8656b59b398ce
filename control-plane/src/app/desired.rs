//! Bringing desired states to the broker: compared with what it has, again and again, whoever changed them.

use super::{App, Error, Result, chain};
use crate::broker::Broker;
use control_core::entity::Device;
use futures::{StreamExt, stream};
use shared::{DeviceId, topic::Topic, wire::Desired};
use std::collections::HashMap;

/// Desired states that are on their way to the broker at one time.
const AT_ONCE_MAX: usize = 32;

/// What the broker has of each device's desired states. It may remember nothing over a restart, so this starts empty.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<DeviceId, Telling>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// The broker has this generation.
    Done(u64),
    /// This generation could not be published; said once in the log.
    Failed(u64),
}

impl App {
    /// Publishes every desired state that the broker does not have. What fails is logged, keeps nobody else waiting,
    /// and is tried again by the next call.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn publish_desired(&self) -> Result<()> {
        let Some(broker) = self.broker() else { return Ok(()) };
        let broker = &broker;
        // Held to the end: an older generation never overtakes a newer one.
        let mut told = self.told.lock().await;
        let wanted = self.store.desired_generations().await?.into_iter();
        let wanted: Vec<_> =
            wanted.filter(|(id, generation)| told.0.get(id) != Some(&Telling::Done(*generation))).collect();
        let mut tellings = stream::iter(wanted)
            .map(|(id, generation)| async move { (self.tell(broker, &id).await, id, generation) })
            .buffer_unordered(AT_ONCE_MAX);
        // A broker that is away is told everything when it is back.
        while !self.is_stopping() && broker.is_connected() {
            let Some((result, id, generation)) = tellings.next().await else { break };
            let telling = match result {
                Ok(Some(generation)) => Telling::Done(generation),
                Ok(None) => continue,
                Err(error) => {
                    let failed = Telling::Failed(generation);
                    if told.0.get(&id) != Some(&failed) {
                        tracing::error!("generation {generation} does not reach {id}: {}", chain(&error));
                    }
                    failed
                }
            };
            told.0.insert(id, telling);
        }
        Ok(())
    }

    /// The broker may have lost what it had.
    pub(super) async fn forget_told_desired(&self) {
        self.told.lock().await.0.clear();
    }

    /// Publishes the newest desired state of a device and gives its generation; nothing for one that was revoked.
    async fn tell(&self, broker: &Broker, id: &DeviceId) -> Result<Option<u64>> {
        let device = self.store.device(id).await?.filter(|device| device.revoked_at.is_none());
        let Some(device) = device else { return Ok(None) };
        let envelope = self.sign_desired(&device)?;
        broker
            .publish(&Topic::Desired(device.id), envelope.into(), true)
            .await
            .map_err(|error| Error::Internal(chain(&error)))?;
        Ok(Some(device.generation))
    }

    fn sign_desired(&self, device: &Device) -> Result<Vec<u8>> {
        let desired = Desired {
            device: device.id.clone(),
            generation: device.generation,
            issued_at: device.desired_at,
            chunk_bytes: device.chunk_bytes,
            assignments: device.assignments.clone(),
        };
        self.signer.sign_desired(&desired).map_err(|error| Error::Internal(chain(&error)))
    }
}
