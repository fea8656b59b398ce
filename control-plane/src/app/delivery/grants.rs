//! Which blobs a device may have: the bundles that it shall run, their files, and the deltas to these, in chunks of the size that its
//! signed desired state names.

use super::super::{App, Result, now};
use shared::{DeviceId, Digest, ModelVersionId, Timestamp, wire::Want};
use std::collections::HashMap;

/// What was looked up of devices and versions, so that a want costs nothing as a rule.
#[derive(Debug, Default)]
pub(super) struct Grants {
    devices: HashMap<DeviceId, Grant>,
    /// Files of versions with their sizes; they never change.
    files: HashMap<ModelVersionId, Vec<(Digest, u64)>>,
}

#[derive(Debug)]
struct Grant {
    looked_at: Timestamp,
    chunk_bytes: u32,
    sizes: HashMap<Digest, u64>,
}

impl Grant {
    fn size_of(&self, want: &Want) -> Option<u64> {
        (self.chunk_bytes == want.chunk_bytes).then(|| self.sizes.get(&want.digest).copied()).flatten()
    }
}

/// Devices, and versions, that are remembered.
const REMEMBERED_MAX: usize = 4096;
/// What a device may have is looked up again after this long at the latest.
const GRANT_MS_MAX: u64 = 60_000;
/// And after this long at the earliest, however often a device asks for what it may not have.
const GRANT_MS_MIN: u64 = 100;

impl Grants {
    /// Forgets a device that is gone.
    pub(super) fn forget(&mut self, device: &DeviceId) {
        self.devices.remove(device);
    }
}

impl App {
    /// The size of the blob, if the device may have it in chunks of that size.
    pub(super) async fn granted(
        &self,
        device: &DeviceId,
        want: &Want,
        grants: &mut Grants,
    ) -> Result<Option<u64>> {
        let now = now();
        if let Some(grant) = grants.devices.get(device) {
            let age_ms = now.since_ms(grant.looked_at);
            let size = grant.size_of(want);
            if (size.is_some() && age_ms < GRANT_MS_MAX) || age_ms < GRANT_MS_MIN {
                return Ok(size);
            }
        }
        let grant = self.look_up_grant(device, grants, now).await?;
        let size = grant.size_of(want);
        if size.is_none() {
            tracing::debug!(
                "{device} wants {} in chunks of {} bytes and may not",
                want.digest,
                want.chunk_bytes
            );
        }
        if grants.devices.len() >= REMEMBERED_MAX {
            grants.devices.clear();
        }
        grants.devices.insert(device.clone(), grant);
        Ok(size)
    }

    async fn look_up_grant(&self, id: &DeviceId, grants: &mut Grants, now: Timestamp) -> Result<Grant> {
        let mut grant = Grant { looked_at: now, chunk_bytes: 0, sizes: HashMap::new() };
        let device = self.store.device(id).await?.filter(|device| device.revoked_at.is_none());
        let Some(device) = device else { return Ok(grant) };
        grant.chunk_bytes = device.chunk_bytes;
        for assignment in &device.assignments {
            grant.sizes.insert(assignment.bundle, assignment.bundle_bytes);
            grant.sizes.extend(assignment.deltas.iter().map(|delta| (delta.delta, delta.bytes)));
            if !grants.files.contains_key(&assignment.version_id) {
                let Some(version) = self.store.version(assignment.version_id).await? else { continue };
                if grants.files.len() >= REMEMBERED_MAX {
                    grants.files.clear();
                }
                let files = version.files.iter().map(|file| (file.digest, file.size_bytes)).collect();
                grants.files.insert(assignment.version_id, files);
            }
            grant.sizes.extend(grants.files.get(&assignment.version_id).into_iter().flatten().copied());
        }
        Ok(grant)
    }
}
