//! A broker elsewhere, whose client the control plane is: MQTT 5 over mutual TLS.
//!
//! Each connection has a fresh certificate, and nothing that was not acknowledged lives on in memory across a
//! reconnect. The session is kept by the broker: what devices say while the control plane is away waits there. What the
//! control plane has told is told again by the application at each of the [`External::arrivals`].

mod address;
mod connection;
mod flights;
mod intake;
mod takeover;
mod tls;
mod wire;

use super::{Error, Ingest, Standing, expiry_s};
use bytes::Bytes;
use connection::{Connection, End, Order};
use flights::Flight;
use intake::Intake;
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Publish, PublishProperties},
};
use shared::{DeviceId, backoff::Backoff, topic::Topic};
use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use takeover::Takeovers;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout},
};

pub use address::Address;
pub use tls::{CLIENT_NAME, Identities, Identity};

/// What devices publish; `+` stands for any of them.
const SAID_BY_DEVICES: [&str; 7] =
    ["reported", "presence", "telemetry", "feedback", "event", "blob/want", "profile/report"];
/// Publishes that may be on their way.
const INFLIGHT_MAX: u16 = 64;
/// Messages that the broker may send before it waits for acknowledgements.
const RECEIVE_MAX: u16 = 512;
/// How long the broker keeps what devices say while the control plane is away.
const SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const RECONNECT_MS: u64 = 250;
const RECONNECT_MS_MAX: u64 = 15_000;
/// A connection that lasted this long starts the back-off anew.
const STABLE: Duration = Duration::from_secs(10);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Of a publish besides topic and payload, with room.
const PACKET_EXTRA_BYTES: usize = 64;

/// The connection to a broker elsewhere; a task behind it keeps it.
#[derive(Clone)]
pub struct External {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    identities: Arc<dyn Identities>,
    ingest: Arc<dyn Ingest>,
    takeovers: Takeovers,
    window: Arc<Semaphore>,
    current: Mutex<Current>,
    standing: watch::Sender<Standing>,
    arrivals: watch::Sender<u64>,
    /// The connection shall be made anew, or is not to be waited for.
    again: Notify,
    closing: AtomicBool,
    ended: watch::Sender<bool>,
}

/// What belongs to one connection.
#[derive(Debug, Default)]
struct Current {
    /// None while there is no connection.
    orders: Option<mpsc::UnboundedSender<Order>>,
    packet_bytes_max: usize,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "External({})", self.shared.address)
    }
}

impl External {
    pub(super) fn start(address: Address, identities: Arc<dyn Identities>, ingest: Arc<dyn Ingest>) -> Self {
        let shared = Shared {
            takeovers: Takeovers::new(address.clone(), Arc::clone(&identities), Arc::clone(&ingest)),
            address,
            identities,
            ingest,
            window: Arc::new(Semaphore::new(usize::from(INFLIGHT_MAX))),
            current: Mutex::default(),
            standing: watch::channel(Standing { external: true, connected: false, trouble: None }).0,
            arrivals: watch::channel(0).0,
            again: Notify::new(),
            closing: AtomicBool::new(false),
            ended: watch::channel(false).0,
        };
        let broker = Self { shared: Arc::new(shared) };
        let keeper = broker.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = keeper.keep_connected() => {}
                () = keeper.shared.takeovers.run(|| keeper.standing().connected) => {}
            }
            keeper.shared.ended.send_replace(true);
        });
        broker
    }

    pub(super) async fn publish(&self, topic: &Topic, payload: Bytes, retain: bool) -> Result<(), Error> {
        let text = topic.to_string();
        self.try_publish(text.clone(), expiry_s(topic), payload, retain)
            .await
            .map_err(|reason| Error::Publish { topic: text, reason })
    }

    async fn try_publish(
        &self,
        topic: String,
        expiry_s: Option<u32>,
        payload: Bytes,
        retain: bool,
    ) -> Result<(), String> {
        let away = || "the broker is not connected".to_owned();
        if self.current().orders.is_none() {
            return Err(away());
        }
        let place = timeout(PUBLISH_TIMEOUT, Arc::clone(&self.shared.window).acquire_owned());
        let place = place.await.map_err(|_| "the broker takes nothing".to_owned())?.map_err(|_| away())?;
        let (landed, answer) = oneshot::channel();
        {
            let current = self.current();
            let orders = current.orders.as_ref().ok_or_else(away)?;
            let bytes = topic.len() + payload.len() + PACKET_EXTRA_BYTES;
            if bytes > current.packet_bytes_max {
                return Err(format!("the broker takes no more than {} bytes", current.packet_bytes_max));
            }
            let properties = PublishProperties { message_expiry_interval: expiry_s, ..Default::default() };
            let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, Some(properties));
            publish.retain = retain;
            let order = Order::Publish(Box::new(publish), Flight { _place: place, landed });
            orders.send(order).map_err(|_| away())?;
        }
        if !retain {
            // A chunk that gets lost is asked for again.
            return Ok(());
        }
        match timeout(PUBLISH_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err("the connection was lost".to_owned()),
            Err(_) => Err("the broker did not acknowledge it".to_owned()),
        }
    }

    pub(super) async fn kick(&self, device: &DeviceId) {
        if self.standing().connected {
            self.shared.takeovers.put_out(device).await;
        } else {
            self.shared.takeovers.put_out_later(device);
        }
    }

    /// Connects anew, with a fresh certificate.
    pub(super) fn reconnect(&self) {
        self.shared.again.notify_one();
    }

    pub(super) fn standing(&self) -> Standing {
        self.shared.standing.borrow().clone()
    }

    pub(super) fn arrivals(&self) -> watch::Receiver<u64> {
        self.shared.arrivals.subscribe()
    }

    pub(super) async fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.again.notify_one();
        let mut ended = self.shared.ended.subscribe();
        // What was not acknowledged comes again after the next start.
        let _ = timeout(CLOSE_TIMEOUT, ended.wait_for(|&ended| ended)).await;
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Nothing in here panics while it holds the lock, so what it guards is whole.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stands(&self, connected: bool, trouble: Option<String>) {
        self.shared.standing.send_replace(Standing { external: true, connected, trouble });
    }

    async fn keep_connected(&self) {
        // Another in each process: not every control plane comes back to its broker at one moment.
        let seed = RandomState::new().hash_one(CLIENT_NAME);
        let mut backoff = Backoff::new(RECONNECT_MS, RECONNECT_MS_MAX, seed);
        let mut said = String::new();
        while !self.is_closing() {
            let began = Instant::now();
            let end = self.connection().await;
            *self.current() = Current::default();
            self.stands(false, Some(end.reason.clone()));
            if self.is_closing() {
                return;
            }
            if end.wanted {
                tracing::info!("connecting to {} again: {}", self.shared.address, end.reason);
                continue;
            }
            if end.was_up && began.elapsed() > STABLE {
                backoff.reset();
            }
            if end.was_up || end.reason != said {
                tracing::warn!(
                    "not connected to {}; trying again until it is: {}",
                    self.shared.address,
                    end.reason
                );
                said = end.reason;
            }
            let wait = Duration::from_millis(backoff.next_ms());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.again.notified() => {}
            }
        }
    }

    /// One connection from its start to its end, with all that was taken in over it.
    async fn connection(&self) -> End {
        let failed = |reason| End { reason, was_up: false, wanted: false };
        let identity = match self.shared.identities.own() {
            Ok(identity) => identity,
            Err(reason) => return failed(reason),
        };
        let tls = match identity.tls() {
            Ok(tls) => tls,
            Err(reason) => return failed(reason),
        };
        let stream = match timeout(CONNECT_TIMEOUT, wire::open(&self.shared.address, tls)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(reason)) => return failed(tls::explained(&reason)),
            Err(_) => return failed("the broker does not answer".to_owned()),
        };
        let (messages, inbox) = mpsc::unbounded_channel();
        let (fault, over) = (Arc::<Notify>::default(), Arc::<AtomicBool>::default());
        let connection = Connection::new(self, stream, messages, Arc::clone(&fault));
        let intake = Intake {
            ingest: Arc::clone(&self.shared.ingest),
            orders: connection.orders(),
            takeovers: self.shared.takeovers.clone(),
            fault,
            over: Arc::clone(&over),
        };
        let taking = tokio::spawn(intake.run(inbox));
        let end = connection.run(Instant::now() + identity.renew_after).await;
        over.store(true, Ordering::Release);
        // The next connection brings again what was not acknowledged over this one: nothing of it may still be under way.
        if let Err(error) = taking.await {
            tracing::error!("taking in messages broke off: {error}");
        }
        end
    }

    /// A connection is greeted: so large a packet may be.
    fn set_packet_bytes_max(&self, bytes: u32) {
        self.current().packet_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }

    /// A connection is up, and takes orders.
    fn arrived(&self, orders: mpsc::UnboundedSender<Order>) {
        self.current().orders = Some(orders);
        tracing::info!("connected to {}", self.shared.address);
        self.stands(true, None);
        self.shared.arrivals.send_modify(|count| *count += 1);
    }
}

fn filter(what: &str) -> String {
    format!("{}/device/+/{what}", shared::topic::PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_devices_may_publish_is_subscribed_to_and_nothing_else() {
        let device: DeviceId = "cam-01".parse().unwrap();
        for what in SAID_BY_DEVICES {
            let topic = filter(what).replace('+', device.as_str()).parse::<Topic>().unwrap();
            assert!(topic.device_may_publish(&device), "{topic}");
        }
        let acl = include_str!("../../../firmware-configs/mosquitto/acl");
        let written = acl.lines().filter_map(|line| line.strip_prefix("pattern write "));
        let ours = SAID_BY_DEVICES.map(|what| filter(what).replace('+', "%u"));
        assert_eq!(written.collect::<Vec<_>>(), ours);
        assert!(acl.contains(&format!("user {CLIENT_NAME}\n")));
    }
}
