//! Latency profiles: asking the devices of a board, and what their answers say.

use super::{App, Error, Result, chain, now, unknown};
use crate::{broker::Broker, store::PROFILES_MAX};
use control_core::profile::{BoardProfile, workloads};
use serde::{Deserialize, Serialize};
use shared::{BoardId, DeviceId, latency::BoardLatency, profile::ProfileRequest, topic::Topic};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// Most devices that are asked at once where none is named: more of one kind say little more.
const DEVICES_DEFAULT: usize = 8;
/// Most devices that may be named.
const DEVICES_MAX: usize = PROFILES_MAX as usize;
/// After so long a device sends what it has.
const DURATION_MS: u64 = 10 * 60 * 1000;
/// How often what the broker does not have yet is told again.
const TELL_PERIOD: Duration = Duration::from_secs(5);

/// Who shall measure.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProfile {
    /// Devices of the board; where none is named, those that are there.
    #[serde(default)]
    pub devices: Vec<DeviceId>,
}

/// Which requests the broker has. It may remember nothing over a restart, so this starts empty.
pub(super) type Asked = HashMap<DeviceId, u64>;

impl App {
    /// Asks devices of a board to measure; a device that is away does when it is back.
    pub async fn profile_board(&self, board: &BoardId, new: &NewProfile) -> Result<BoardProfile> {
        self.board(board)?;
        let devices = self.devices_to_ask(board, new).await?;
        self.store.ask_profiles(board, &devices, &workloads(), now()).await?;
        self.profiles_wake.notify_one();
        self.board_profile(board).await
    }

    /// What is known of a board's latencies.
    pub async fn board_profile(&self, board: &BoardId) -> Result<BoardProfile> {
        self.board(board)?;
        Ok(BoardProfile::of(board.clone(), &self.store.profiles_of(board).await?))
    }

    /// What a job for the board may reckon with; nothing where nothing was measured. Whether it is good enough says
    /// itself.
    pub(super) async fn latency_of(&self, board: &BoardId) -> Result<Option<BoardLatency>> {
        Ok(self.board_profile(board).await?.latency)
    }

    async fn devices_to_ask(&self, board: &BoardId, new: &NewProfile) -> Result<Vec<DeviceId>> {
        let fleet = self.store.fleet().await?;
        let of_board: Vec<_> =
            fleet.iter().filter(|device| device.board == *board && device.revoked_at.is_none()).collect();
        if new.devices.len() > DEVICES_MAX {
            return Err(Error::Invalid(format!(
                "{} devices are named, at most {DEVICES_MAX}",
                new.devices.len()
            )));
        }
        for id in &new.devices {
            if of_board.iter().any(|device| device.id == *id) {
                continue;
            }
            return Err(match fleet.iter().find(|device| device.id == *id) {
                None => {
                    let known = fleet.iter().map(|device| device.id.as_str());
                    Error::NotFound(unknown("device", id.as_str(), known, "edgewright device list"))
                }
                Some(device) if device.revoked_at.is_some() => {
                    Error::Conflict(format!("device {id} was revoked"))
                }
                Some(device) => {
                    Error::Invalid(format!("device {id} is of board {}, not of {board}", device.board))
                }
            });
        }
        if !new.devices.is_empty() {
            let named: BTreeSet<_> = new.devices.iter().cloned().collect();
            return Ok(named.into_iter().collect());
        }
        let online = of_board.iter().filter(|device| device.online).map(|device| device.id.clone());
        let devices: Vec<_> = online.take(DEVICES_DEFAULT).collect();
        if devices.is_empty() {
            return Err(Error::Conflict(format!(
                "no device of board {board} is online; enrol one, or name one with --device, which measures when it is back"
            )));
        }
        Ok(devices)
    }

    /// Brings requests to the broker, until the application stops.
    pub async fn run_profiles(self: Arc<Self>) {
        let mut arrivals = self.broker().and_then(|broker| broker.arrivals());
        let (mut asked, mut arrived) = (Asked::new(), None);
        loop {
            let arrivals = arrivals.as_mut().map(|arrivals| *arrivals.borrow_and_update());
            if arrivals != arrived {
                // The broker may have lost what it had.
                arrived = arrivals;
                asked.clear();
            }
            if let Err(error) = self.publish_profile_requests(&mut asked).await {
                tracing::error!("profile requests cannot be looked up: {}", chain(&error));
            }
            tokio::select! {
                () = self.stopped() => return,
                () = self.profiles_wake.notified() => {}
                () = tokio::time::sleep(TELL_PERIOD) => {}
            }
        }
    }

    async fn publish_profile_requests(&self, asked: &mut Asked) -> Result<()> {
        let Some(broker) = self.broker().filter(Broker::is_connected) else { return Ok(()) };
        let open = self.store.open_profiles().await?;
        asked.retain(|device, _| open.iter().any(|(open, _)| open == device));
        for (device, generation) in open {
            if asked.get(&device) == Some(&generation) {
                continue;
            }
            match self.publish_profile_request(&broker, &device).await {
                Ok(Some(generation)) => {
                    asked.insert(device, generation);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(
                        "profile request {generation} does not reach {device}: {}",
                        chain(&error)
                    );
                }
            }
        }
        Ok(())
    }

    /// Publishes the newest request to a device, and gives its generation.
    async fn publish_profile_request(&self, broker: &Broker, device: &DeviceId) -> Result<Option<u64>> {
        let Some(profile) = self.store.profile(device).await? else { return Ok(None) };
        let request = ProfileRequest {
            device: profile.device,
            generation: profile.generation,
            issued_at: profile.asked_at,
            duration_ms_max: DURATION_MS,
            workloads: profile.workloads,
        };
        let internal = |error: &dyn std::error::Error| Error::Internal(chain(error));
        let envelope = self.signer.sign_profile_request(&request).map_err(|error| internal(&error))?;
        let topic = Topic::ProfileAsk(request.device);
        broker.publish(&topic, envelope.into(), true).await.map_err(|error| internal(&error))?;
        Ok(Some(request.generation))
    }
}

#[cfg(test)]
mod tests;
