//! Devices that live, all in one runtime.

use super::{
    Fleet, Room, api::Api, counts::Reading, device::Device, enrol::Enrolled, enrol::Roll, wave::Wave,
    work::Work,
};
use crate::harness::wait_for;
use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::watch, task::JoinSet};

const CONNECT_LIMIT: Duration = Duration::from_secs(600);
/// A wave that has not ended after this long never will.
const WAVE_LIMIT: Duration = Duration::from_secs(900);
/// Everybody says goodbye within this.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Living devices. Dropped, they go.
#[derive(Debug)]
pub struct Swarm {
    pub names: Vec<String>,
    pub fleet: Arc<Fleet>,
    /// Of them, how many have no fault that keeps a version from being committed.
    pub healthy: usize,
    stop: watch::Sender<bool>,
    devices: JoinSet<()>,
    runtime: Runtime,
    enrolled: Enrolled,
}

impl Swarm {
    /// Finds or enrols the devices of `roll` in `folder` and lets them live; they connect one after the other.
    pub fn begin(
        roll: &Roll,
        api: Option<&Api>,
        folder: &Path,
        room: Room,
        bar: &ProgressBar,
    ) -> Result<Self> {
        let mut enrolled = roll.call(api, folder, bar)?;
        let fleet = Fleet::new(&enrolled.root, folder.join(format!("{}.trust", roll.prefix)), room)?;
        let fleet = Arc::new(fleet);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("fleet")
            .enable_all()
            .build()
            .context("starting the devices' runtime")?;
        let (stop, stopped) = watch::channel(false);
        let mut devices = JoinSet::new();
        let seats = std::mem::take(&mut enrolled.seats);
        let healthy = seats.iter().filter(|seat| seat.character.is_healthy()).count();
        for seat in seats {
            let device = Device::new(Arc::clone(&fleet), seat, roll.seed);
            devices.spawn_on(device.run(stopped.clone()), runtime.handle());
        }
        let names = roll.names().collect();
        Ok(Self { names, fleet, healthy, stop, devices, runtime, enrolled })
    }

    /// The same, and waits until every one has been connected.
    pub fn raise(roll: &Roll, api: &Api, folder: &Path, bar: &ProgressBar) -> Result<Self> {
        let swarm = Self::begin(roll, Some(api), folder, Room::default(), bar)?;
        swarm.wait_seen(CONNECT_LIMIT)?;
        Ok(swarm)
    }

    /// Devices that had no identity before.
    pub fn fresh(&self) -> usize {
        self.enrolled.fresh
    }

    /// What is spawned while the guard lives runs beside the devices.
    pub fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Waits until every device has been connected at some time.
    pub fn wait_seen(&self, limit: Duration) -> Result<()> {
        let count = self.names.len() as u64;
        wait_for(
            "the devices to connect",
            limit,
            || Ok((self.fleet.counts.seen.get() >= count).then_some(())),
        )
        .with_context(|| format!("{} of {count} devices connected", self.fleet.counts.seen.get()))
    }

    /// Devices with a connection at this moment.
    pub fn connected(&self) -> usize {
        usize::try_from(self.fleet.counts.connected()).unwrap_or(usize::MAX)
    }

    /// From here on chunks are counted for `wave`.
    pub fn bring(&self, wave: Arc<Wave>) {
        self.fleet.set_wave(wave);
    }

    /// Has everybody speak for `span`; gives what was counted before and after.
    pub fn speak(&self, work: Work, span: Duration) -> (Reading, Reading) {
        self.fleet.counts.forget_latency();
        let before = self.fleet.counts.read();
        self.fleet.set_work(work);
        std::thread::sleep(span);
        let after = self.fleet.counts.read();
        self.fleet.set_work(Work::default());
        (before, after)
    }

    /// Has nobody make records any more, and waits until every one that was made has been acknowledged.
    pub fn drain(&self, limit: Duration) -> Result<Reading> {
        self.fleet.set_work(Work::default());
        wait_for("every record to be acknowledged", limit, || {
            let read = self.fleet.counts.read();
            Ok((read.made == read.delivered).then_some(read))
        })
    }

    /// Waits until every device has every file, and gives when the last had.
    pub fn wait_whole(&self, wave: &Wave) -> Result<Instant> {
        let count = self.names.len();
        let ended = self.runtime.block_on(async {
            tokio::time::timeout(WAVE_LIMIT, async {
                loop {
                    let changed = wave.changed.notified();
                    if wave.whole.load(Ordering::Acquire) >= count || self.has_complaint() {
                        return Instant::now();
                    }
                    // A notice may be for several devices.
                    let _ = tokio::time::timeout(LOOK, changed).await;
                }
            })
            .await
        });
        if let Some(complaint) = self.fleet.complaints().first() {
            bail!("{complaint}");
        }
        ended.with_context(|| {
            let whole = wave.whole.load(Ordering::Acquire);
            format!("{whole} of {count} devices had the model after {} s", WAVE_LIMIT.as_secs())
        })
    }

    fn has_complaint(&self) -> bool {
        self.fleet.counts.complaints.get() > 0
    }

    /// Everybody says what is queued, goes, and keeps its state.
    pub fn end(mut self) -> Reading {
        self.stop_all();
        self.fleet.counts.read()
    }

    fn stop_all(&mut self) {
        self.stop.send_replace(true);
        let (runtime, devices) = (&self.runtime, &mut self.devices);
        let gone = async { while devices.join_next().await.is_some() {} };
        // Whoever has not gone by then is cut off with the runtime.
        let _ = runtime.block_on(async { tokio::time::timeout(STOP_LIMIT, gone).await });
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if !self.devices.is_empty() {
            self.stop_all();
        }
    }
}
