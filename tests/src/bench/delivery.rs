//! A model to many devices: our broadcast over MQTT against each device fetching the file over HTTPS; and a model to those
//! that have its predecessor: our deltas against others'.

pub mod deltas;
pub mod https;

use super::{kill::models::write_bundle, machine::Machine, spread::Spread};
use crate::{
    fleet::{
        api::Api,
        character::Faults,
        enrol::{AT_ONCE, Roll},
        files,
        swarm::Swarm,
        wave::Wave,
    },
    harness::{
        ControlPlane, ServeOptions,
        control::{count_of, text_of},
        wait_for,
    },
};
use anyhow::{Context, Result, ensure};
use https::Nginx;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shared::{limits, manifest::MODEL_FILE};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Options of the bench.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Devices of a wave; may be given again.
    #[arg(long, value_name = "N", default_values_t = [1, 100, 1000])]
    pub devices: Vec<usize>,
    /// Sizes of the model in bytes; may be given again.
    #[arg(long, value_name = "BYTES", default_values_t = [1_000_000, 20_000_000])]
    pub model_bytes: Vec<usize>,
    /// Chunks in a thousand that a device does not get to see; may be given again.
    #[arg(long, value_name = "N", default_values_t = [0, 10, 100])]
    pub loss_permille: Vec<u64>,
    /// How often each wave is measured.
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Do not have the largest fleet come back at once after the broker was killed.
    #[arg(long)]
    pub no_return: bool,
    /// Measure no deltas; they take a model that is searched and trained first.
    #[arg(long)]
    pub no_deltas: bool,
    /// Measure no waves.
    #[arg(long)]
    pub no_waves: bool,
}

const DEVICES_MAX: usize = 4000;
const LOSS_PERMILLE_MAX: u64 = 900;
const BOARD: &str = "x86-64";
/// Short: what is measured is over when it begins.
const POLICY: [&str; 4] = ["--wave", "100%", "--trial-duration-ms", "100"];
/// For the rollout's own end, which is not measured.
const END_LIMIT: Duration = Duration::from_secs(300);
/// Most slots that one device has: waves of one swarm.
const WAVES_PER_SWARM: usize = limits::SLOTS_MAX;

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub machine: Option<Machine>,
    pub waves: Vec<WaveReport>,
    /// Of the largest fleet.
    pub comeback: Option<ComebackReport>,
    pub deltas: Vec<deltas::DeltaReport>,
}

/// One wave, both ways.
#[derive(Clone, Debug, Serialize)]
pub struct WaveReport {
    pub devices: usize,
    /// Bytes of the model's file.
    pub model_bytes: u64,
    /// Share of the chunks that a device did not get to see.
    pub loss: f64,
    /// Bytes of chunks that the control plane gave the broker: all files of the bundle, and what was missed again.
    pub published_bytes: u64,
    /// Bytes of chunks that the broker brought to devices, those lost there included.
    pub delivered_bytes: u64,
    /// From the order to roll out until the last device had every file.
    pub seconds: f64,
    /// Bytes of the file that nginx brought to devices, pieces lost there included.
    pub https_bytes: u64,
    /// From the first connection until the last device had the file.
    pub https_seconds: f64,
    pub round: usize,
}

/// A fleet that comes back at once after its broker was killed.
#[derive(Clone, Debug, Serialize)]
pub struct ComebackReport {
    pub devices: usize,
    /// From when the control plane is started again until every device is connected.
    pub seconds: f64,
    /// Most resident memory of the control plane meanwhile.
    pub rss_bytes_max: u64,
}

/// Measures.
pub fn run(options: &Options) -> Result<Report> {
    check(options)?;
    let mut report = Report { machine: Some(Machine::this()), ..Report::default() };
    let folder = tempfile::tempdir().context("making a folder")?;
    if !options.no_waves {
        files::ensure_room_for(options.devices.iter().copied().max().unwrap_or(0))?;
        let mut stage = Stage::set(folder.path())?;
        let most = options.devices.iter().copied().max();
        for round in 0..options.rounds {
            for &devices in &options.devices {
                let swarm = stage.waves(options, devices, round, &mut report.waves)?;
                if Some(devices) == most && !options.no_return && report.comeback.is_none() {
                    report.comeback = Some(stage.come_back(&swarm)?);
                }
            }
        }
        print!("{}", wave_table(&report.waves));
        if let Some(ComebackReport { devices, seconds, rss_bytes_max }) = &report.comeback {
            let mib = rss_bytes_max >> 20;
            println!(
                "{devices} devices are back {seconds:.1} s after the control plane, killed before, was started ({mib} MiB)"
            );
        }
    }
    if !options.no_deltas {
        report.deltas = deltas::run(folder.path())?;
        print!("{}", deltas::table(&report.deltas));
    }
    Ok(report)
}

fn check(options: &Options) -> Result<()> {
    for &devices in &options.devices {
        ensure!(
            (1..=DEVICES_MAX).contains(&devices),
            "--devices is {devices}, allowed are 1 to {DEVICES_MAX}"
        );
    }
    for &loss in &options.loss_permille {
        ensure!(loss <= LOSS_PERMILLE_MAX, "--loss-permille is {loss}, allowed are 0 to {LOSS_PERMILLE_MAX}");
    }
    let waves = options.model_bytes.len() * options.loss_permille.len();
    ensure!(
        (1..=WAVES_PER_SWARM).contains(&waves),
        "{waves} waves for each number of devices, allowed are 1 to {WAVES_PER_SWARM}"
    );
    ensure!(options.rounds > 0, "--rounds is 0, allowed are 1 and more");
    Ok(())
}

/// The two servers.
struct Stage<'a> {
    folder: &'a Path,
    control: ControlPlane,
    nginx: Nginx,
}

impl<'a> Stage<'a> {
    fn set(folder: &'a Path) -> Result<Self> {
        let control = ControlPlane::start(&folder.join("control"), ServeOptions::default())?;
        let nginx = Nginx::start(&folder.join("nginx"))?;
        Ok(Self { folder, control, nginx })
    }

    /// All waves of one number of devices; gives these.
    fn waves(
        &self,
        options: &Options,
        devices: usize,
        round: usize,
        reports: &mut Vec<WaveReport>,
    ) -> Result<Swarm> {
        let prefix = format!("r{round}-{devices}");
        let bar = bar(devices);
        let roll = Roll {
            prefix: prefix.clone(),
            devices,
            boards: vec![BOARD.parse()?],
            labels: Vec::new(),
            faults: Faults::default(),
            seed: round as u64,
            at_once: AT_ONCE,
            keeps_state: false,
        };
        let api = Api::open(&self.control.context())?;
        let swarm = Swarm::raise(&roll, &api, &self.folder.join(&prefix), &bar)?;
        bar.finish_and_clear();
        let mut slot = 0;
        for &model_bytes in &options.model_bytes {
            for &loss_permille in &options.loss_permille {
                slot += 1;
                // A model of its own: there is nothing to make a delta from.
                let name = format!("{prefix}-{slot}");
                let seen =
                    self.wave(&swarm, &name, model_bytes, loss_permille, round).with_context(|| {
                        format!("{devices} devices, {model_bytes} bytes, {loss_permille} ‰ lost")
                    })?;
                eprintln!("{}", line(&seen));
                reports.push(seen);
            }
        }
        Ok(swarm)
    }

    /// Kills the control plane, and with it the broker, and has everybody come back.
    fn come_back(&mut self, swarm: &Swarm) -> Result<ComebackReport> {
        let devices = swarm.names.len();
        self.control.kill()?;
        wait_for("the devices to notice", END_LIMIT, || Ok((swarm.connected() == 0).then_some(())))?;
        let began = Instant::now();
        self.control.resume()?;
        let mut rss_bytes_max = 0;
        let process = self.control.process()?;
        wait_for("the devices to come back", END_LIMIT, || {
            rss_bytes_max = rss_bytes_max.max(process.rss_bytes()?);
            Ok((swarm.connected() == devices).then_some(()))
        })?;
        Ok(ComebackReport { devices, seconds: began.elapsed().as_secs_f64(), rss_bytes_max })
    }

    fn wave(
        &self,
        swarm: &Swarm,
        name: &str,
        model_bytes: usize,
        loss_permille: u64,
        round: usize,
    ) -> Result<WaveReport> {
        let bundle = self.folder.join("bundles").join(name);
        write_bundle(&bundle, name, model_bytes)?;
        let path = bundle.join(MODEL_FILE);
        let model = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let model = Arc::new(model);
        let path = bundle.to_str().context("folder name is not UTF-8")?;
        let shown = self.control.cli(&["model", "publish", path, "--model", name, "--board", BOARD])?;
        let version = text_of(&shown, "/name")?.to_owned();

        let wave = Arc::new(Wave { loss_permille, ..Wave::default() });
        swarm.bring(wave.clone());
        let mut policy: Vec<&str> = POLICY.to_vec();
        for device in &swarm.names {
            policy.extend(["--device", device]);
        }
        let began = Instant::now();
        let rollout = self.control.start_rollout(&version, name, &policy)?;
        let ended = swarm.wait_whole(&wave)?;
        let seconds = ended.duration_since(began).as_secs_f64();
        let published_bytes = self.ended(&rollout)?;

        let fetched =
            self.nginx.serve(&model, swarm.names.len(), limits::CHUNK_BYTES_MAX as usize, loss_permille)?;
        #[expect(clippy::cast_precision_loss)]
        let loss = loss_permille as f64 / 1000.0;
        Ok(WaveReport {
            devices: swarm.names.len(),
            model_bytes: model.len() as u64,
            loss,
            published_bytes,
            delivered_bytes: wave.delivered_bytes.load(Ordering::Relaxed),
            seconds,
            https_bytes: fetched.bytes,
            https_seconds: fetched.seconds,
            round,
        })
    }

    /// Waits until the rollout is completed; gives the bytes that it published.
    fn ended(&self, rollout: &str) -> Result<u64> {
        let shown = self.control.wait_rollout_within(rollout, END_LIMIT)?;
        ensure!(
            text_of(&shown, "/state")? == "completed",
            "the rollout ended as {}",
            text_of(&shown, "/state")?
        );
        // The count is written a moment after the bytes went out.
        let mut before = count_of(&shown, "/bytes_published")?;
        wait_for("the count of published bytes to rest", END_LIMIT, || {
            std::thread::sleep(Duration::from_millis(600));
            let now = count_of(&self.control.cli(&["rollout", "show", rollout])?, "/bytes_published")?;
            Ok((std::mem::replace(&mut before, now) == now).then_some(now))
        })
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn bar(devices: usize) -> ProgressBar {
    let bar = ProgressBar::new(devices as u64);
    if let Ok(style) = ProgressStyle::with_template("enrolling {bar:40.cyan/dim} {pos}/{len} devices") {
        bar.set_style(style.progress_chars("━━╌"));
    }
    if bar.is_hidden() {
        eprintln!("enrolling {devices} devices");
    }
    bar
}

#[expect(clippy::cast_precision_loss)]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn line(wave: &WaveReport) -> String {
    let WaveReport { devices, model_bytes, loss, seconds, https_seconds, .. } = wave;
    format!(
        "{devices} devices, {model_bytes} bytes, {:.0} % lost: {seconds:.2} s, {:.3} models published; HTTPS {https_seconds:.2} s",
        loss * 100.0,
        share(wave.published_bytes, *model_bytes),
    )
}

/// What was seen, for people.
fn wave_table(waves: &[WaveReport]) -> String {
    let mut text = format!(
        "{:>7} {:>10} {:>5} {:>12} {:>12} {:>12} {:>9} {:>9} {:>20} {:>10}\n",
        "devices",
        "bytes",
        "lost",
        "published/M",
        "delivered/DM",
        "https/DM",
        "s",
        "https s",
        "s ratio (middle half)",
        "egress"
    );
    let mut seen: Vec<(usize, u64, f64)> = Vec::new();
    for wave in waves {
        let case = (wave.devices, wave.model_bytes, wave.loss);
        if seen.contains(&case) {
            continue;
        }
        seen.push(case);
        let rounds: Vec<&WaveReport> =
            waves.iter().filter(|other| (other.devices, other.model_bytes, other.loss) == case).collect();
        let median = |value: &dyn Fn(&WaveReport) -> f64| {
            let values: Vec<f64> = rounds.iter().map(|wave| value(wave)).collect();
            Spread::of(&values).map_or_else(String::new, |spread| format!("{:.3}", spread.median))
        };
        let all = wave.model_bytes * wave.devices as u64;
        let ratios: Vec<f64> = rounds.iter().map(|wave| wave.seconds / wave.https_seconds).collect();
        text += &format!(
            "{:>7} {:>10} {:>4.0}% {:>12} {:>12} {:>12} {:>9} {:>9} {:>20} {:>10}\n",
            wave.devices,
            wave.model_bytes,
            wave.loss * 100.0,
            median(&|wave| share(wave.published_bytes, wave.model_bytes)),
            median(&|wave| share(wave.delivered_bytes, all)),
            median(&|wave| share(wave.https_bytes, all)),
            median(&|wave| wave.seconds),
            median(&|wave| wave.https_seconds),
            Spread::of(&ratios).map_or_else(String::new, |spread| spread.text(2)),
            median(&|wave| share(wave.published_bytes, wave.https_bytes)),
        );
    }
    text += "M: the model's bytes; DM: times the devices; egress: what the control plane published for each byte that nginx sent\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_one_wave_are_one_line_and_the_report_has_its_fields() {
        let wave = |devices, seconds, round| WaveReport {
            devices,
            model_bytes: 1000,
            loss: 0.01,
            published_bytes: 1050,
            delivered_bytes: 10_100,
            seconds,
            https_bytes: 10_050,
            https_seconds: 2.0,
            round,
        };
        let waves = [wave(10, 1.0, 0), wave(100, 9.0, 0), wave(10, 3.0, 1), wave(10, 2.0, 2)];
        let text = wave_table(&waves);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("1.00 (0.75-1.25)"), "{text}");
        assert!(text.contains("1.050"), "{text}");
        let value = serde_json::to_value(Report { waves: waves.to_vec(), ..Report::default() }).unwrap();
        for key in [
            "devices",
            "model_bytes",
            "loss",
            "published_bytes",
            "delivered_bytes",
            "seconds",
            "https_bytes",
            "https_seconds",
        ] {
            assert!(value["waves"][0][key].is_number(), "{key}");
        }
    }

    #[test]
    fn what_no_swarm_can_do_is_refused() {
        let options = |devices, loss, rounds| Options {
            devices: vec![devices],
            model_bytes: vec![1000],
            loss_permille: vec![loss],
            rounds,
            no_return: true,
            no_deltas: true,
            no_waves: false,
        };
        check(&options(1, 900, 1)).unwrap();
        for (devices, loss, rounds) in [(0, 0, 1), (DEVICES_MAX + 1, 0, 1), (1, 1000, 1), (1, 0, 0)] {
            assert!(check(&options(devices, loss, rounds)).is_err());
        }
    }
}
