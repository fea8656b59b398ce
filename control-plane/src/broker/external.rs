//! A broker elsewhere, whose client the control plane is: MQTT 5 over mutual TLS.
//!
//! Each connection has a fresh client and a fresh certificate; nothing unacknowledged lives in the library's memory across a
//! reconnect. The session is kept by the broker: what devices say while the control plane is away waits there. What the
//! control plane has told is told again by the application at each of the [`External::arrivals`].

mod address;
mod flights;
mod intake;
mod takeover;
mod tls;

use super::{Error, Ingest, Standing, expiry_s};
use bytes::Bytes;
use flights::{Flight, Flights};
use intake::{Intake, Waiting};
use rumqttc::{
    Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, Event, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{ConnAck, Filter, Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode},
        },
    },
};
use rustls::ClientConfig;
use shared::{DeviceId, backoff::Backoff, limits, topic::Topic};
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
/// Messages that the broker may send before it waits for acknowledgements. Not every broker keeps to it: mosquitto 2.0.11
/// keeps to its own `max_inflight_messages`.
const RECEIVE_MAX: u16 = 512;
/// Requests that may wait in the client: an acknowledgement for every number that a packet can have, every publish, and
/// some room.
const REQUESTS_MAX: usize = u16::MAX as usize + 1024;
/// Bytes of messages that wait to be taken in. While there are so many nothing is read from the broker.
const WAITING_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Of a message that waits besides topic and payload.
const WAITING_EXTRA_BYTES: usize = 512;
/// Why a connection ends whose messages cannot be kept.
const NOT_KEPT: &str = "a message could not be kept; it comes again";
/// How long the broker keeps what devices say while the control plane is away.
const SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT_S: u64 = 10;
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
    client: Option<AsyncClient>,
    flights: Flights,
    packet_bytes_max: usize,
}

/// How a connection ended.
struct End {
    reason: String,
    was_up: bool,
    /// By our own wish: no failure.
    wanted: bool,
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
        if self.current().client.is_none() {
            return Err(away());
        }
        let place = timeout(PUBLISH_TIMEOUT, Arc::clone(&self.shared.window).acquire_owned());
        let place = place.await.map_err(|_| "the broker takes nothing".to_owned())?.map_err(|_| away())?;
        let (landed, answer) = oneshot::channel();
        {
            let mut current = self.current();
            let client = current.client.clone().ok_or_else(away)?;
            let bytes = topic.len() + payload.len() + PACKET_EXTRA_BYTES;
            if bytes > current.packet_bytes_max {
                return Err(format!("the broker takes no more than {} bytes", current.packet_bytes_max));
            }
            let properties = PublishProperties { message_expiry_interval: expiry_s, ..Default::default() };
            // The numbers follow the order of the queue, so both change under one lock.
            client
                .try_publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties)
                .map_err(|_| "the connection's queue is full".to_owned())?;
            current.flights.add(Flight { _place: place, landed });
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
        let mut options = client_options(&self.shared.address, CLIENT_NAME, tls);
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(SESSION_EXPIRY_S));
        options.set_receive_maximum(Some(RECEIVE_MAX));
        options.set_manual_acks(true);
        let (client, events) = AsyncClient::new(options, REQUESTS_MAX);
        let (messages, inbox) = mpsc::unbounded_channel();
        let (fault, over) = (Arc::<Notify>::default(), Arc::<AtomicBool>::default());
        let intake = Intake {
            ingest: Arc::clone(&self.shared.ingest),
            client: client.clone(),
            takeovers: self.shared.takeovers.clone(),
            fault: Arc::clone(&fault),
            over: Arc::clone(&over),
        };
        let taking = tokio::spawn(intake.run(inbox));
        let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX as usize));
        let connection = Connection { broker: self, client, events, messages, room, fault, was_up: false };
        let end = connection.run(Instant::now() + identity.renew_after).await;
        over.store(true, Ordering::Release);
        // The next connection brings again what was not acknowledged over this one: nothing of it may still be under way.
        if let Err(error) = taking.await {
            tracing::error!("taking in messages broke off: {error}");
        }
        end
    }
}

/// A connection while it lasts.
struct Connection<'a> {
    broker: &'a External,
    client: AsyncClient,
    events: rumqttc::v5::EventLoop,
    messages: mpsc::UnboundedSender<Waiting>,
    /// Bytes that may still wait.
    room: Arc<Semaphore>,
    fault: Arc<Notify>,
    was_up: bool,
}

impl Connection<'_> {
    async fn run(mut self, renew_at: Instant) -> End {
        let shared = &self.broker.shared;
        let mut leaving: Option<&str> = None;
        loop {
            let event = tokio::select! {
                polled = self.events.poll() => match polled {
                    Ok(event) => event,
                    Err(error) => {
                        let reason = leaving.map_or_else(|| tls::why(&error), str::to_owned);
                        return End { reason, was_up: self.was_up, wanted: leaving.is_some() };
                    }
                },
                () = self.fault.notified() => {
                    return End { reason: NOT_KEPT.to_owned(), was_up: self.was_up, wanted: false };
                }
                () = shared.again.notified(), if leaving.is_none() => {
                    if !self.was_up {
                        return End { reason: "asked to".to_owned(), was_up: false, wanted: true };
                    }
                    leaving = self.leave("the CAs or the certificate changed");
                    continue;
                }
                () = tokio::time::sleep_until(renew_at), if leaving.is_none() => {
                    leaving = self.leave("the certificate is renewed");
                    continue;
                }
            };
            let broken = match event {
                Event::Outgoing(Outgoing::Disconnect) => Err(String::new()),
                Event::Outgoing(Outgoing::Publish(number)) => {
                    self.broker.current().flights.sent(number);
                    Ok(())
                }
                Event::Incoming(Packet::Publish(publish)) => self.heard(publish).await,
                Event::Incoming(packet) => self.incoming(packet),
                Event::Outgoing(_) => Ok(()),
            };
            if let Err(reason) = broken {
                let reason = leaving.map_or(reason, str::to_owned);
                return End { reason, was_up: self.was_up, wanted: leaving.is_some() };
            }
        }
    }

    /// Says goodbye; the connection ends when that is out.
    fn leave<'r>(&self, reason: &'r str) -> Option<&'r str> {
        if self.client.try_disconnect().is_err() {
            self.fault.notify_one();
        }
        Some(reason)
    }

    /// # Errors
    /// Why the connection is of no use.
    fn incoming(&mut self, packet: Packet) -> Result<(), String> {
        match packet {
            Packet::ConnAck(ack) => self.greeted(&ack),
            Packet::SubAck(ack) => {
                for (code, what) in ack.return_codes.iter().zip(SAID_BY_DEVICES) {
                    if !matches!(code, SubscribeReasonCode::Success(_)) {
                        return Err(format!(
                            "the broker refused the subscription to {} ({code:?}); is its ACL the one that `edgewright broker files` writes?",
                            filter(what)
                        ));
                    }
                }
                self.arrived();
                Ok(())
            }
            Packet::PubAck(ack) => {
                let result = match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                    reason => Err(format!("the broker answered {reason:?}")),
                };
                self.broker.current().flights.landed(ack.pkid, result);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Has a message taken in, as soon as there is room for it: meanwhile nothing is read, and so the broker waits too.
    ///
    /// # Errors
    /// Why the connection is of no use.
    async fn heard(&mut self, message: Publish) -> Result<(), String> {
        let bytes = message.topic.len() + message.payload.len() + WAITING_EXTRA_BYTES;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(WAITING_BYTES_MAX);
        let room = tokio::select! {
            room = Arc::clone(&self.room).acquire_many_owned(bytes) => room.map_err(|_| NOT_KEPT)?,
            () = self.fault.notified() => return Err(NOT_KEPT.to_owned()),
        };
        self.messages.send(Waiting { message, _room: room }).map_err(|_| NOT_KEPT.to_owned())
    }

    fn greeted(&mut self, ack: &ConnAck) -> Result<(), String> {
        let told = ack.properties.as_ref();
        if told.and_then(|told| told.retain_available) == Some(0) {
            return Err("the broker keeps no retained messages; desired states need them".to_owned());
        }
        let bytes_max = told.and_then(|told| told.max_packet_size).unwrap_or(limits::MQTT_PACKET_BYTES_MAX);
        self.broker.current().packet_bytes_max =
            usize::try_from(bytes_max.min(limits::MQTT_PACKET_BYTES_MAX)).unwrap_or(usize::MAX);
        // Also where the broker kept the session: it brings what is retained, which the store may have forgotten.
        let filters = SAID_BY_DEVICES.map(|what| Filter::new(filter(what), QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters).map_err(|error| error.to_string())
    }

    fn arrived(&mut self) {
        let shared = &self.broker.shared;
        self.was_up = true;
        self.broker.current().client = Some(self.client.clone());
        tracing::info!("connected to {}", shared.address);
        self.broker.stands(true, None);
        shared.arrivals.send_modify(|count| *count += 1);
    }
}

fn filter(what: &str) -> String {
    format!("{}/device/+/{what}", shared::topic::PREFIX)
}

/// What all clients of ours have in common.
fn client_options(address: &Address, client_id: &str, tls: Arc<ClientConfig>) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, &address.host, address.port);
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    options.set_keep_alive(KEEP_ALIVE);
    options.set_max_packet_size(Some(limits::MQTT_PACKET_BYTES_MAX));
    options.set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
    options.set_connection_timeout(CONNECT_TIMEOUT_S);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options
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
