//! Ending a device's connection at a broker that takes no orders: whoever connects under the same client id takes the
//! session over, and the connection before it ends (MQTT 5, section 3.1.4). The control plane can be any device for that
//! moment, since it holds the CA.

use super::{Address, Identities, client_options, tls::why};
use rumqttc::{
    Outgoing,
    v5::{AsyncClient, Event, mqttbytes::v5::Packet},
};
use shared::DeviceId;
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// A device that goes on talking is put out again after this long, and not more often.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Those that are put out again at one time.
const AT_ONCE_MAX: usize = 4;
/// Devices whose last takeover is remembered.
const REMEMBERED_MAX: usize = 4096;

/// Takes sessions over.
#[derive(Clone)]
pub(super) struct Takeovers {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    identities: Arc<dyn Identities>,
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// To be put out when the broker is there again.
    waiting: BTreeSet<DeviceId>,
    last: HashMap<DeviceId, Instant>,
}

impl fmt::Debug for Takeovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Takeovers({})", self.inner.address)
    }
}

impl Takeovers {
    pub(super) fn new(address: Address, identities: Arc<dyn Identities>) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE_MAX));
        Self { inner: Arc::new(Inner { address, identities, places, state: Mutex::default() }) }
    }

    /// Ends the device's connection and session. What fails is tried again when the broker was reached anew.
    pub(super) async fn put_out(&self, device: &DeviceId) {
        self.state().note(device, Instant::now());
        if let Err(reason) = self.take_over(device).await {
            tracing::warn!("the connection of {device} could not be ended yet: {reason}");
            self.later(device);
        }
    }

    /// The same, when the broker is there again.
    pub(super) fn later(&self, device: &DeviceId) {
        self.state().waiting.insert(device.clone());
    }

    /// The same in the background, for a device that goes on talking; not too often.
    pub(super) fn again(&self, device: DeviceId) {
        let now = Instant::now();
        if !self.state().may_again(&device, now) {
            return;
        }
        // With no place free it is put out for one of its next messages.
        let Ok(place) = Arc::clone(&self.inner.places).try_acquire_owned() else { return };
        let takeovers = self.clone();
        tokio::spawn(async move {
            takeovers.put_out(&device).await;
            drop(place);
        });
    }

    /// The broker is there: puts out those that wait.
    pub(super) fn catch_up(&self) {
        let waiting = std::mem::take(&mut self.state().waiting);
        if waiting.is_empty() {
            return;
        }
        let takeovers = self.clone();
        tokio::spawn(async move {
            for device in &waiting {
                takeovers.put_out(device).await;
            }
        });
    }

    async fn take_over(&self, device: &DeviceId) -> Result<(), String> {
        let identity = self.inner.identities.of_device(device)?;
        let mut options = client_options(&self.inner.address, device.as_str(), identity.tls()?);
        options.set_clean_start(true);
        options.set_session_expiry_interval(Some(0));
        let (client, mut events) = AsyncClient::new(options, 1);
        let work = async {
            let mut taken = false;
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        taken = true;
                        client.try_disconnect().map_err(|error| error.to_string())?;
                    }
                    Ok(Event::Outgoing(Outgoing::Disconnect)) => return Ok(()),
                    Ok(_) => {}
                    // The device may have come again meanwhile, and taken its session back.
                    Err(_) if taken => return Ok(()),
                    Err(error) => return Err(why(&error)),
                }
            }
        };
        match tokio::time::timeout(TAKEOVER_TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => Err(format!("the broker did not answer within {} s", TAKEOVER_TIMEOUT.as_secs())),
        }
    }

    /// Nothing in here panics while it holds the lock, so what it guards is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, device: &DeviceId, now: Instant) {
        if self.last.len() >= REMEMBERED_MAX {
            self.last.retain(|_, last| now.duration_since(*last) < AGAIN_AFTER);
        }
        if self.last.len() < REMEMBERED_MAX {
            self.last.insert(device.clone(), now);
        }
    }

    fn may_again(&self, device: &DeviceId, now: Instant) -> bool {
        self.last.get(device).is_none_or(|last| now.duration_since(*last) >= AGAIN_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_goes_on_talking_is_not_put_out_for_each_word() {
        let mut state = State::default();
        let (device, start) = ("cam-01".parse().unwrap(), Instant::now());
        assert!(state.may_again(&device, start));
        state.note(&device, start);
        assert!(!state.may_again(&device, start + AGAIN_AFTER / 2));
        assert!(state.may_again(&device, start + AGAIN_AFTER));
        for number in 0..2 * REMEMBERED_MAX {
            state.note(&format!("cam-{number}").parse().unwrap(), start);
        }
        assert!(state.last.len() <= REMEMBERED_MAX);
    }
}
