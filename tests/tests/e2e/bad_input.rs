//! What is wrong is said in one line that names what, where and what to do; the exit code is not zero; nothing is left
//! half-written.

use super::world::World;
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{Agent, AgentOptions, binary, free_port, wait_for};
use shared::wire::Phase;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// One line on standard error, with every word of `words` in it, and an exit code over zero.
fn said(what: &str, code: Option<i32>, stderr: &str, words: &[&str]) -> Result<()> {
    let text = stderr.trim();
    ensure!(code.is_some_and(|code| code > 0), "{what}: exit code {code:?}: {text}");
    ensure!(text.lines().count() == 1, "{what}: not one line: {text}");
    for word in words {
        ensure!(text.contains(word), "{what}: no {word:?} in: {text}");
    }
    Ok(())
}

fn said_by(what: &str, output: &Output, words: &[&str]) -> Result<()> {
    said(what, output.status.code(), &String::from_utf8_lossy(&output.stderr), words)
}

fn inspect(path: &Path) -> Result<Output> {
    Command::new(binary("edgewright-forge")?)
        .args(["inspect", "--json", "--path"])
        .arg(path)
        .output()
        .context("forge")
}

fn idx(magic: u32, sizes: &[u32], values: &[u8]) -> Vec<u8> {
    let words = std::iter::once(magic).chain(sizes.iter().copied());
    words.flat_map(u32::to_be_bytes).chain(values.iter().copied()).collect()
}

fn write_idx(folder: &Path, images: &[u8], labels: &[u8]) -> Result<()> {
    for split in ["train", "t10k"] {
        fs::write(folder.join(format!("{split}-images-idx3-ubyte")), images)?;
        fs::write(folder.join(format!("{split}-labels-idx1-ubyte")), labels)?;
    }
    Ok(())
}

pub(crate) fn damaged_data_sets_are_refused_by_name(_: &mut World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let images = idx(0x0803, &[4, 8, 8], &[7; 4 * 64]);
    write_idx(folder, &images[..images.len() - 3], &idx(0x0801, &[4], &[0, 1, 0, 1]))?;
    said_by("cut images", &inspect(folder)?, &["train-images-idx3-ubyte"])?;
    write_idx(folder, &images, &idx(0x0801, &[3], &[0, 1, 0]))?;
    said_by("fewer labels", &inspect(folder)?, &["train-labels-idx1-ubyte"])?;
    write_idx(folder, &images, &idx(0x0801, &[4], &[5; 4]))?;
    said_by("one class", &inspect(folder)?, &["class"])?;
    write_idx(folder, &images, &idx(0x0803, &[4], &[0, 1, 0, 1]))?;
    said_by("labels that are images", &inspect(folder)?, &["train-labels-idx1-ubyte"])?;
    let series = folder.join("Bad");
    for (what, text, words) in [
        ("a word among numbers", "1\t0.5\t0.6\n2\tpear\t0.7\n", ["Bad_TRAIN.tsv", "2"]),
        ("lines of unequal length", "1\t0.5\t0.6\n2\t0.7\n", ["Bad_TRAIN.tsv", "2"]),
        ("one class of series", "1\t0.5\t0.6\n1\t0.5\t0.7\n", ["class", "Bad"]),
        ("an empty file", "", ["Bad_TRAIN.tsv", ""]),
    ] {
        fs::write(folder.join("Bad_TRAIN.tsv"), text)?;
        fs::write(folder.join("Bad_TEST.tsv"), text)?;
        said_by(what, &inspect(&series)?, &words)?;
    }
    said_by("nothing there", &inspect(&folder.join("nowhere"))?, &["nowhere"])
}

pub(crate) fn the_control_plane_refuses_what_it_does_not_know(world: &mut World) -> Result<()> {
    let refused = |what: &str, arguments: &[&str], words: &[&str]| -> Result<()> {
        let (code, text) = world.control.cli_refused(arguments)?;
        said(what, Some(code), &text, words)
    };
    refused(
        "unknown board",
        &["search", "start", "--dataset", "italy", "--board", "abacus", "--model", "m"],
        &["abacus"],
    )?;
    refused(
        "unknown data set",
        &["search", "start", "--dataset", "nothing", "--board", "x86-64", "--model", "m"],
        &["nothing"],
    )?;
    refused(
        "unknown version",
        &["rollout", "create", "--version", "italy@v9.9", "--wave", "1"],
        &["italy@v9.9"],
    )?;
    refused(
        "a wave over 100 %",
        &["rollout", "create", "--version", "italy@v1.0", "--wave", "101%"],
        &["101"],
    )?;
    refused("unknown device", &["device", "show", "nobody"], &["nobody"])?;
    let folder = tempfile::tempdir()?;
    for name in fs::read_dir(&world.series.result)? {
        let path = name?.path();
        fs::copy(&path, folder.path().join(path.file_name().context("no name")?))?;
    }
    fs::write(folder.path().join("model.onnx"), b"this is no model")?;
    let before = world.control.cli(&["model", "list"])?;
    let text = folder.path().to_str().context("not UTF-8")?;
    refused(
        "an ONNX file that is none",
        &["model", "publish", text, "--model", "italy", "--board", "x86-64"],
        &["model.onnx"],
    )?;
    ensure!(world.control.cli(&["model", "list"])? == before, "a version was left behind");
    Ok(())
}

pub(crate) fn a_token_opens_once(world: &mut World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("enrol.json");
    let out = file.to_str().context("not UTF-8")?;
    let enrol = |data: &str| -> Result<Output> {
        let api = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new("timeout");
        command
            .args(["10"])
            .arg(binary("edgewright-agent")?)
            .args(["run", "--board", "x86-64", "--api", &api]);
        command.arg("--data").arg(folder.path().join(data)).arg("--enroll").arg(&file);
        command.output().context("agent")
    };
    world.control.cli(&["device", "token", "create", "--device", "once", "--out", out])?;
    let first = enrol("first")?;
    ensure!(
        first.status.code() == Some(124),
        "the first use failed: {}",
        String::from_utf8_lossy(&first.stderr)
    );
    let last_line = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    };
    let second = enrol("second")?;
    said("a used token", second.status.code(), &last_line(&second), &["token"])?;
    ensure!(second.status.code() == Some(2), "a used token ended with {:?}", second.status.code());
    world.control.cli(&["device", "token", "create", "--device", "late", "--ttl-s", "1", "--out", out])?;
    std::thread::sleep(Duration::from_millis(1500));
    let late = enrol("late")?;
    said("an expired token", late.status.code(), &last_line(&late), &["token", "expired"])
}

pub(crate) fn a_port_in_use_is_named(world: &mut World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = format!("127.0.0.1:{}", world.control.api);
    let output = Command::new(binary("edgewright")?)
        .args(["serve", "--api", &taken, "--mqtt", &format!("127.0.0.1:{}", free_port()?), "--data"])
        .arg(folder.path().join("other"))
        .output()?;
    said_by("serve on a taken port", &output, &[&world.control.api.to_string(), "--api"])
}

/// A small disk: a tmpfs in a mount namespace that lives as long as the value.
struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts it on `folder`, which exists. Takes root.
    fn mount(folder: &Path, size: &str) -> Result<Self> {
        let script = "mount -t tmpfs -o size=\"$1\" tmpfs \"$0\" && echo mounted && exec sleep infinity";
        let mut holder = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .arg(folder)
            .arg(size)
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let mut line = String::new();
        let output = holder.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let disk = Self { holder, folder: folder.to_path_buf() };
        ensure!(line.trim() == "mounted", "no tmpfs on {}", folder.display());
        Ok(disk)
    }

    /// What starts a program that sees the disk.
    fn launcher(&self) -> Vec<String> {
        ["nsenter", "-m", "-t", &self.holder.id().to_string()].map(str::to_owned).to_vec()
    }

    /// A path of the disk as seen from outside.
    fn path(&self, name: &str) -> PathBuf {
        let inside = self.folder.join(name);
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("root")
            .join(inside.strip_prefix("/").unwrap_or(&inside))
    }

    /// Writes a file until nothing more fits.
    fn fill(&self, name: &str) -> Result<()> {
        let mut file = fs::File::create(self.path(name)).with_context(|| format!("making {name}"))?;
        for block in [vec![7u8; 64 * 1024], vec![7; 512]] {
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    fn free(&self, name: &str) -> Result<()> {
        fs::remove_file(self.path(name)).with_context(|| format!("removing {name}"))
    }

    /// Waits until a download has begun, then takes all the space beside it.
    fn fill_once_a_download_runs(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let partial = fs::read_dir(self.path("blobs"))?
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().ends_with(".partial"));
            if partial {
                return self.fill("filler-2");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        anyhow::bail!("no download began within {} s", limit.as_secs())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The disk of one device is filled before a version is staged and again while it comes: the model that works goes
/// on, also over a kill and a restart, and the version arrives once there is space.
pub(crate) fn a_full_disk_while_staging_leaves_the_working_model(world: &mut World) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a file system of its own takes root");
        return Ok(());
    }
    let limit = Duration::from_secs(60);
    let devices = world.folder.path().join("devices");
    fs::create_dir_all(devices.join("full-disk"))?;
    let disk = SmallDisk::mount(&devices.join("full-disk"), "40m")?;
    let config = world.folder.path().join("full-disk.toml");
    fs::write(&config, "disk_reserve_bytes = 6_291_456\n")?;
    let options = AgentOptions {
        extra: vec!["--config".to_owned(), config.display().to_string()],
        launcher: disk.launcher(),
        ..AgentOptions::default()
    };
    let mut agent = Agent::enrol(&world.control, "full-disk", &devices, options)?;
    let roll_out = |name: &str| {
        let version = format!("{name}@v1.0");
        let device = ["--device", "full-disk", "--trial-duration-ms", "300"];
        let rollout = ["rollout", "create", "--version", &version, "--slot", name, "--wave", "100%"];
        world.control.cli(&[&rollout[..], &device[..]].concat()).map(|_| ())
    };
    let (shape, input) = (world.series.test.batch_shape(1), &world.series.test.inputs[0]);
    let answers = |agent: &Agent| agent.client().infer("italy", &shape, input).context("the working model");
    roll_out("italy")?;
    wait_for("the first model", limit, || agent.active_version("italy"))?;
    answers(&agent)?;

    disk.fill("filler-1")?;
    roll_out("mnist")?;
    wait_for("the device to wait for space", limit, || {
        Ok(matches!(agent.phase("mnist")?, Phase::Waiting { .. }).then_some(()))
    })?;
    answers(&agent)?;
    agent.kill()?;
    agent.start()?;
    wait_for("the model on a full disk after a restart", limit, || answers(&agent).map(Some))?;
    ensure!(agent.active_version("mnist")?.is_none(), "a version came onto a full disk");

    // A restart asks for the space at once; an agent that waits asks after a while.
    let filling = std::thread::scope(|scope| -> Result<()> {
        let filling = scope.spawn(|| disk.fill_once_a_download_runs(Duration::from_secs(120)));
        disk.free("filler-1")?;
        filling.join().map_err(|_| anyhow::anyhow!("the thread that fills the disk panicked"))?
    });
    filling?;
    answers(&agent)?;
    agent.kill()?;
    agent.start()?;
    wait_for("the model after a kill in a download", limit, || answers(&agent).map(Some))?;
    disk.free("filler-2")?;
    wait_for("the version to arrive", Duration::from_secs(180), || agent.active_version("mnist"))?;
    answers(&agent)?;
    agent.stop()
}
