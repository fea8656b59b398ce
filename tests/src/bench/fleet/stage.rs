//! The servers of one run: the control plane on its store, with its broker.

use super::{Broker, Store, usage::Usage};
use crate::{
    alone::READY,
    fleet::{
        Room,
        api::Api,
        character::Faults,
        enrol::{AT_ONCE, Roll},
        swarm::Swarm,
    },
    harness::{
        ControlPlane, Postgres, Process, ServeOptions, binary, control::count_of, mosquitto, wait_for,
    },
};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::{fs, path::PathBuf, process::Command, time::Duration};

/// The board of every device, and of the model.
pub const BOARD: &str = "x86-64";
const LIMIT: Duration = Duration::from_secs(60);
/// Everybody is connected within this.
const CONNECT_LIMIT: Duration = Duration::from_secs(900);

/// Started servers. Dropped, they end.
#[derive(Debug)]
pub struct Stage {
    pub control: ControlPlane,
    broker: Broker,
    pub folder: PathBuf,
    mosquitto: Option<Process>,
    postgres: Option<Postgres>,
}

impl Stage {
    /// Starts what a run needs, in an empty folder.
    pub fn set(folder: PathBuf, broker: Broker, store: Store) -> Result<Self> {
        let broker_folder = folder.join("broker");
        fs::create_dir_all(&broker_folder).with_context(|| format!("making {}", broker_folder.display()))?;
        let postgres = match store {
            Store::Sqlite => None,
            Store::Postgres => Some(Postgres::start()?),
        };
        let serve = ServeOptions {
            broker_crl: (broker == Broker::Mosquitto).then(|| broker_folder.join("crl.pem")),
            database: postgres.as_ref().map(Postgres::address),
            ..ServeOptions::default()
        };
        let control = ControlPlane::start(&folder.join("control"), serve)?;
        let mut stage = Self { control, broker, folder, mosquitto: None, postgres };
        if broker == Broker::Mosquitto {
            let out = broker_folder.to_str().context("folder name is not UTF-8")?;
            let listen = format!("127.0.0.1:{}", stage.control.mqtt);
            stage.control.cli(&["broker", "files", "--out", out, "--listen", &listen])?;
            stage.mosquitto = Some(mosquitto::start(&broker_folder, stage.control.mqtt)?);
            wait_for("the control plane to reach the broker", LIMIT, || {
                Ok((stage.control.cli(&["status"])?["broker"]["connected"] == true).then_some(()))
            })?;
        }
        Ok(stage)
    }

    /// The API, as an administrator.
    pub fn api(&self) -> Result<Api> {
        Api::open(&self.control.context())
    }

    /// So many devices of this stage; they are enrolled the first time.
    pub fn swarm(&self, devices: usize, room: Room) -> Result<Swarm> {
        let roll = Roll {
            prefix: "bench".to_owned(),
            devices,
            boards: vec![BOARD.parse()?],
            labels: Vec::new(),
            faults: Faults::default(),
            seed: 1,
            at_once: AT_ONCE,
            keeps_state: false,
        };
        let bar = ProgressBar::new(devices as u64);
        if let Ok(style) = ProgressStyle::with_template("identities {bar:40.cyan/dim} {pos}/{len}") {
            bar.set_style(style.progress_chars("━━╌"));
        }
        let api = self.api()?;
        let swarm = Swarm::begin(&roll, Some(&api), &self.folder.join("devices"), room, &bar);
        bar.finish_and_clear();
        swarm
    }

    /// Waits until every device has been connected.
    pub fn wait_connected(&self, swarm: &Swarm) -> Result<()> {
        swarm.wait_seen(CONNECT_LIMIT)
    }

    /// Records of all kinds that the store has counted, and those of them that it has although they are there already.
    pub fn stored(&self, api: &Api) -> Result<(u64, u64)> {
        let status = api.get("/status")?;
        let of = |kind: &str| count_of(&status, &format!("/ingest/{kind}"));
        Ok((of("events")? + of("feedback")? + of("telemetry")?, of("duplicate_rows")?))
    }

    /// What server, broker, database and the simulated fleet use, each by its name; the server first.
    pub fn usage(&mut self) -> Result<Vec<(&'static str, Usage)>> {
        let mut parts = vec![("server", Usage::of(self.control.process()?.id())?)];
        if let Some(mosquitto) = &self.mosquitto {
            parts.push(("mosquitto", Usage::of(mosquitto.id())?));
        }
        if let Some(postgres) = &mut self.postgres {
            parts.push(("postgres", Usage::of(postgres.process()?.id())?));
        }
        parts.push(("fleet", Usage::own()?));
        Ok(parts)
    }

    /// Stops the control plane and puts the broker alone in its place; gives its process.
    pub fn leave_broker_alone(&mut self) -> Result<Process> {
        self.control.stop()?;
        let mut command = Command::new(binary("edgewright-broker-alone")?);
        command.arg("--data").arg(&self.control.data);
        match self.broker {
            Broker::Embedded => command.args(["--mqtt", &format!("127.0.0.1:{}", self.control.mqtt)]),
            Broker::Mosquitto => {
                command.args(["--broker", &format!("mqtts://127.0.0.1:{}", self.control.mqtt)])
            }
        };
        let log = self.folder.join("alone.log");
        let mut process = Process::start("edgewright-broker-alone", command, &log)?;
        process.wait_for("the broker alone", LIMIT, || {
            let text = fs::read_to_string(&log).context("reading its log")?;
            Ok(text.lines().any(|line| line == READY).then_some(()))
        })?;
        Ok(process)
    }

    /// An error where something is not there that a run needs.
    pub fn check(broker: Broker, store: Store) -> Result<()> {
        if store == Store::Postgres && !crate::harness::postgres::is_there() {
            bail!("PostgreSQL is not installed; `cargo xtask setup` brings it, or give --store sqlite");
        }
        if broker == Broker::Mosquitto && Command::new(mosquitto::program()).arg("-h").output().is_err() {
            bail!("mosquitto is not installed; `cargo xtask setup` brings it, or give --broker embedded");
        }
        Ok(())
    }
}
