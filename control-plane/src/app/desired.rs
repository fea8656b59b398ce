//! Bringing desired states to the broker: compared with what it has, again and again, whoever changed them.

use super::{App, Error, Result, chain};
use crate::broker::Broker;
use control_core::entity::Device;
use futures::{StreamExt, stream};
use shared::{DeviceId, topic::Topic, wire::Desired};
use std::collections::HashMap;

/// Desired states that are on their way to the broker at one time.
const AT_ONCE_MAX: usize = 32;
/// Devices that are read from the store at one time.
const READ_MAX: usize = 500;

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

impl Told {
    /// What became of a device's newest desired state.
    fn note(&mut self, device: Device, result: Result<()>) {
        let Device { id, generation, .. } = device;
        let telling = match result {
            Ok(()) => Telling::Done(generation),
            Err(error) => {
                let failed = Telling::Failed(generation);
                if self.0.get(&id) != Some(&failed) {
                    tracing::error!("generation {generation} does not reach {id}: {}", chain(&error));
                }
                failed
            }
        };
        self.0.insert(id, telling);
    }
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
        let wanted: Vec<DeviceId> = wanted
            .filter(|(id, generation)| told.0.get(id) != Some(&Telling::Done(*generation)))
            .map(|(id, _)| id)
            .collect();
        for wanted in wanted.chunks(READ_MAX) {
            let devices = self.store.devices_of(wanted).await?;
            // Some may have been revoked since.
            let mut tellings = stream::iter(devices.into_iter().filter(|device| device.revoked_at.is_none()))
                .map(|device| async move { (self.tell_desired(broker, &device).await, device) })
                .buffer_unordered(AT_ONCE_MAX);
            loop {
                // A broker that is away is told everything when it is back.
                if self.is_stopping() || !broker.is_connected() {
                    return Ok(());
                }
                let Some((result, device)) = tellings.next().await else { break };
                told.note(device, result);
            }
        }
        Ok(())
    }

    /// The broker may have lost what it had.
    pub(super) async fn forget_told_desired(&self) {
        self.told.lock().await.0.clear();
    }

    async fn tell_desired(&self, broker: &Broker, device: &Device) -> Result<()> {
        let envelope = self.sign_desired(device)?;
        let published = broker.publish(&Topic::Desired(device.id.clone()), envelope.into(), true).await;
        published.map_err(|error| Error::Internal(chain(&error)))
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
