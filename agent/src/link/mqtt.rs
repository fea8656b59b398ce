//! MQTT 5 over mutual TLS.
//!
//! Each connection has a fresh client: nothing unacknowledged lives in the library's memory across a reconnect, so
//! a record is sent again by the outbox alone, and never by both.

use super::{Link, LinkEvent, NotSent, Receipt, Refused, Token};
use crate::identity::Identity;
use arc_swap::ArcSwap;
use bytes::Bytes;
use rumqttc::{
    Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, Event, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{LastWill, Packet, PubAckReason, Publish, SubscribeReasonCode},
        },
    },
};
use rustls::ClientConfig;
use shared::{
    backoff::Backoff,
    causes, limits,
    topic::{Filter, Topic},
    wire,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// Publishes that may be on their way.
const INFLIGHT_MAX: u16 = 64;
/// Requests that may wait in the client.
const QUEUE_MAX: usize = 256;
/// Messages that the broker may send before it waits for acknowledgements.
const RECEIVE_MAX: u16 = 64;
/// How long the broker keeps the session of a device that is away.
const SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;
const CONNECT_TIMEOUT_S: u64 = 10;
const RECONNECT_MS: u64 = 500;
const RECONNECT_MS_MAX: u64 = 30_000;
/// A connection that lasted this long starts the back-off anew.
const STABLE: Duration = Duration::from_secs(10);

/// Why a connection ended that was renewed.
const RENEWED: &str = "the certificate was renewed";

/// The broker and how to reach it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub identity: Identity,
    /// With the device's certificate; each connection takes the newest.
    pub tls: Arc<ArcSwap<ClientConfig>>,
    pub keep_alive_ms: u64,
    /// Seed of the jitter between reconnects.
    pub seed: u64,
}

/// The link; a task behind it keeps the connection.
#[derive(Clone, Debug)]
pub struct Mqtt {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    current: Mutex<Current>,
    closing: AtomicBool,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Current {
    connection: u64,
    /// Ends the connection at once: what had to go out has no room in its queue, or the link is closed.
    broken: Arc<Notify>,
    /// The end is for another certificate's sake.
    renewed: bool,
    next_token: u64,
    client: Option<AsyncClient>,
    /// Publishes that the client has not numbered yet, in their order.
    unnumbered: VecDeque<Token>,
    numbered: HashMap<u16, Token>,
    /// Filters of subscriptions that the client has not numbered yet, in their order.
    unnumbered_filters: VecDeque<String>,
    numbered_filters: HashMap<u16, String>,
}

impl Mqtt {
    /// Connects, and reconnects until [`Link::close`]. Events go to `events`; the task ends when nobody listens.
    pub fn start(settings: Settings, events: mpsc::Sender<LinkEvent>) -> (Self, tokio::task::JoinHandle<()>) {
        let link = Self { shared: Arc::default() };
        let task = tokio::spawn(link.clone().keep_connected(settings, events));
        (link, task)
    }

    async fn keep_connected(self, settings: Settings, events: mpsc::Sender<LinkEvent>) {
        let mut backoff = Backoff::new(RECONNECT_MS, RECONNECT_MS_MAX, settings.seed);
        let mut said = String::new();
        while !self.shared.closing.load(Ordering::Acquire) {
            let began = tokio::time::Instant::now();
            let (reason, was_up) = self.connection(&settings, &events).await;
            self.current().forget();
            if self.shared.closing.load(Ordering::Acquire) {
                return;
            }
            if was_up {
                if events.send(LinkEvent::Down { reason: reason.clone() }).await.is_err() {
                    return;
                }
                if began.elapsed() > STABLE {
                    backoff.reset();
                }
            }
            if reason == RENEWED {
                tracing::info!("connecting again with the renewed certificate");
            } else if reason != said {
                tracing::warn!(reason, "not connected to the broker; trying again until it is");
                said = reason;
            }
            let wait = Duration::from_millis(backoff.next_ms());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// One connection from its start to its end: why it ended, and whether it was up.
    async fn connection(&self, settings: &Settings, events: &mpsc::Sender<LinkEvent>) -> (String, bool) {
        let mut was_up = false;
        let (connection, broken) = {
            let mut current = self.current();
            current.connection += 1;
            current.broken = Arc::default();
            current.renewed = false;
            (current.connection, current.broken.clone())
        };
        // The certificate is read after that: one that comes meanwhile ends this connection again.
        let (client, mut event_loop) = AsyncClient::new(options(settings), QUEUE_MAX);
        loop {
            let event = tokio::select! {
                polled = event_loop.poll() => match polled {
                    Ok(event) => event,
                    Err(error) => return (causes(&error), was_up),
                },
                () = broken.notified() => {
                    let why = if self.current().renewed { RENEWED } else { "its queue is full" };
                    return (why.to_owned(), was_up);
                }
            };
            let out = match event {
                Event::Incoming(Packet::ConnAck(ack)) => {
                    was_up = true;
                    self.current().client = Some(client.clone());
                    Some(LinkEvent::Up { session_present: ack.session_present })
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    let packet = if publish.qos == QoS::AtMostOnce { 0 } else { publish.pkid };
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    Some(LinkEvent::Message {
                        topic,
                        payload: publish.payload,
                        receipt: Receipt { connection, packet },
                    })
                }
                Event::Incoming(Packet::PubAck(ack)) => {
                    let result = match ack.reason {
                        PubAckReason::Success => Ok(()),
                        // Also where nobody listens: a broker that has lost the control plane's session keeps nothing.
                        reason @ PubAckReason::PayloadFormatInvalid => {
                            Err(Refused::Malformed(format!("{reason:?}")))
                        }
                        reason => Err(Refused::Busy(format!("{reason:?}"))),
                    };
                    let token = self.current().numbered.remove(&ack.pkid);
                    token.map(|token| LinkEvent::Published { token, result })
                }
                Event::Incoming(Packet::SubAck(ack)) => {
                    let filter = self.current().numbered_filters.remove(&ack.pkid).unwrap_or_default();
                    let taken = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                    if !ack.return_codes.iter().all(taken) {
                        if filter == vital_filter(settings) {
                            return (format!("the broker refused the subscription to {filter}"), was_up);
                        }
                        tracing::warn!(filter, codes = ?ack.return_codes, "the broker refused a subscription");
                    }
                    None
                }
                Event::Outgoing(Outgoing::Subscribe(packet)) => {
                    let mut current = self.current();
                    if let Some(filter) = current.unnumbered_filters.pop_front() {
                        current.numbered_filters.insert(packet, filter);
                    }
                    None
                }
                Event::Outgoing(Outgoing::Publish(packet)) => {
                    let mut current = self.current();
                    if let Some(token) = current.unnumbered.pop_front() {
                        current.numbered.insert(packet, token);
                    }
                    None
                }
                Event::Outgoing(Outgoing::Disconnect) => {
                    let why = if self.current().renewed { RENEWED } else { "closed" };
                    return (why.to_owned(), was_up);
                }
                Event::Incoming(_) | Event::Outgoing(_) => None,
            };
            if let Some(out) = out {
                if events.send(out).await.is_err() {
                    return ("nobody listens".to_owned(), was_up);
                }
            }
        }
    }

    /// Ends the connection, without the last will, so that the next one is made with the certificate that is there by
    /// now. What was not acknowledged is sent again.
    pub fn reconnect(&self) {
        let mut current = self.current();
        current.renewed = true;
        self.end(&current);
    }

    /// Ends the connection with a goodbye; at once where it is still being made or its queue is full.
    fn end(&self, current: &Current) {
        if current.client.as_ref().is_none_or(|client| client.try_disconnect().is_err()) {
            current.broken.notify_one();
        }
        self.shared.wake.notify_one();
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn forget(&mut self) {
        self.client = None;
        self.unnumbered.clear();
        self.numbered.clear();
        self.unnumbered_filters.clear();
        self.numbered_filters.clear();
    }
}

impl Link for Mqtt {
    fn publish(&self, topic: String, payload: Vec<u8>, retain: bool) -> Result<Token, NotSent> {
        let mut current = self.current();
        let client = current.client.clone().ok_or(NotSent)?;
        // The numbers follow the order of the queue, so both change under one lock.
        client.try_publish(topic, QoS::AtLeastOnce, retain, payload).map_err(|_| NotSent)?;
        current.next_token += 1;
        let token = Token(current.next_token);
        current.unnumbered.push_back(token);
        Ok(token)
    }

    fn subscribe(&self, filter: String) {
        let mut current = self.current();
        let Some(client) = &current.client else { return };
        if client.try_subscribe(&filter, QoS::AtLeastOnce).is_err() {
            current.broken.notify_one();
            return;
        }
        current.unnumbered_filters.push_back(filter);
    }

    fn unsubscribe(&self, filter: String) {
        if let Some(client) = &self.current().client {
            // A subscription that stays costs some bytes, no more.
            let _ = client.try_unsubscribe(filter);
        }
    }

    fn acknowledge(&self, receipt: Receipt) {
        let current = self.current();
        if receipt.packet == 0 || receipt.connection != current.connection {
            return;
        }
        if let Some(client) = &current.client {
            let mut publish = Publish::new("ack", QoS::AtLeastOnce, Bytes::new(), None);
            publish.pkid = receipt.packet;
            // Without it the broker would send nothing more once its window is full.
            if client.try_ack(&publish).is_err() {
                current.broken.notify_one();
            }
        }
    }

    fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.end(&self.current());
    }
}

/// What the device shall run comes over this one: without it a connection is of no use.
fn vital_filter(settings: &Settings) -> String {
    Filter::Desired(settings.identity.device.clone()).to_string()
}

fn options(settings: &Settings) -> MqttOptions {
    let identity = &settings.identity;
    let mut options = MqttOptions::new(identity.device.as_str(), &identity.mqtt_host, identity.mqtt_port);
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(settings.tls.load_full())));
    options.set_keep_alive(Duration::from_millis(settings.keep_alive_ms));
    options.set_clean_start(false);
    options.set_session_expiry_interval(Some(SESSION_EXPIRY_S));
    options.set_receive_maximum(Some(RECEIVE_MAX));
    options.set_max_packet_size(Some(limits::MQTT_PACKET_BYTES_MAX));
    options.set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
    options.set_manual_acks(true);
    options.set_connection_timeout(CONNECT_TIMEOUT_S);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let topic = Topic::Presence(identity.device.clone()).to_string();
    if let Ok(offline) = wire::encode_json("presence", &wire::Presence { online: false }) {
        options.set_last_will(LastWill::new(topic, offline, QoS::AtLeastOnce, true, None));
    }
    options
}
