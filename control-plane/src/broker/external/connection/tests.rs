//! The broker is played where one is needed that does what it should not.

use super::*;
use crate::broker::{
    Ingest, Refused,
    external::tls::{Identities, Identity},
};
use async_trait::async_trait;
use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::SubAck;
use shared::{DeviceId, topic::Topic};
use std::{collections::HashSet, time::Duration};

/// There is nobody to be.
struct Nobody;

impl Identities for Nobody {
    fn own(&self) -> Result<Identity, String> {
        Err("nobody".to_owned())
    }

    fn of_device(&self, _: &DeviceId) -> Result<Identity, String> {
        Err("nobody".to_owned())
    }
}

#[async_trait]
impl Ingest for Nobody {
    async fn admit(&self, _: &DeviceId, _: &str) -> Result<bool, Refused> {
        Ok(false)
    }

    async fn with_good_certificates(&self, _: &[DeviceId]) -> Result<HashSet<DeviceId>, Refused> {
        Ok(HashSet::new())
    }

    async fn receive(&self, _: &DeviceId, _: &Topic, _: Bytes) -> Result<(), Refused> {
        Ok(())
    }

    async fn refused(&self, _: &str, _: &'static str, _: String) {}
}

/// The broker's side of a connection.
struct Played {
    reading: Reading<ReadHalf<tokio::io::DuplexStream>>,
    writing: Writing<WriteHalf<tokio::io::DuplexStream>>,
}

impl Played {
    fn new(stream: tokio::io::DuplexStream) -> Self {
        let (reading, writing) = tokio::io::split(stream);
        Self { reading: Reading::new(reading), writing: Writing::new(writing) }
    }

    /// The next packet that is no ping.
    async fn next(&mut self) -> Packet {
        loop {
            match self.reading.next().unwrap() {
                Some(Packet::PingReq(_)) => {}
                Some(packet) => return packet,
                None => self.reading.fill().await.unwrap(),
            }
        }
    }

    async fn send(&mut self, packet: Packet) {
        self.writing.put(&packet).unwrap();
        self.writing.flush().await.unwrap();
    }

    async fn greet(&mut self) {
        assert!(matches!(self.next().await, Packet::Connect(..)));
        let code = ConnectReturnCode::Success;
        self.send(Packet::ConnAck(ConnAck { session_present: false, code, properties: None })).await;
        let Packet::Subscribe(subscribe) = self.next().await else { panic!("no SUBSCRIBE") };
        let return_codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); subscribe.filters.len()];
        self.send(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })).await;
    }
}

fn broker() -> External {
    External::start("mqtts://localhost:8883".parse().unwrap(), Arc::new(Nobody), Arc::new(Nobody))
}

/// The connection, which runs in the same task over a stream in memory, has had many turns by then.
async fn idle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

fn never() -> Instant {
    Instant::now() + Duration::from_secs(1 << 24)
}

#[tokio::test]
async fn a_broker_that_forgets_its_window_has_to_wait_and_every_message_is_acknowledged_in_order() {
    const BYTES: u32 = 100_000;
    let external = broker();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (messages, mut inbox) = mpsc::unbounded_channel();
    let connection = Connection::new(&external, near, messages, Arc::default());
    let orders = connection.orders();
    let script = async move {
        let mut broker = Played::new(far);
        broker.greet().await;
        let mut sent = 0u16;
        loop {
            let payload = vec![7; BYTES as usize];
            let mut publish = Publish::new("ew/v1/device/cam-01/event", QoS::AtLeastOnce, payload, None);
            publish.pkid = sent + 1;
            broker.writing.put(&Packet::Publish(publish)).unwrap();
            tokio::select! {
                biased;
                flushed = broker.writing.flush() => flushed.unwrap(),
                () = idle() => break,
            }
            sent += 1;
        }
        let most = u16::try_from(WAITING_BYTES_MAX / BYTES).unwrap();
        assert!((most - 2..=most + 2).contains(&sent), "{sent} of {most}");
        for number in 1..=sent - 2 {
            let Waiting { message, room } = inbox.recv().await.unwrap();
            assert_eq!(message.pkid, number);
            orders.send(Order::Acknowledge { number, room }).unwrap();
        }
        for number in 1..=sent - 2 {
            let Packet::PubAck(ack) = broker.next().await else { panic!("no PUBACK") };
            assert_eq!(ack.pkid, number);
        }
        // Now there is room for what had to wait.
        broker.writing.flush().await.unwrap();
        loop {
            if inbox.recv().await.unwrap().message.pkid == sent + 1 {
                return;
            }
        }
    };
    tokio::select! {
        end = connection.run(never()) => panic!("{}", end.reason),
        () = script => {}
    }
}

#[tokio::test]
async fn a_broker_that_refuses_or_leaves_is_told_by_the_reason() {
    async fn ended(script: impl AsyncFn(&mut Played)) -> End {
        let external = broker();
        let (near, far) = tokio::io::duplex(1 << 16);
        let (messages, _inbox) = mpsc::unbounded_channel();
        let connection = Connection::new(&external, near, messages, Arc::default());
        let mut broker = Played::new(far);
        let playing = async {
            script(&mut broker).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = connection.run(never()) => end,
            () = playing => unreachable!(),
        }
    }
    let refused = ended(async |broker: &mut Played| {
        broker.next().await;
        let code = ConnectReturnCode::NotAuthorized;
        broker.send(Packet::ConnAck(ConnAck { session_present: false, code, properties: None })).await;
    });
    let end = refused.await;
    assert!(end.reason.contains("does not let edgewright:control-plane in") && !end.was_up, "{}", end.reason);
    let taken = ended(async |broker: &mut Played| {
        broker.greet().await;
        let reason = DisconnectReasonCode::SessionTakenOver;
        broker.send(Packet::Disconnect(Disconnect::new(reason))).await;
    });
    let end = taken.await;
    assert!(end.reason.starts_with("another control plane connects"), "{}", end.reason);
}

#[tokio::test]
async fn a_connection_that_is_not_wanted_any_more_says_goodbye_behind_its_acknowledgements() {
    let external = broker();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (messages, mut inbox) = mpsc::unbounded_channel();
    let connection = Connection::new(&external, near, messages, Arc::default());
    let orders = connection.orders();
    let renew_at = Instant::now() + Duration::from_secs(1);
    let script = async move {
        let mut broker = Played::new(far);
        broker.greet().await;
        let mut publish = Publish::new("ew/v1/device/cam-01/event", QoS::AtLeastOnce, "x", None);
        publish.pkid = 9;
        broker.send(Packet::Publish(publish)).await;
        let Waiting { message, room } = inbox.recv().await.unwrap();
        orders.send(Order::Acknowledge { number: message.pkid, room }).unwrap();
        let Packet::PubAck(ack) = broker.next().await else { panic!("no PUBACK") };
        assert_eq!(ack.pkid, 9);
        assert!(matches!(broker.next().await, Packet::Disconnect(_)));
    };
    let (end, ()) = tokio::join!(connection.run(renew_at), script);
    assert_eq!((end.reason.as_str(), end.was_up, end.wanted), ("the certificate is renewed", true, true));
}
