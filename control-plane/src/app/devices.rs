//! Devices: showing, labelling, revoking.

use super::{App, DeviceFilter, Error, Page, Result, changes::ChangeKind, now, unknown};
use control_core::entity::{Device, DeviceEvent, SecurityEvent};
use shared::DeviceId;
use std::collections::BTreeMap;

/// Most labels of one device.
const LABELS_MAX: usize = 32;
/// Longest key or value of a label in bytes.
const LABEL_BYTES_MAX: usize = 128;

impl App {
    /// One device; the error names those that are near.
    pub async fn device(&self, id: &DeviceId) -> Result<Device> {
        match self.store.device(id).await? {
            Some(device) => Ok(device),
            None => {
                let known = self.store.fleet().await?;
                let known = known.iter().map(|device| device.id.as_str());
                Err(Error::NotFound(unknown("device", id.as_str(), known, "edgewright device list")))
            }
        }
    }

    /// Devices by id, of those that the filter names.
    pub async fn devices(&self, filter: &DeviceFilter, page: &Page) -> Result<Vec<Device>> {
        Ok(self.store.devices(filter, page).await?)
    }

    /// Events of one device or of all, the newest first.
    pub async fn device_events(&self, id: Option<&DeviceId>, page: &Page) -> Result<Vec<DeviceEvent>> {
        if let Some(id) = id {
            self.device(id).await?;
        }
        self.see_all().await;
        Ok(self.store.device_events(id, page).await?)
    }

    /// What was refused, the newest first.
    pub async fn security_events(&self, page: &Page) -> Result<Vec<SecurityEvent>> {
        self.flush_refusals().await;
        Ok(self.store.security_events(page).await?)
    }

    /// Replaces a device's labels.
    pub async fn label_device(&self, id: &DeviceId, labels: BTreeMap<String, String>) -> Result<Device> {
        if labels.len() > LABELS_MAX {
            return Err(Error::Invalid(format!("{} labels, at most {LABELS_MAX}", labels.len())));
        }
        for text in labels.iter().flat_map(|(key, value)| [key, value]) {
            let printable = text.chars().all(|c| !c.is_control() && c != '=');
            if text.is_empty() || text.len() > LABEL_BYTES_MAX || !printable {
                return Err(Error::Invalid(format!(
                    "label {text:?} is not valid: 1 to {LABEL_BYTES_MAX} bytes without '=' and control characters"
                )));
            }
        }
        self.device(id).await?;
        self.store.set_labels(id, &labels).await?;
        self.tell(ChangeKind::Device, id, "labelled");
        self.device(id).await
    }

    /// Revokes a device: its certificates are refused from now on and its connection ends.
    pub async fn revoke_device(&self, id: &DeviceId) -> Result<Device> {
        self.device(id).await?;
        self.store.revoke_device(id, now()).await?;
        self.tell(ChangeKind::Device, id, "revoked");
        self.revocations.notify_one();
        if let Some(broker) = self.broker() {
            broker.kick(id).await;
        }
        self.planner_wake.notify_one();
        self.device(id).await
    }
}
