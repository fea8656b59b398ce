//! The simulated fleet: enrolled one by one as any device, connected all at once.

use super::device::{Device, Fleet, Wave};
use crate::harness::{ControlPlane, wait_for};
use anyhow::{Context, Result, bail};
use edgewright_agent::{
    data::DataDir,
    identity::Identity,
    link::{Link, mqtt::Mqtt},
};
use indicatif::ProgressBar;
use shared::BoardId;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// Devices that are enrolled beside each other.
const ENROLLING: usize = 4;
const CONNECT_LIMIT: Duration = Duration::from_secs(180);
/// A wave that has not ended after this long never will.
const WAVE_LIMIT: Duration = Duration::from_secs(900);

/// Connected devices. Dropped, they go.
pub struct Swarm {
    pub names: Vec<String>,
    fleet: Arc<Fleet>,
    links: Vec<Mqtt>,
    runtime: Runtime,
}

impl std::fmt::Debug for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Swarm of {}", self.names.len())
    }
}

impl Swarm {
    /// Enrols `count` devices that are named after `prefix`, and connects them.
    pub fn raise(
        control: &ControlPlane,
        folder: &Path,
        prefix: &str,
        count: usize,
        board: &str,
        bar: &ProgressBar,
    ) -> Result<Self> {
        let board: BoardId = board.parse()?;
        let names: Vec<String> = (1..=count).map(|number| format!("{prefix}-{number}")).collect();
        let identities = enrol(control, folder, &names, &board, bar)?;
        let root = identities.first().context("a swarm of no devices")?.0.root.get().as_bytes();
        let fleet = Arc::new(Fleet::new(board, root, folder.join(format!("{prefix}.trust")))?);
        let runtime = Runtime::new().context("starting the devices' runtime")?;
        let mut links = Vec::new();
        {
            let _entered = runtime.enter();
            for (number, (identity, data)) in identities.into_iter().enumerate() {
                links.push(Device::start(fleet.clone(), identity, &data, number as u64 + 1)?);
            }
        }
        let swarm = Self { names, fleet, links, runtime };
        wait_for("the devices to connect", CONNECT_LIMIT, || Ok((swarm.connected() == count).then_some(())))?;
        Ok(swarm)
    }

    /// Devices with a connection at this moment.
    pub fn connected(&self) -> usize {
        self.fleet.connected.load(Ordering::Relaxed)
    }

    /// From here on chunks are counted for `wave`.
    pub fn begin(&self, wave: Arc<Wave>) {
        self.fleet.set_wave(wave);
    }

    /// Waits until every device has every file, and gives when the last had.
    pub fn wait_whole(&self, wave: &Wave) -> Result<Instant> {
        let count = self.names.len();
        let ended = self.runtime.block_on(async {
            tokio::time::timeout(WAVE_LIMIT, async {
                loop {
                    let changed = wave.changed.notified();
                    if wave.whole.load(Ordering::Acquire) >= count || wave_fault(wave).is_some() {
                        return Instant::now();
                    }
                    changed.await;
                }
            })
            .await
        });
        if let Some(fault) = wave_fault(wave) {
            bail!("{fault}");
        }
        ended.with_context(|| {
            let whole = wave.whole.load(Ordering::Acquire);
            format!("{whole} of {count} devices had the model after {} s", WAVE_LIMIT.as_secs())
        })
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.links.iter().for_each(Link::close);
    }
}

fn wave_fault(wave: &Wave) -> Option<String> {
    wave.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn enrol(
    control: &ControlPlane,
    folder: &Path,
    names: &[String],
    board: &BoardId,
    bar: &ProgressBar,
) -> Result<Vec<(Identity, DataDir)>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..ENROLLING)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let enrolled = enrol_one(control, folder, name, board)?;
                        done.lock().unwrap_or_else(PoisonError::into_inner).push(enrolled);
                        bar.inc(1);
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn enrol_one(
    control: &ControlPlane,
    folder: &Path,
    name: &str,
    board: &BoardId,
) -> Result<(Identity, DataDir)> {
    let token: PathBuf = folder.join(format!("{name}.json"));
    let out = token.to_str().context("folder name is not UTF-8")?;
    control.cli(&["device", "token", "create", "--device", name, "--out", out])?;
    let data = DataDir::open(&folder.join(name))?;
    let identity = Identity::load_or_enrol(&data, Some(&token), board)?;
    Ok((identity, data))
}
