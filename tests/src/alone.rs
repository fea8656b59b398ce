//! `edgewright-broker-alone`: the broker with nothing behind it, as the limit of what can be taken in. Everybody is let in,
//! every message is acknowledged and dropped.

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser;
use edgewright::{
    broker::{
        Address, Broker, CLIENT_NAME, Config, Files, Identities, Identity, Ingest, Refused, SESSION_LIFE,
    },
    signer::{ClientCertificate, Signer},
};
use edgewright_agent::clock::wall;
use shared::{DeviceId, topic::Topic};
use std::{
    collections::HashSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Said once it takes messages.
pub const READY: &str = "ready";
/// How often it says how many messages came.
const TELL: Duration = Duration::from_secs(1);
const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);
const REACH: Duration = Duration::from_millis(50);

/// The broker of a control plane that is stopped, alone.
#[derive(Debug, Parser)]
#[command(name = "edgewright-broker-alone")]
pub struct Options {
    /// The data folder of the control plane
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where its own broker listens
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "broker")]
    mqtt: Option<SocketAddr>,
    /// The broker in place of it
    #[arg(long, value_name = "mqtts://HOST:PORT", conflicts_with = "mqtt")]
    broker: Option<Address>,
}

/// Counts, and drops.
struct Sink {
    signer: Signer,
    messages: AtomicU64,
}

#[async_trait]
impl Ingest for Sink {
    async fn admit(&self, _: &DeviceId, _: &str) -> Result<bool, Refused> {
        Ok(true)
    }

    async fn with_good_certificates(&self, devices: &[DeviceId]) -> Result<HashSet<DeviceId>, Refused> {
        Ok(devices.iter().cloned().collect())
    }

    async fn receive(&self, _: &DeviceId, _: &Topic, _: Bytes) -> Result<(), Refused> {
        self.messages.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn refused(&self, subject: &str, kind: &'static str, detail: String) {
        eprintln!("refused: {subject}: {kind}: {detail}");
    }
}

impl Sink {
    fn identity(&self, name: &str) -> Result<Identity, String> {
        let made = self.signer.client_certificate(name, CERTIFICATE_LIFE, wall());
        let ClientCertificate { certificate_pem, key_pem } = made.map_err(|error| error.to_string())?;
        let ca_pem = self.signer.ca_pem();
        Ok(Identity { certificate_pem, key_pem, ca_pem, renew_after: CERTIFICATE_LIFE })
    }
}

impl Identities for Sink {
    fn own(&self) -> Result<Identity, String> {
        self.identity(CLIENT_NAME)
    }

    fn of_device(&self, device: &DeviceId) -> Result<Identity, String> {
        self.identity(device.as_str())
    }
}

/// Serves until it is ended.
pub fn run(options: &Options) -> Result<()> {
    crate::fleet::files::raise_limit();
    let hosts = ["localhost", "127.0.0.1"].map(str::to_owned);
    let signer =
        Signer::open(&options.data.join("keys"), &hosts, wall()).context("the control plane's keys")?;
    let files = Files {
        certificate: signer.server_certificate_path(),
        key: signer.server_key_path(),
        ca: signer.ca_path(),
    };
    let sink = Arc::new(Sink { signer, messages: AtomicU64::new(0) });
    // As `edgewright serve` does.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("serve")
        .enable_all()
        .build()
        .context("the runtime")?;
    runtime.block_on(async {
        let ingest = Arc::clone(&sink) as Arc<dyn Ingest>;
        let broker = match (&options.broker, options.mqtt) {
            (Some(address), _) => {
                let identities = Arc::clone(&sink) as Arc<dyn Identities>;
                Broker::external(address.clone(), identities, ingest)
            }
            (None, Some(address)) => {
                Broker::embedded(Config { address, files, session_life: SESSION_LIFE }, ingest).await?
            }
            (None, None) => anyhow::bail!("neither --mqtt nor --broker is given"),
        };
        while !broker.is_connected() {
            tokio::time::sleep(REACH).await;
        }
        println!("{READY}");
        let mut before = 0;
        loop {
            tokio::select! {
                () = broker.ended() => anyhow::bail!("the broker has ended"),
                () = tokio::time::sleep(TELL) => {}
            }
            let messages = sink.messages.load(Ordering::Relaxed);
            if messages != before {
                println!("{messages} messages, {} in the last second", messages - before);
            }
            before = messages;
        }
    })
}
