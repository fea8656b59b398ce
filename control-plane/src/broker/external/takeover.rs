//! Ending a device's connection at a broker that takes no orders: whoever connects under the same client id takes the
//! session over, and the connection before it ends (MQTT 5, section 3.1.4). The control plane can be any device for that
//! moment, since it holds the CA.
//!
//! The broker lets a revoked device in again until it has read a list that names it, and nobody tells when it has. So the
//! device is put out again and again, sooner when it talks: once the list is read that is the end of it.

use super::{super::Ingest, Address, CONNECT_TIMEOUT, Identities, KEEP_ALIVE, tls::why};
use rumqttc::{
    Outgoing, TlsConfiguration, Transport,
    v5::{AsyncClient, Event, MqttOptions, mqttbytes::v5::Packet},
};
use shared::DeviceId;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// A device that was put out is put out again after this long, then after twice that, and so on.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// When the next time would be later than this the device is left alone until it talks.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How often is looked for those whose time has come.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Devices that are put out again.
const DEVICES_MAX: usize = 4096;

/// Takes sessions over.
#[derive(Clone)]
pub(super) struct Takeovers {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    identities: Arc<dyn Identities>,
    ingest: Arc<dyn Ingest>,
    turns: Mutex<Turns>,
}

impl fmt::Debug for Takeovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Takeovers({})", self.inner.address)
    }
}

impl Takeovers {
    pub(super) fn new(address: Address, identities: Arc<dyn Identities>, ingest: Arc<dyn Ingest>) -> Self {
        Self { inner: Arc::new(Inner { address, identities, ingest, turns: Mutex::default() }) }
    }

    /// Ends the device's connection and session, and again as long as no certificate of it is good.
    pub(super) async fn put_out(&self, device: &DeviceId) {
        self.turns().put_out(device, Instant::now());
        if let Err(reason) = self.take_over(device).await {
            tracing::warn!("the connection of {device} could not be ended yet: {reason}");
        }
    }

    /// The same, as soon as the broker is there.
    pub(super) fn put_out_later(&self, device: &DeviceId) {
        self.turns().talks(device, Instant::now());
    }

    /// A device talks that has no good certificate.
    pub(super) fn talks(&self, device: &DeviceId) {
        self.turns().talks(device, Instant::now());
    }

    /// Puts out those whose time has come, as long as this is polled.
    pub(super) async fn run(&self, is_connected: impl Fn() -> bool) {
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            if !is_connected() {
                continue;
            }
            let due = self.turns().due(Instant::now());
            for device in due {
                match self.inner.ingest.with_good_certificates(std::slice::from_ref(&device)).await {
                    // It has enrolled anew.
                    Ok(good) if good.contains(&device) => self.turns().forget(&device),
                    Ok(_) => {
                        if let Err(reason) = self.take_over(&device).await {
                            tracing::debug!("the connection of {device} could not be ended: {reason}");
                        }
                    }
                    Err(_) => {}
                }
            }
        }
    }

    async fn take_over(&self, device: &DeviceId) -> Result<(), String> {
        let identity = self.inner.identities.of_device(device)?;
        let Address { host, port } = &self.inner.address;
        let mut options = MqttOptions::new(device.as_str(), host, *port);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(identity.tls()?)));
        options.set_keep_alive(KEEP_ALIVE);
        options.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
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
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When which device is put out again.
#[derive(Debug, Default)]
struct Turns(BTreeMap<DeviceId, Turn>);

#[derive(Debug)]
struct Turn {
    at: Instant,
    /// Until the one after that.
    wait: Duration,
}

impl Turns {
    /// It is put out now.
    fn put_out(&mut self, device: &DeviceId, now: Instant) {
        self.set(device, Turn { at: now + AGAIN_AFTER, wait: 2 * AGAIN_AFTER });
    }

    /// It goes on talking: it is put out soon, but not for every word.
    fn talks(&mut self, device: &DeviceId, now: Instant) {
        let at = self.0.get(device).map_or(now, |turn| turn.at.min(now + AGAIN_AFTER));
        self.set(device, Turn { at, wait: AGAIN_AFTER });
    }

    fn set(&mut self, device: &DeviceId, turn: Turn) {
        if self.0.contains_key(device) || self.0.len() < DEVICES_MAX {
            self.0.insert(device.clone(), turn);
        }
    }

    /// Those whose time has come, each with its next time set.
    fn due(&mut self, now: Instant) -> Vec<DeviceId> {
        let due: Vec<DeviceId> =
            self.0.iter().filter(|(_, turn)| turn.at <= now).map(|(device, _)| device.clone()).collect();
        for device in &due {
            if let Some(turn) = self.0.get_mut(device) {
                turn.at = now + turn.wait;
                turn.wait *= 2;
            }
        }
        self.0.retain(|_, turn| turn.wait <= 2 * AGAIN_AFTER_MAX);
        due
    }

    fn forget(&mut self, device: &DeviceId) {
        self.0.remove(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceId {
        "cam-01".parse().unwrap()
    }

    #[test]
    fn a_silent_device_is_put_out_again_ever_later_and_at_last_left_alone() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        turns.put_out(&device(), start);
        let mut times = Vec::new();
        for s in 0..100_000 {
            if !turns.due(start + Duration::from_secs(s)).is_empty() {
                times.push(s);
            }
        }
        assert_eq!(times[..4], [5, 15, 35, 75]);
        assert!(times.len() < 16 && turns.0.is_empty(), "{times:?}");
    }

    #[test]
    fn a_device_that_talks_is_put_out_soon_and_not_for_every_word() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let mut count = 0;
        for s in 0..100 {
            turns.talks(&device(), start + Duration::from_secs(s));
            turns.talks(&device(), start + Duration::from_secs(s));
            count += turns.due(start + Duration::from_secs(s)).len();
        }
        assert_eq!(count, 20, "one in five seconds");
        turns.forget(&device());
        assert!(turns.due(start + Duration::from_secs(1000)).is_empty());
    }

    #[test]
    fn no_more_devices_than_there_is_room_for_wait_for_their_turn() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        for number in 0..2 * DEVICES_MAX {
            turns.talks(&format!("cam-{number}").parse().unwrap(), start);
        }
        assert_eq!(turns.due(start).len(), DEVICES_MAX);
    }
}
