//! The broker in this process. Who may connect and what may be said is decided in hooks.

mod hooks;
mod stores;

use super::{Error, Ingest, Refused, expiry_s, quoted};
use bytes::Bytes;
use rmqtt::{
    codec::{
        types::{Publish as Packet, QoS},
        v5::PublishProperties,
    },
    context::ServerContext,
    net::Builder,
    server::MqttServer,
    session::SessionState,
    types::{From as Origin, Id, Publish},
};
use shared::{DeviceId, limits, topic::Topic};
use std::{
    fmt, io,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::{mpsc, oneshot, watch};

/// How the broker listens.
#[derive(Clone, Debug)]
pub struct Config {
    pub address: SocketAddr,
    pub files: Files,
    /// How long a session outlives its connection, [`SESSION_LIFE`] unless there is a reason.
    pub session_life: Duration,
}

/// What it reads at the start and at each [`Embedded::reload`].
#[derive(Clone, Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// All CAs whose devices may connect.
    pub ca: PathBuf,
}

/// The running broker.
#[derive(Clone)]
pub struct Embedded {
    context: ServerContext,
    /// Turns true when the broker serves no more.
    ended: watch::Receiver<bool>,
    reloads: mpsc::Sender<oneshot::Sender<Result<(), Error>>>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Embedded")
    }
}

/// A session keeps its socket until it ends (ADR 44): long enough for a network that blinks, and all that a device has to
/// hear later is retained.
pub const SESSION_LIFE: Duration = Duration::from_secs(30);
const LISTENER: u16 = 1;
const INFLIGHT_MAX: u16 = 64;
/// Messages that wait for one device; a blob's chunks are asked for again.
const QUEUE_MAX: usize = 2000;
const SUBSCRIPTIONS_MAX: usize = 64;
const TOPIC_LEVELS_MAX: usize = 8;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

impl Embedded {
    /// Listens, and serves until the process ends. Has to be called within a tokio runtime.
    pub async fn start(config: Config, ingest: Arc<dyn Ingest>) -> Result<Self, Error> {
        // The CPU watch refuses connections while a search keeps the machine busy.
        let context = ServerContext::new().busy_check_enable(false).build().await;
        stores::install(&context).await;
        hooks::install(&context, ingest).await;
        let mut listener = LISTENER;
        let mut server = listen(&context, &config, listener)?;
        let (ending, ended) = watch::channel(false);
        let (reloads, mut orders) = mpsc::channel::<oneshot::Sender<Result<(), Error>>>(1);
        let of_server = context.clone();
        tokio::spawn(async move {
            // Dropped when the task ends, also when it panics.
            let _ending = EndsBroker(ending);
            loop {
                // The listener's socket is closed when its server is dropped; connections have tasks of their own.
                let answer = tokio::select! {
                    ran = server.run() => {
                        let reason = ran.map_or_else(|error| format!("{error:#}"), |()| "nothing to do".to_owned());
                        tracing::error!("the broker has ended: {reason}");
                        return;
                    }
                    Some(answer) = orders.recv() => answer,
                };
                // Connections go on under the number of the listener that took them.
                listener = listener.wrapping_add(1).max(LISTENER);
                match listen(&of_server, &config, listener) {
                    Ok(next) => {
                        server = next;
                        // Whoever asked may have gone.
                        let _ = answer.send(Ok(()));
                    }
                    Err(error) => {
                        tracing::error!("the broker has ended: {error}");
                        let _ = answer.send(Err(error));
                        return;
                    }
                }
            }
        });
        Ok(Self { context, ended, reloads })
    }

    /// Reads certificate and CAs afresh for connections that come from now on. Those that are there stay.
    pub async fn reload(&self) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.reloads.send(answer).await.map_err(|_| Error::Ended)?;
        answered.await.map_err(|_| Error::Ended)?
    }

    /// Resolves when the broker serves no more.
    pub async fn ended(&self) {
        // That its sender is gone says the same.
        let _ = self.ended.clone().wait_for(|&ended| ended).await;
    }

    /// Publishes a message of the control plane.
    pub async fn publish(&self, topic: &Topic, payload: Bytes, retain: bool) -> Result<(), Error> {
        let expiry_s = expiry_s(topic).and_then(NonZeroU32::new);
        let packet = Packet {
            dup: false,
            retain,
            qos: QoS::AtLeastOnce,
            topic: topic.to_string().into(),
            packet_id: None,
            payload,
            properties: Some(PublishProperties { message_expiry_interval: expiry_s, ..Default::default() }),
        };
        let origin = Origin::from_system(self.id("control-plane"));
        // The expiry counts from here; without a time of its own a message never expires.
        let publish = Publish::from(packet).create_time(unix_ms());
        SessionState::forwards(&self.context, origin, publish, false, None)
            .await
            .map_err(|error| Error::Publish { topic: topic.to_string(), reason: format!("{error:#}") })
    }

    /// Ends a device's connection and session.
    pub async fn kick(&self, device: &DeviceId) {
        kick(&self.context, device.as_str()).await;
    }

    /// Connections at this moment.
    pub fn connections(&self) -> u64 {
        u64::try_from(self.context.connections.count()).unwrap_or(0)
    }

    fn id(&self, client: &str) -> Id {
        id(&self.context, client)
    }
}

fn listen(context: &ServerContext, config: &Config, number: u16) -> Result<MqttServer, Error> {
    let path = |path: &Path| Some(path.display().to_string());
    let listener = Builder::new()
        .name("mqtt")
        .laddr(config.address)
        .reuseaddr(Some(true))
        .nodelay(true)
        .allow_anonymous(false)
        .allow_zero_keepalive(false)
        .max_packet_size(limits::MQTT_PACKET_BYTES_MAX)
        .max_clientid_len(shared::id::NAME_BYTES_MAX)
        .max_inflight(NonZeroU16::new(INFLIGHT_MAX).unwrap_or(NonZeroU16::MIN))
        .max_mqueue_len(QUEUE_MAX)
        .max_subscriptions(SUBSCRIPTIONS_MAX)
        .max_topic_levels(TOPIC_LEVELS_MAX)
        .handshake_timeout(HANDSHAKE_TIMEOUT)
        .session_expiry_interval(config.session_life)
        .max_session_expiry_interval(config.session_life)
        // Zero: desired state stays until it is replaced.
        .message_expiry_interval(Duration::ZERO)
        .tls_cross_certificate(true)
        .tls_cert(path(&config.files.certificate))
        .tls_key(path(&config.files.key))
        .tls_client_ca_certs(path(&config.files.ca))
        .cert_cn_as_username(true)
        .collect_cert_info(true)
        .bind()
        .and_then(rmqtt::net::Listener::tls)
        .map_err(|error| listen_error(config.address, &error))?;
    // The broker panics where a number is taken.
    context.listen_cfgs.remove(&number);
    Ok(MqttServer::new(context.clone()).listener_by_id(listener, number).build())
}

/// Says that the broker has ended when it is dropped.
struct EndsBroker(watch::Sender<bool>);

impl Drop for EndsBroker {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

fn id(context: &ServerContext, client: &str) -> Id {
    Id::new(context.node.id(), LISTENER, None, None, client.to_owned().into(), None)
}

async fn kick(context: &ServerContext, client: &str) {
    let mut entry = context.extends.shared().await.entry(id(context, client));
    if let Err(error) = entry.kick(true, true, true).await {
        tracing::warn!("the connection of {client:?} could not be ended: {error:#}");
    }
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn listen_error(address: SocketAddr, error: &rmqtt::Error) -> Error {
    let in_use = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::AddrInUse);
    if in_use {
        Error::PortInUse { port: address.port() }
    } else {
        Error::Listen { address, reason: format!("{error:#}") }
    }
}

#[cfg(test)]
mod tests;
