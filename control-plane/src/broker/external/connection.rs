//! One connection to the broker, from its CONNECT to its end.
//!
//! What has come and was not acknowledged yet is bounded by bytes. While there is so much of it nothing is read, and so the
//! broker waits; acknowledgements and publishes go out meanwhile, many with one write. The broker's own window is not
//! relied on: mosquitto 2.0.11 forgets it once messages have queued.

use super::{
    CLIENT_NAME, CONNECT_TIMEOUT, External, INFLIGHT_MAX, KEEP_ALIVE, RECEIVE_MAX, SAID_BY_DEVICES,
    SESSION_EXPIRY_S, filter,
    flights::{Flight, Flights},
    intake::Waiting,
    tls::explained,
    wire::{Reading, Writing},
};
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{
        ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter,
        Packet, PingReq, PubAck, PubAckReason, Publish, Subscribe, SubscribeReasonCode,
    },
};
use shared::limits;
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{self, Instant},
};

/// Bytes of messages that came and were not acknowledged.
const WAITING_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Of such a message besides topic and payload.
const WAITING_EXTRA_BYTES: usize = 256;
/// Of the one SUBSCRIBE; no publish has it.
const SUBSCRIBE_NUMBER: u16 = u16::MAX;
/// Why a connection ends whose messages cannot be kept.
const NOT_KEPT: &str = "a message could not be kept; it comes again";

/// How a connection ended.
pub(super) struct End {
    pub(super) reason: String,
    pub(super) was_up: bool,
    /// By our own wish: no failure.
    pub(super) wanted: bool,
}

/// What others want sent.
#[derive(Debug)]
pub(super) enum Order {
    /// The message of this number was kept, or refused for good.
    Acknowledge {
        number: u16,
        room: OwnedSemaphorePermit,
    },
    Publish(Box<Publish>, Flight),
}

/// A connection while it lasts.
pub(super) struct Connection<'a, S> {
    broker: &'a External,
    reading: Reading<ReadHalf<S>>,
    writing: Writing<WriteHalf<S>>,
    sender: mpsc::UnboundedSender<Order>,
    orders: mpsc::UnboundedReceiver<Order>,
    messages: mpsc::UnboundedSender<Waiting>,
    /// A message for which there is no room.
    held: Option<Publish>,
    room: Arc<Semaphore>,
    fault: Arc<Notify>,
    flights: Flights,
    was_greeted: bool,
    was_up: bool,
}

impl<'a, S: AsyncRead + AsyncWrite> Connection<'a, S> {
    /// Over a stream that is open. Messages go to `messages`; `fault` ends it.
    pub(super) fn new(
        broker: &'a External,
        stream: S,
        messages: mpsc::UnboundedSender<Waiting>,
        fault: Arc<Notify>,
    ) -> Self {
        let (reading, writing) = tokio::io::split(stream);
        let (sender, orders) = mpsc::unbounded_channel();
        Self {
            broker,
            reading: Reading::new(reading),
            writing: Writing::new(writing),
            sender,
            orders,
            messages,
            held: None,
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX as usize)),
            fault,
            flights: Flights::new(INFLIGHT_MAX),
            was_greeted: false,
            was_up: false,
        }
    }

    /// Where orders are given.
    pub(super) fn orders(&self) -> mpsc::UnboundedSender<Order> {
        self.sender.clone()
    }

    /// Lasts until it breaks, is not wanted any more, or its certificate is to be renewed.
    pub(super) async fn run(mut self, renew_at: Instant) -> End {
        let (reason, wanted) = match self.last(renew_at).await {
            Ok(reason) => (reason.to_owned(), true),
            Err(reason) => (explained(&reason), false),
        };
        let was_up = self.was_up;
        if wanted && was_up {
            self.say_goodbye();
        }
        self.writing.close().await;
        End { reason, was_up, wanted }
    }

    /// Gives why it is not wanted any more.
    ///
    /// # Errors
    /// Why it is of no use.
    async fn last(&mut self, renew_at: Instant) -> Result<&'static str, String> {
        let shared = Arc::clone(&self.broker.shared);
        let greeting_by = Instant::now() + CONNECT_TIMEOUT;
        let mut pinging = time::interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        let mut heard_at = Instant::now();
        let room = Arc::clone(&self.room);
        self.writing.put(&connect())?;
        loop {
            let needed = self.work_off()?;
            while let Some(publish) = self.flights.next() {
                self.writing.put(&Packet::Publish(publish))?;
            }
            self.writing.flush().await?;
            tokio::select! {
                read = self.reading.fill(), if needed.is_none() => {
                    read?;
                    heard_at = Instant::now();
                }
                // It is taken when the message is looked at again.
                _ = Arc::clone(&room).acquire_many_owned(needed.unwrap_or(0)), if needed.is_some() => {
                    heard_at = Instant::now();
                }
                Some(order) = self.orders.recv() => {
                    self.obey(order)?;
                    while let Ok(order) = self.orders.try_recv() {
                        self.obey(order)?;
                    }
                }
                _ = pinging.tick() => {
                    if needed.is_none() && heard_at.elapsed() > 2 * KEEP_ALIVE {
                        return Err("the broker does not answer".to_owned());
                    }
                    self.writing.put(&Packet::PingReq(PingReq))?;
                }
                () = time::sleep_until(greeting_by), if !self.was_greeted => {
                    return Err("the broker does not answer".to_owned());
                }
                () = self.fault.notified() => return Err(NOT_KEPT.to_owned()),
                () = shared.again.notified() => {
                    return Ok(if self.was_up { "the CAs or the certificate changed" } else { "asked to" });
                }
                () = time::sleep_until(renew_at) => return Ok("the certificate is renewed"),
            }
        }
    }

    /// Works off what was read; where a message has to wait for room, gives how much it needs.
    fn work_off(&mut self) -> Result<Option<u32>, String> {
        loop {
            let packet = match self.held.take() {
                Some(message) => Packet::Publish(message),
                None => match self.reading.next()? {
                    Some(packet) => packet,
                    None => return Ok(None),
                },
            };
            let Packet::Publish(message) = packet else {
                self.incoming(packet)?;
                continue;
            };
            let bytes = message.topic.len() + message.payload.len() + WAITING_EXTRA_BYTES;
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(WAITING_BYTES_MAX);
            let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else {
                self.held = Some(message);
                return Ok(Some(bytes));
            };
            self.messages.send(Waiting { message, room }).map_err(|_| NOT_KEPT.to_owned())?;
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), String> {
        match order {
            Order::Acknowledge { number, room } => {
                self.writing.put(&Packet::PubAck(PubAck::new(number, None)))?;
                drop(room);
            }
            Order::Publish(publish, flight) => self.flights.add(*publish, flight),
        }
        Ok(())
    }

    /// What has been ordered by now still goes out, and a DISCONNECT behind it.
    fn say_goodbye(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            if matches!(order, Order::Acknowledge { .. }) && self.obey(order).is_err() {
                return;
            }
        }
        let goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
        // Without it the broker finds the connection closed, which is as good.
        let _ = self.writing.put(&Packet::Disconnect(goodbye));
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
                self.was_up = true;
                self.broker.arrived(self.sender.clone());
                Ok(())
            }
            Packet::PubAck(ack) => {
                let result = match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                    reason => Err(format!("the broker answered {reason:?}")),
                };
                self.flights.landed(ack.pkid, result);
                Ok(())
            }
            Packet::Disconnect(goodbye) => Err(format!("the broker ended it: {:?}", goodbye.reason_code)),
            _ => Ok(()),
        }
    }

    fn greeted(&mut self, ack: &ConnAck) -> Result<(), String> {
        if ack.code != ConnectReturnCode::Success {
            return Err(format!("the broker refused it: {:?}", ack.code));
        }
        let told = ack.properties.as_ref();
        if told.and_then(|told| told.retain_available) == Some(0) {
            return Err("the broker keeps no retained messages; desired states need them".to_owned());
        }
        let bytes_max = told.and_then(|told| told.max_packet_size).unwrap_or(limits::MQTT_PACKET_BYTES_MAX);
        self.broker.set_packet_bytes_max(bytes_max.min(limits::MQTT_PACKET_BYTES_MAX));
        self.flights.set_most(told.and_then(|told| told.receive_max).unwrap_or(u16::MAX).min(INFLIGHT_MAX));
        self.was_greeted = true;
        // Also where the broker kept the session: it brings what is retained, which the store may have forgotten.
        let filters = SAID_BY_DEVICES.map(|what| Filter::new(filter(what), QoS::AtLeastOnce));
        let mut subscribe = Subscribe::new_many(filters, None);
        subscribe.pkid = SUBSCRIBE_NUMBER;
        self.writing.put(&Packet::Subscribe(subscribe))
    }
}

/// The session is kept: what devices say while the control plane is away waits in it.
fn connect() -> Packet {
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(SESSION_EXPIRY_S);
    properties.receive_maximum = Some(RECEIVE_MAX);
    properties.max_packet_size = Some(limits::MQTT_PACKET_BYTES_MAX);
    let connect = Connect {
        keep_alive: u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX),
        client_id: CLIENT_NAME.to_owned(),
        clean_start: false,
        properties: Some(properties),
    };
    Packet::Connect(connect, None, None)
}

#[cfg(test)]
mod tests;
