//! Real clients over real TLS against the embedded broker.

use super::*;
use crate::{broker::CHUNK_EXPIRY_S, signer::Signer};
use async_trait::async_trait;
use rcgen::KeyPair;
use rumqttc::{
    Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS as Qos,
            v5::{ConnectReturnCode, LastWill, Packet, PubAckReason, SubscribeReasonCode},
        },
    },
};
use shared::Timestamp;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Mutex,
    time::Instant,
};

const LIMIT: Duration = Duration::from_secs(20);
const LIFE: Duration = Duration::from_secs(2);

/// Remembers what it was given; refuses serials that are not among the good ones.
#[derive(Default)]
struct Recorder {
    good: Mutex<BTreeSet<String>>,
    received: Mutex<Vec<(String, String, Vec<u8>)>>,
    refused: Mutex<Vec<(String, &'static str)>>,
    unavailable: Mutex<bool>,
    /// Whoever is admitted is revoked a moment later.
    revokes_who_comes: Mutex<bool>,
}

#[async_trait]
impl Ingest for Recorder {
    async fn admit(&self, device: &DeviceId, serial: &str) -> Result<bool, Refused> {
        let certificate = format!("{device} {serial}");
        if *self.revokes_who_comes.lock().unwrap() {
            return Ok(self.good.lock().unwrap().remove(&certificate));
        }
        Ok(self.good.lock().unwrap().contains(&certificate))
    }

    async fn with_good_certificates(&self, _: &[DeviceId]) -> Result<HashSet<DeviceId>, Refused> {
        panic!("the broker knows which certificate was shown")
    }

    async fn receive(&self, device: &DeviceId, topic: &Topic, payload: Bytes) -> Result<(), Refused> {
        if *self.unavailable.lock().unwrap() {
            return Err(Refused::Unavailable);
        }
        if payload.is_empty() {
            return Err(Refused::Invalid("empty".to_owned()));
        }
        self.received.lock().unwrap().push((device.to_string(), topic.to_string(), payload.to_vec()));
        Ok(())
    }

    async fn refused(&self, subject: &str, kind: &'static str, _detail: String) {
        self.refused.lock().unwrap().push((subject.to_owned(), kind));
    }
}

struct World {
    _folder: tempfile::TempDir,
    signer: Signer,
    recorder: Arc<Recorder>,
    broker: Embedded,
    port: u16,
}

struct Identity {
    certificate: String,
    key: String,
}

fn wall_clock() -> Timestamp {
    std::time::SystemTime::now().into()
}

fn config(signer: &Signer, port: u16) -> Config {
    let files = Files {
        certificate: signer.server_certificate_path(),
        key: signer.server_key_path(),
        ca: signer.ca_path(),
    };
    Config { address: SocketAddr::from(([127, 0, 0, 1], port)), files, session_life: LIFE }
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(folder.path(), &[], wall_clock()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let recorder = Arc::new(Recorder::default());
        let broker =
            Embedded::start(config(&signer, port), Arc::clone(&recorder) as Arc<dyn Ingest>).await.unwrap();
        Self { _folder: folder, signer, recorder, broker, port }
    }

    fn identity(&self, device: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let csr = crate::signer::testing::csr(device, &key);
        let issued = self.signer.issue(&csr, &device.parse().unwrap(), 7, wall_clock()).unwrap();
        self.recorder.good.lock().unwrap().insert(format!("{device} {}", issued.serial));
        Identity { certificate: issued.pem, key: key.serialize_pem() }
    }

    fn options(&self, client_id: &str, identity: Option<&Identity>) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, "localhost", self.port);
        options.set_keep_alive(Duration::from_secs(10));
        options.set_clean_start(true);
        options.set_max_packet_size(Some(limits::MQTT_PACKET_BYTES_MAX));
        options.set_transport(Transport::tls(
            self.signer.ca_pem().as_bytes().to_vec(),
            identity
                .map(|identity| (identity.certificate.as_bytes().to_vec(), identity.key.as_bytes().to_vec())),
            None,
        ));
        options
    }

    async fn connect(&self, device: &str) -> (AsyncClient, EventLoop) {
        let identity = self.identity(device);
        let (client, mut events) = AsyncClient::new(self.options(device, Some(&identity)), 10);
        next(&mut events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
        (client, events)
    }
}

/// Polls until `wanted` gives something.
async fn next<T>(events: &mut EventLoop, wanted: impl Fn(&Packet) -> Option<T>) -> T {
    let work = async {
        loop {
            if let Event::Incoming(packet) = events.poll().await.unwrap()
                && let Some(found) = wanted(&packet)
            {
                return found;
            }
        }
    };
    tokio::time::timeout(LIMIT, work).await.unwrap()
}

async fn refusal(mut events: EventLoop) -> ConnectionError {
    let work = async {
        loop {
            if let Err(error) = events.poll().await {
                return error;
            }
        }
    };
    tokio::time::timeout(LIMIT, work).await.unwrap()
}

async fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn puback(packet: &Packet) -> Option<PubAckReason> {
    match packet {
        Packet::PubAck(ack) => Some(ack.reason),
        _ => None,
    }
}

fn not_authorized(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_speaks_on_its_own_topics_and_is_acknowledged_when_it_was_heard() {
    let world = World::new().await;
    let (client, mut events) = world.connect("cam-01").await;
    client.publish("ew/v1/device/cam-01/event", Qos::AtLeastOnce, false, "hello").await.unwrap();
    assert_eq!(next(&mut events, puback).await, PubAckReason::Success);
    let heard = world.recorder.received.lock().unwrap().clone();
    assert_eq!(heard, [("cam-01".to_owned(), "ew/v1/device/cam-01/event".to_owned(), b"hello".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_not_acknowledged_as_kept() {
    let world = World::new().await;
    let (client, mut events) = world.connect("cam-01").await;
    *world.recorder.unavailable.lock().unwrap() = true;
    client.publish("ew/v1/device/cam-01/event", Qos::AtLeastOnce, false, "hello").await.unwrap();
    assert_eq!(next(&mut events, puback).await, PubAckReason::ImplementationSpecificError);
    *world.recorder.unavailable.lock().unwrap() = false;
    client.publish("ew/v1/device/cam-01/event", Qos::AtLeastOnce, false, "").await.unwrap();
    assert_eq!(next(&mut events, puback).await, PubAckReason::PayloadFormatInvalid);
    client.publish("ew/v1/device/cam-01/event", Qos::AtLeastOnce, false, "hello").await.unwrap();
    assert_eq!(next(&mut events, puback).await, PubAckReason::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_topics_are_refused_and_nobody_hears_them() {
    let world = World::new().await;
    let (client, mut events) = world.connect("cam-01").await;
    for topic in
        ["ew/v1/device/cam-02/event", "ew/v1/device/cam-01/desired", "ew/v1/trust/root", "anything", "$SYS/x"]
    {
        client.publish(topic, Qos::AtLeastOnce, true, "x").await.unwrap();
        assert_eq!(next(&mut events, puback).await, PubAckReason::NotAuthorized, "{topic}");
    }
    for filter in
        ["#", "ew/v1/device/+/desired", "ew/v1/device/cam-02/desired", "$share/g/ew/v1/device/cam-01/desired"]
    {
        client.subscribe(filter, Qos::AtLeastOnce).await.unwrap();
        let reasons = next(&mut events, |packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes.clone()),
            _ => None,
        })
        .await;
        assert_eq!(reasons, [SubscribeReasonCode::NotAuthorized], "{filter}");
    }
    assert!(world.recorder.received.lock().unwrap().is_empty());
    assert_eq!(world.recorder.refused.lock().unwrap().len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn desired_state_is_kept_for_whoever_comes_later() {
    let world = World::new().await;
    let topic: Topic = "ew/v1/device/cam-01/desired".parse().unwrap();
    world.broker.publish(&topic, Bytes::from_static(b"first"), true).await.unwrap();
    world.broker.publish(&topic, Bytes::from_static(b"second"), true).await.unwrap();
    let (client, mut events) = world.connect("cam-01").await;
    client.subscribe(topic.to_string(), Qos::AtLeastOnce).await.unwrap();
    let got = next(&mut events, |packet| match packet {
        Packet::Publish(publish) => Some(publish.payload.to_vec()),
        _ => None,
    })
    .await;
    assert_eq!(got, b"second");
    let chunk = Bytes::from(vec![7; limits::CHUNK_BYTES_MAX as usize]);
    let digest = shared::Digest::of(&chunk);
    let topic = Topic::BlobChunk { device: "cam-01".parse().unwrap(), digest, index: 0 };
    client.subscribe("ew/v1/device/cam-01/blob/+/+", Qos::AtLeastOnce).await.unwrap();
    next(&mut events, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
    world.broker.publish(&topic, chunk.clone(), false).await.unwrap();
    let got = next(&mut events, |packet| match packet {
        Packet::Publish(publish) => Some(publish.payload.clone()),
        _ => None,
    })
    .await;
    assert_eq!(got, chunk);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_get_in() {
    let world = World::new().await;
    let own = world.identity("cam-01");
    let (_client, events) = AsyncClient::new(world.options("cam-02", Some(&own)), 10);
    assert!(not_authorized(&refusal(events).await), "a foreign client id");

    let mut options = world.options("cam-01", Some(&own));
    options.set_last_will(LastWill::new("ew/v1/device/cam-02/presence", "x", Qos::AtLeastOnce, true, None));
    let (_client, events) = AsyncClient::new(options, 10);
    assert!(not_authorized(&refusal(events).await), "a last will on another's topic");

    world.recorder.good.lock().unwrap().clear();
    let (_client, events) = AsyncClient::new(world.options("cam-01", Some(&own)), 10);
    assert!(not_authorized(&refusal(events).await), "a certificate that was revoked");
    let kinds: Vec<&str> = world.recorder.refused.lock().unwrap().iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, ["foreign_client_id", "foreign_will", "unknown_certificate"]);

    let (_client, events) = AsyncClient::new(world.options("cam-01", None), 10);
    assert!(!not_authorized(&refusal(events).await), "without a certificate not even TLS lets one in");

    let folder = tempfile::tempdir().unwrap();
    let other = Signer::open(folder.path(), &[], wall_clock()).unwrap();
    let key = KeyPair::generate().unwrap();
    let csr = crate::signer::testing::csr("cam-01", &key);
    let forged = other.issue(&csr, &"cam-01".parse().unwrap(), 7, wall_clock()).unwrap();
    let forged = Identity { certificate: forged.pem, key: key.serialize_pem() };
    let (_client, events) = AsyncClient::new(world.options("cam-01", Some(&forged)), 10);
    assert!(!not_authorized(&refusal(events).await), "nor with a certificate of another CA");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_by_the_last_will() {
    let world = World::new().await;
    let identity = world.identity("cam-01");
    let mut options = world.options("cam-01", Some(&identity));
    let topic = "ew/v1/device/cam-01/presence";
    options.set_last_will(LastWill::new(topic, "gone", Qos::AtLeastOnce, true, None));
    let (client, mut events) = AsyncClient::new(options, 10);
    next(&mut events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    drop((client, events));
    wait_for(|| {
        world.recorder.received.lock().unwrap().iter().any(|(_, on, what)| on == topic && what == b"gone")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stays_away_takes_no_file_and_finds_what_is_retained_when_it_comes_again() {
    let world = World::new().await;
    let identity = world.identity("cam-01");
    let come = || async {
        let mut options = world.options("cam-01", Some(&identity));
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(7 * 24 * 3600));
        let (client, mut events) = AsyncClient::new(options, 10);
        let greeting = next(&mut events, |packet| match packet {
            Packet::ConnAck(ack) => Some(ack.clone()),
            _ => None,
        });
        let greeting = greeting.await;
        (client, events, greeting)
    };
    let sessions = || world.broker.context.sessions.count();
    let (client, events, greeting) = come().await;
    // The device is told that the broker keeps it no longer than that.
    assert_eq!(greeting.properties.unwrap().session_expiry_interval, Some(LIFE.as_secs() as u32));
    drop((client, events));
    wait_for(|| world.broker.connections() == 0).await;
    let (client, events, greeting) = come().await;
    assert!(greeting.session_present, "a network that blinks costs no session");
    drop((client, events));
    wait_for(|| sessions() == 0).await;
    let topic: Topic = "ew/v1/device/cam-01/desired".parse().unwrap();
    world.broker.publish(&topic, "x".into(), true).await.unwrap();
    let (client, mut events, greeting) = come().await;
    assert!(!greeting.session_present);
    client.subscribe(topic.to_string(), Qos::AtLeastOnce).await.unwrap();
    next(&mut events, |packet| matches!(packet, Packet::Publish(_)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kicked_device_is_disconnected() {
    let world = World::new().await;
    let (_client, events) = world.connect("cam-01").await;
    world.broker.kick(&"cam-01".parse().unwrap()).await;
    refusal(events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_revoked_while_it_connects_does_not_stay() {
    let world = World::new().await;
    *world.recorder.revokes_who_comes.lock().unwrap() = true;
    let (_client, events) = world.connect("cam-01").await;
    refusal(events).await;
    let refused = world.recorder.refused.lock().unwrap().clone();
    assert_eq!(refused, [("cam-01".to_owned(), "unknown_certificate")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_say_when_they_are_of_no_more_use_and_desired_state_never_expires() {
    let world = World::new().await;
    let (client, mut events) = world.connect("cam-01").await;
    let device: DeviceId = "cam-01".parse().unwrap();
    client.subscribe("ew/v1/device/cam-01/#", Qos::AtLeastOnce).await.unwrap();
    next(&mut events, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
    let chunk = Topic::BlobChunk { device: device.clone(), digest: shared::Digest::of(b"x"), index: 0 };
    for (topic, expires) in [(chunk, true), (Topic::Desired(device), false)] {
        world.broker.publish(&topic, Bytes::from_static(b"x"), false).await.unwrap();
        let expiry_s = next(&mut events, |packet| match packet {
            Packet::Publish(publish) => {
                Some(publish.properties.as_ref().and_then(|properties| properties.message_expiry_interval))
            }
            _ => None,
        })
        .await;
        assert_eq!(
            expiry_s.is_some_and(|s| (1..=CHUNK_EXPIRY_S).contains(&s)),
            expires,
            "{topic}: {expiry_s:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_its_flag() {
    let world = World::new().await;
    let error =
        Embedded::start(config(&world.signer, world.port), Arc::new(Recorder::default())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("port {} is in use; choose another with --mqtt ADDRESS:PORT", world.port)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reload_devices_of_both_cas_connect_and_those_that_were_there_stay() {
    let world = World::new().await;
    let (client, mut there) = world.connect("cam-01").await;
    let old = world.identity("cam-02");
    world.signer.rotate_authority(wall_clock()).unwrap();
    let new = world.identity("cam-03");
    // The broker has not read the new CA yet.
    let (_client, events) = AsyncClient::new(world.options("cam-03", Some(&new)), 10);
    refusal(events).await;

    world.broker.reload().await.unwrap();
    world.broker.reload().await.unwrap();
    for (device, identity) in [("cam-02", &old), ("cam-03", &new)] {
        let (_client, mut events) = AsyncClient::new(world.options(device, Some(identity)), 10);
        next(&mut events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    }
    world.broker.publish(&"ew/v1/device/cam-01/desired".parse().unwrap(), "x".into(), true).await.unwrap();
    client.subscribe("ew/v1/device/cam-01/desired", Qos::AtLeastOnce).await.unwrap();
    next(&mut there, |packet| matches!(packet, Packet::Publish(_)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_revoked_while_connected_is_put_out_and_its_renewed_certificate_with_it() {
    let world = World::new().await;
    let first = world.identity("cam-01");
    let renewed = world.identity("cam-01");
    for identity in [&first, &renewed] {
        let (_client, mut events) = AsyncClient::new(world.options("cam-01", Some(identity)), 10);
        next(&mut events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    }
    let (_client, mut events) = AsyncClient::new(world.options("cam-01", Some(&renewed)), 10);
    next(&mut events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    world.recorder.good.lock().unwrap().clear();
    world.broker.kick(&"cam-01".parse().unwrap()).await;
    // The connection ends by itself; whoever comes again is refused.
    refusal(events).await;
    for identity in [&first, &renewed] {
        let (_client, events) = AsyncClient::new(world.options("cam-01", Some(identity)), 10);
        assert!(not_authorized(&refusal(events).await));
    }
}
