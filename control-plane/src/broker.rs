//! MQTT for the control plane: a broker inside it, or one elsewhere whose client it is. What devices say is handed to an
//! [`Ingest`] before it is acknowledged, with either.

mod embedded;
mod external;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::{DeviceId, topic::Topic};
use std::{collections::HashSet, net::SocketAddr, sync::Arc};
use tokio::sync::watch;

pub use embedded::{Config, Embedded, Files, SESSION_LIFE};
pub use external::{Address, CLIENT_NAME, External, Identities, Identity};

/// Why the broker did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else listens there.
    #[error("port {port} is in use; choose another with --mqtt ADDRESS:PORT")]
    PortInUse { port: u16 },
    /// Not bound for another reason.
    #[error("MQTT cannot listen on {address}: {reason}")]
    Listen { address: SocketAddr, reason: String },
    /// It listens no more, and the server with it.
    #[error("the broker has ended; start the server again")]
    Ended,
    /// A message did not go out.
    #[error("publishing to {topic} failed: {reason}")]
    Publish { topic: String, reason: String },
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no message of this kind; sending it again does not help.
    Invalid(String),
    /// It could not be kept; it shall come again.
    Unavailable,
}

/// Where the broker asks and delivers.
#[async_trait]
pub trait Ingest: Send + Sync + 'static {
    /// May the device with this certificate connect?
    ///
    /// # Errors
    /// It cannot be looked up at this moment.
    async fn admit(&self, device: &DeviceId, serial: &str) -> Result<bool, Refused>;
    /// Those of the devices that have a certificate which is good. For a broker elsewhere, which does not say what was shown
    /// to it.
    ///
    /// # Errors
    /// It cannot be looked up at this moment.
    async fn with_good_certificates(&self, devices: &[DeviceId]) -> Result<HashSet<DeviceId>, Refused>;
    /// Takes a message. It is acknowledged when this has returned `Ok`, and not before.
    async fn receive(&self, device: &DeviceId, topic: &Topic, payload: Bytes) -> Result<(), Refused>;
    /// Takes what a broker elsewhere had kept: the device said it some time ago, and may be gone since.
    async fn recall(&self, device: &DeviceId, topic: &Topic, payload: Bytes) -> Result<(), Refused> {
        self.receive(device, topic, payload).await
    }
    /// A message has reached the device, or was dropped on its way to it. Told by a broker of which
    /// [`Broker::tells_what_arrived`] holds.
    fn settled(&self, device: &DeviceId, topic: &Topic) {
        let _ = (device, topic);
    }
    /// Something was refused.
    async fn refused(&self, subject: &str, kind: &'static str, detail: String);
}

/// How the broker stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Standing {
    /// It is not the control plane's own.
    pub external: bool,
    pub connected: bool,
    /// Why not, if it is known.
    pub trouble: Option<String>,
}

impl Standing {
    /// There is none yet.
    pub fn absent() -> Self {
        Self { external: false, connected: false, trouble: None }
    }
}

/// The running broker, or the connection to it.
#[derive(Clone, Debug)]
pub enum Broker {
    Embedded(Embedded),
    External(External),
}

impl Broker {
    /// Starts one in this process; it serves until the process ends. To be called within a runtime.
    pub async fn embedded(config: Config, ingest: Arc<dyn Ingest>) -> Result<Self, Error> {
        Ok(Self::Embedded(Embedded::start(config, ingest).await?))
    }

    /// Connects to one elsewhere, and goes on trying until [`Broker::close`]. To be called within a runtime.
    pub fn external(address: Address, identities: Arc<dyn Identities>, ingest: Arc<dyn Ingest>) -> Self {
        Self::External(External::start(address, identities, ingest))
    }

    /// Does it say which messages have reached their devices?
    pub fn tells_what_arrived(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Publishes a message of the control plane. One that is retained has been taken by the broker when this returns.
    pub async fn publish(&self, topic: &Topic, payload: Bytes, retain: bool) -> Result<(), Error> {
        match self {
            Self::Embedded(broker) => broker.publish(topic, payload, retain).await,
            Self::External(broker) => broker.publish(topic, payload, retain).await,
        }
    }

    /// Ends a device's connection and session.
    pub async fn kick(&self, device: &DeviceId) {
        match self {
            Self::Embedded(broker) => broker.kick(device).await,
            Self::External(broker) => broker.kick(device).await,
        }
    }

    /// Takes the CAs and the control plane's own certificate afresh.
    pub async fn reload(&self) -> Result<(), Error> {
        match self {
            Self::Embedded(broker) => broker.reload().await,
            Self::External(broker) => {
                broker.reconnect();
                Ok(())
            }
        }
    }

    /// Resolves when the broker serves no more; one elsewhere is waited for instead.
    pub async fn ended(&self) {
        match self {
            Self::Embedded(broker) => broker.ended().await,
            Self::External(_) => std::future::pending().await,
        }
    }

    /// Ends the connection to a broker elsewhere: nothing is taken in after that.
    pub async fn close(&self) {
        match self {
            Self::Embedded(_) => {}
            Self::External(broker) => broker.close().await,
        }
    }

    /// Connections of devices at this moment; one elsewhere does not tell.
    pub fn connections(&self) -> Option<u64> {
        match self {
            Self::Embedded(broker) => Some(broker.connections()),
            Self::External(_) => None,
        }
    }

    /// Does what is published reach the broker, and what devices say reach the control plane?
    pub fn is_connected(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::External(broker) => broker.standing().connected,
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Embedded(_) => Standing { external: false, connected: true, trouble: None },
            Self::External(broker) => broker.standing(),
        }
    }

    /// Counts the times that a broker elsewhere was reached: it may have lost what it had been told.
    pub fn arrivals(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::Embedded(_) => None,
            Self::External(broker) => Some(broker.arrivals()),
        }
    }
}

/// A chunk that did not reach its device within this is dropped: the device asks again. Otherwise one that was away
/// would get thousands of chunks that it has no more use for, and its desired state behind them or not at all.
const CHUNK_EXPIRY_S: u32 = (control_core::delivery::CHUNK_EXPIRY_MS / 1000) as u32;

/// How long a message is of use; one without an end stays until it is replaced.
fn expiry_s(topic: &Topic) -> Option<u32> {
    match topic {
        Topic::BlobChunk { .. } | Topic::BlobBroadcast { .. } => Some(CHUNK_EXPIRY_S),
        Topic::Desired(_)
        | Topic::Reported(_)
        | Topic::Presence(_)
        | Topic::Telemetry(_)
        | Topic::Feedback(_)
        | Topic::Event(_)
        | Topic::BlobWant(_)
        | Topic::ProfileAsk(_)
        | Topic::ProfileReport(_)
        | Topic::Trust(_) => None,
    }
}

/// At most this much of a refused text is kept.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(120).collect::<String>())
}
