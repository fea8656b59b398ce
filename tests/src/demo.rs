//! `cargo xtask demo`: a model's whole life on real data, with real parts, measured.
//!
//! Each step shows one line with a tick and a figure, and fails the demo when what it shows is not so.

pub mod attacks;
pub mod life;
pub mod outage;
pub mod report;
pub mod screen;
pub mod swap;
pub mod variants;

use crate::{
    data::TestSplit,
    harness::{self, Agent, AgentOptions, ControlPlane, ServeOptions},
};
use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use report::{ModelFigures, Report};
use screen::Screen;
use std::path::{Path, PathBuf};

/// Search, train, quantise, sign, roll out, run, replace and undo a model on real data, on this machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask demo")]
pub struct Options {
    /// Devices, each an agent process of its own.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=50))]
    pub devices: u32,
    /// What the model does: MNIST digits, or the series GunPoint and ItalyPowerDemand.
    #[arg(long, value_enum, default_value_t = TaskChoice::Image)]
    pub task: TaskChoice,
    /// A data set of your own: a folder with the four IDX files, or FOLDER/NAME of a `.ts` or `.tsv` pair. An empty or
    /// new folder is taken as the place to keep the demo's state in.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Seed of search and training.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Leave everything running at the end and print how to reach it; Ctrl-C ends it.
    #[arg(long)]
    pub hold: bool,
    /// Write what was measured to this JSON file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// The demo's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskChoice {
    Image,
    Series,
}

/// A data set that the demo makes a model for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Name of the data set, the model and the slot.
    pub name: String,
    /// Where its files are.
    pub path: PathBuf,
    pub test: TestSplit,
    /// INT8 accuracy below which the demo fails; none for data sets that it does not know.
    pub accuracy_min: Option<f64>,
}

/// The board that the demo's devices are: this machine.
const BOARD: &str = "x86-64";
/// INT8 may lose this share of the FP32 accuracy.
const RELATIVE_LOSS_MAX: f64 = 0.01;
/// INT8 bytes as a share of FP32 bytes.
const SIZE_SHARE_MAX: f64 = 0.35;

/// Files of a result that are kept beside `--report FILE`, in the folder `FILE` with the ending `models`: as the
/// result names them, and as they are kept behind the data set's name and a dash.
pub const KEPT_FILES: [(&str, &str); 4] = [
    (shared::manifest::MODEL_FILE, "int8.onnx"),
    (shared::job::MODEL_FP32_FILE, "fp32.onnx"),
    (shared::manifest::GOLDEN_FILE, "golden.safetensors"),
    (shared::job::REPORT_FILE, "report.json"),
];

/// Everything that runs while the demo runs.
#[derive(Debug)]
pub struct Demo {
    pub options: Options,
    pub folder: PathBuf,
    pub control: ControlPlane,
    pub agents: Vec<Agent>,
    pub screen: Screen,
    pub report: Report,
    // Keeps the folder as long as the demo runs, where it is a temporary one.
    _folder: Option<tempfile::TempDir>,
}

/// Runs the whole demo.
pub fn run(options: Options) -> Result<()> {
    let (state, own_data) = split_data_option(options.data.as_deref())?;
    let subjects = subjects(options.task, own_data)?;
    let (folder, guard) = match state {
        Some(folder) => (folder, None),
        None if options.hold => (tempfile::tempdir().context("making a folder")?.keep(), None),
        None => {
            let guard = tempfile::tempdir().context("making a folder")?;
            (guard.path().to_path_buf(), Some(guard))
        }
    };
    let screen = Screen::new();
    screen.tick("set up", &set_up_figure()?);
    // Small chunks and a capped rate make a download long enough to be killed in the middle.
    let serve = ServeOptions { chunk_bytes: 4096, blob_bytes_per_s: 400_000, ..ServeOptions::default() };
    let control = ControlPlane::start(&folder.join("control"), serve)?;
    screen.tick("control plane up", &format!("API on port {}, MQTT on port {}", control.api, control.mqtt));
    let report = Report {
        task: format!("{:?}", options.task).to_lowercase(),
        seed: options.seed,
        ..Report::default()
    };
    let mut demo = Demo { options, folder, control, agents: Vec::new(), screen, report, _folder: guard };
    demo.play(&subjects)
}

impl Demo {
    fn play(&mut self, subjects: &[Subject]) -> Result<()> {
        let main = subjects.first().context("no data set")?;
        self.enrol()?;
        let first = self.make_model(main)?;
        self.roll_out_first(main, &first)?;
        self.classify(main, &first)?;
        self.swap_under_load(main)?;
        self.broker_outage(main)?;
        self.refuse_flipped_byte(main)?;
        self.refuse_wrong_golden(main)?;
        self.roll_back_failing_trial(main)?;
        self.kill_while_downloading(main)?;
        self.start_to_first_answer(main)?;
        for other in &subjects[1..] {
            let version = self.make_model(other)?;
            self.roll_out_beside(other, &version)?;
            self.classify(other, &version)?;
        }
        self.finish()
    }

    fn enrol(&mut self) -> Result<()> {
        for index in 1..=self.options.devices {
            let _busy = self.screen.busy(&format!("enrolling device {index}"));
            let options = AgentOptions { board: BOARD.to_owned(), ..AgentOptions::default() };
            let folder = self.folder.join("devices");
            let agent = Agent::enrol(&self.control, &format!("device-{index}"), &folder, options)?;
            self.agents.push(agent);
        }
        let first = self.agents.first_mut().context("no device")?;
        self.report.agent.rss_bytes.idle = first.process()?.rss_bytes()?;
        let idle = screen::bytes(self.report.agent.rss_bytes.idle);
        self.screen.tick(
            "devices enrolled",
            &format!("{} with their own keys and certificates, {idle} each while idle", self.agents.len()),
        );
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.report.seconds = self.screen.elapsed_s();
        if let Some(path) = self.options.report.clone() {
            let models = path.with_extension("models");
            self.keep_models(&models)?;
            std::fs::write(&path, self.report.to_json()?)
                .with_context(|| format!("writing {}", path.display()))?;
            self.screen.tick("report written", &path.display().to_string());
        }
        self.screen.tick("done", &format!("{:.0} s", self.report.seconds));
        if self.options.hold { self.hold() } else { self.shut_down() }
    }

    /// The control plane's folder may be temporary: the exported models go beside the report.
    fn keep_models(&mut self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let folder = folder.canonicalize().with_context(|| format!("finding {}", folder.display()))?;
        let keep = |name: &str, figures: &mut ModelFigures| -> Result<()> {
            for (file, target) in KEPT_FILES {
                let from = Path::new(&figures.path_int8_onnx).with_file_name(file);
                let to = folder.join(format!("{name}-{target}"));
                std::fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
            }
            figures.path_int8_onnx = folder.join(format!("{name}-int8.onnx")).display().to_string();
            Ok(())
        };
        let main = self.report.model.path_int8_onnx.clone();
        for (name, figures) in &mut self.report.models {
            let is_main = figures.path_int8_onnx == main;
            keep(name, figures)?;
            if is_main {
                self.report.model.path_int8_onnx.clone_from(&figures.path_int8_onnx);
            }
        }
        Ok(())
    }

    fn hold(&mut self) -> Result<()> {
        let identity = self.folder.join("client");
        let client = self.agents.first().context("no device")?.export_identity(&identity)?;
        println!();
        println!("Everything is left running; Ctrl-C ends it.");
        println!("  dashboard     https://127.0.0.1:{}/", self.control.api);
        println!(
            "  command line  {} --context {} status",
            harness::binary("edgewright")?.display(),
            self.control.context().display()
        );
        println!("  MQTT (mTLS)   127.0.0.1:{}", self.control.mqtt);
        for agent in &self.agents {
            println!("  {}      http://127.0.0.1:{}/v2", agent.id, agent.port);
        }
        println!("  CA            {}", client.ca.display());
        println!("  a client certificate (device-1)  {}", client.certificate.display());
        println!("  and its key   {}", client.key.display());
        loop {
            self.control.process()?.check_alive()?;
            for agent in &mut self.agents {
                agent.process()?.check_alive()?;
            }
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
    }

    fn shut_down(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            agent.stop()?;
        }
        self.control.stop()
    }
}

/// `--data`: a folder for state, or a data set.
fn split_data_option(data: Option<&Path>) -> Result<(Option<PathBuf>, Option<PathBuf>)> {
    let Some(path) = data else { return Ok((None, None)) };
    let is_stem = path.file_name().is_some_and(|_| {
        [".ts", ".tsv"].iter().any(|ending| {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            name.push(format!("_TEST{ending}"));
            path.with_file_name(name).is_file()
        })
    });
    if is_stem {
        return Ok((None, Some(path.to_path_buf())));
    }
    if !path.exists()
        || std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?.next().is_none()
    {
        std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        return Ok((Some(path.canonicalize().with_context(|| format!("finding {}", path.display()))?), None));
    }
    Ok((None, Some(path.to_path_buf())))
}

/// The data sets of a task: the one in `own`, else those of the cache, each with its test split.
pub fn subjects(task: TaskChoice, own: Option<PathBuf>) -> Result<Vec<Subject>> {
    if let Some(path) = own {
        let test = match task {
            TaskChoice::Image => TestSplit::idx(&path),
            TaskChoice::Series => TestSplit::series(&path),
        }
        .with_context(|| format!("--data {} holds no data set for --task {task:?}", path.display()))?;
        return Ok(vec![Subject { name: "own-data".to_owned(), path, test, accuracy_min: None }]);
    }
    let data = harness::cache()?.join("data");
    match task {
        TaskChoice::Image => Ok(vec![mnist()?]),
        TaskChoice::Series => ["GunPoint", "ItalyPowerDemand"]
            .into_iter()
            .map(|name| {
                let path = data.join("aeon").join(name).join(name);
                let test = TestSplit::series(&path)
                    .with_context(|| format!("{name} is not in the cache: run `cargo xtask setup`"))?;
                Ok(Subject { name: name.to_lowercase(), path, test, accuracy_min: Some(0.95) })
            })
            .collect(),
    }
}

fn mnist() -> Result<Subject> {
    let path = harness::cache()?.join("data/mnist");
    let test = TestSplit::idx(&path).context("MNIST is not in the cache: run `cargo xtask setup`")?;
    Ok(Subject { name: "mnist".to_owned(), path, test, accuracy_min: Some(0.985) })
}

fn set_up_figure() -> Result<String> {
    for name in ["edgewright", "edgewright-agent", "edgewright-forge"] {
        harness::binary(name)?;
    }
    let ort = harness::ort_library()?;
    ensure!(ort.is_file(), "ONNX Runtime is not at {}: run `cargo xtask setup`", ort.display());
    let cache = harness::cache()?;
    if !cache.join("data").is_dir() {
        bail!("no data sets in {}: run `cargo xtask setup`", cache.display());
    }
    Ok("binaries, ONNX Runtime and data sets are there".to_owned())
}
