//! Brings what is missing into the cache: by the registries' own clients, checked by hash, whole or not at all.

use crate::{
    cache::{Cache, root},
    dashboard,
    pins::{Entry, File, Need, Source, entries},
    progress::{Busy, Download},
    system::{self, Purpose},
};
use anyhow::{Context, Result, bail, ensure};
use indicatif::DecimalBytes;
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// The file in a folder of the cache that says what is in it; written last.
pub(crate) const STAMP: &str = ".pinned";

/// What a virtual environment takes on disk while it is made.
const TOOLS_MB: u64 = 500;
const API_MB: u64 = 150;
const TORCH_MB: u64 = 7000;

/// What is wanted beyond the usual.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) cross: bool,
    /// PyTorch, the peer of `bench search`; with the same libtorch and all that it needs of CUDA.
    pub(crate) torch: bool,
    /// The peers of `bench delivery`.
    pub(crate) delivery: bool,
    /// The models of others for `bench quantise`.
    pub(crate) models: bool,
}

impl Wanted {
    fn is(&self, need: Need) -> bool {
        match need {
            Need::Build | Need::Run | Need::Optional => true,
            Need::Cross => self.cross,
            Need::Models => self.models,
        }
    }
}

/// Brings what is missing and says so; quiet where nothing is.
pub(crate) fn run(cache: &Cache, wanted: Wanted) -> Result<()> {
    fs::create_dir_all(cache.path()).with_context(|| format!("making {}", cache.path().display()))?;
    // Two runs at once would download everything twice.
    let lock = fs::File::create(cache.join(".lock")).context("making the cache's lock")?;
    if lock.try_lock().is_err() {
        eprintln!("waiting for another set-up that works in {}", cache.path().display());
        lock.lock().context("locking the cache")?;
    }
    for entry in entries()? {
        if !wanted.is(entry.need) || is_there(cache, &entry)? {
            continue;
        }
        match bring(cache, &entry) {
            Ok(()) => {}
            Err(error) if entry.need == Need::Optional => eprintln!("skipped {}: {error:#}", entry.what),
            Err(error) => return Err(error.context(format!("bringing {}", entry.what))),
        }
    }
    bring_venv(cache, "venv-tools", "Python tools of the tests", "requirements-tools.txt", TOOLS_MB)?;
    bring_venv(cache, "venv-api", "Schemathesis, which tests the API", "requirements-api.txt", API_MB)?;
    if wanted.torch {
        bring_venv(
            cache,
            "venv-torch",
            "PyTorch with CUDA, for a GPU and as the peer of bench search",
            "requirements-torch.txt",
            TORCH_MB,
        )?;
    }
    dashboard::bring(cache)?;
    let mut purposes = vec![Purpose::Tests];
    purposes.extend(wanted.cross.then_some(Purpose::Cross));
    purposes.extend(wanted.delivery.then_some(Purpose::Delivery));
    system::bring(&purposes)
}

/// Prints what a shell needs for the forge to find libtorch's half for GPUs. PyTorch's wheel is the one that libtorch comes
/// from, and its environment has CUDA's libraries beside it, where libtorch looks for them.
pub(crate) fn say_where_cuda_is(cache: &Cache) -> Result<()> {
    let pattern = cache.join("venv-torch/lib/python3*/site-packages/torch/lib/libtorch_cuda.so");
    let pattern = pattern.to_str().context("the cache folder's name is not UTF-8")?;
    let library =
        glob::glob(pattern)?.flatten().next().context("PyTorch's environment has no libtorch_cuda.so")?;
    let folder = library.parent().unwrap_or(&library);
    println!("export LD_LIBRARY_PATH='{}'", folder.display());
    Ok(())
}

/// Is the entry in the cache, as it is pinned?
pub(crate) fn is_there(cache: &Cache, entry: &Entry) -> Result<bool> {
    Ok(stamp_is(&cache.join(&entry.name), &entry.stamp()?))
}

/// Is the virtual environment there, with exactly these packages?
pub(crate) fn venv_is_there(cache: &Cache, name: &str, requirements: &str) -> Result<bool> {
    let folder = cache.join(name);
    // A Python that was replaced since leaves the environment's link to it broken.
    Ok(folder.join("bin/python").exists() && stamp_is(&folder, &requirements_text(requirements)?))
}

fn requirements_text(name: &str) -> Result<String> {
    let path = root().join("xtask").join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

pub(crate) fn stamp_is(folder: &Path, stamp: &str) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|text| text == stamp)
}

fn bring(cache: &Cache, entry: &Entry) -> Result<()> {
    let started = Instant::now();
    let work = cache.join(".work");
    clear(&work)?;
    fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    let download_bytes: u64 = entry.file.iter().map(|file| file.bytes).sum();
    ensure_room(cache, entry.unpacked_mb * MB + download_bytes)?;
    let unpacked = work.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    for file in &entry.file {
        let path = {
            let _bar = Download::watch(&entry.what, &work.join("download"), file.bytes);
            download(file, &work)?
        };
        let _busy = Busy::new(&format!("{}: checking and unpacking", entry.what));
        let digest = sha256(&path)?;
        ensure!(
            digest == file.sha256,
            "{} has SHA-256 {digest}, pinned is {}: the registry serves another file; look at xtask/pins.toml",
            path.file_name().unwrap_or_default().display(),
            file.sha256
        );
        unpack(&path, &unpacked)?;
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    let ready = match &entry.keep {
        None => unpacked,
        Some(pattern) => keep(&unpacked, pattern, entry.depth, &work.join("kept"))?,
    };
    place(&ready, &cache.join(&entry.name), &entry.stamp()?)?;
    clear(&work)?;
    eprintln!("{} ({:.0} s)", entry.what, started.elapsed().as_secs_f64());
    Ok(())
}

const MB: u64 = 1_000_000;

/// Refuses before anything is downloaded what would fill the disk.
pub(crate) fn ensure_room(cache: &Cache, needed_bytes: u64) -> Result<()> {
    let stat = rustix::fs::statvfs(cache.path())
        .with_context(|| format!("asking for the free space of {}", cache.path().display()))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    ensure!(
        free_bytes >= needed_bytes,
        "{} has {} free and {} are needed: make room, or set EDGEWRIGHT_CACHE to a folder elsewhere",
        cache.path().display(),
        DecimalBytes(free_bytes),
        DecimalBytes(needed_bytes)
    );
    Ok(())
}

/// Moves a finished folder to its place; the stamp goes in first, the rename makes it visible at once.
pub(crate) fn place(ready: &Path, target: &Path, stamp: &str) -> Result<()> {
    fs::write(ready.join(STAMP), stamp).context("writing the stamp")?;
    clear(target)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    fs::rename(ready, target).with_context(|| format!("moving to {}", target.display()))
}

pub(crate) fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn download(file: &File, work: &Path) -> Result<PathBuf> {
    let not_installed = |error: &anyhow::Error| error.downcast_ref::<std::io::Error>().is_some();
    let mut result = download_once(file, work);
    for _ in 1..DOWNLOAD_TRIES {
        match &result {
            Err(error) if !not_installed(error) => result = download_once(file, work),
            _ => return result,
        }
    }
    result.context("no download after two tries (is the package registry reachable?)")
}

/// A registry that stumbles once is asked again.
const DOWNLOAD_TRIES: usize = 2;

fn download_once(file: &File, work: &Path) -> Result<PathBuf> {
    let folder = work.join("download");
    clear(&folder)?;
    // What the clients keep for themselves goes with the work folder, and counts as progress.
    let own = folder.join("client");
    fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
    let mut command = match &file.source {
        Source::Pip(package) | Source::Sdist(package) => {
            let kind = match &file.source {
                Source::Sdist(_) => "--no-binary=:all:",
                _ => "--only-binary=:all:",
            };
            let mut command = Command::new("python3");
            command.args(["-m", "pip", "download", "--quiet", "--no-deps", kind]);
            command.args(["--disable-pip-version-check", "--no-cache-dir"]);
            if let Some(platform) = &file.platform {
                command.args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]);
                command.args(["--abi", "none", "--platform", platform]);
            }
            command.arg(package);
            command
        }
        Source::Npm(package) => {
            let mut command = Command::new("npm");
            command.args(["pack", "--silent", package]).env("npm_config_cache", own.join("npm"));
            command
        }
        Source::Apt(package) => {
            let mut command = Command::new("apt-get");
            system::update_lists_once(package);
            // As root apt would hand the download to a user who cannot write here, and say so.
            command.args(["download", "--quiet", "-o", "APT::Sandbox::User=root", package]);
            command
        }
    };
    run_quietly(command.current_dir(&folder).env("TMPDIR", &own))?;
    clear(&own)?;
    let mut files = fs::read_dir(&folder)?.collect::<std::io::Result<Vec<_>>>()?;
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file.path()),
        _ => bail!("the client left no single file in {}", folder.display()),
    }
}

fn unpack(path: &Path, target: &Path) -> Result<()> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let mut command = match ending {
        "whl" => {
            let mut command = Command::new("python3");
            command.args(["-m", "zipfile", "-e"]).arg(path).arg(target);
            command
        }
        "tgz" | "gz" => {
            let mut command = Command::new("tar");
            command.arg("-xzf").arg(path).arg("-C").arg(target);
            command
        }
        "deb" => {
            let mut command = Command::new("dpkg-deb");
            command.arg("-x").arg(path).arg(target);
            command
        }
        other => bail!("no way to unpack a .{other}"),
    };
    run_quietly(&mut command)
}

/// Moves the files that `pattern` names, with `depth` folders above them, to a fresh folder.
fn keep(unpacked: &Path, pattern: &str, depth: usize, target: &Path) -> Result<PathBuf> {
    let pattern = unpacked.join(pattern);
    let pattern = pattern.to_str().context("the cache folder's name is not UTF-8")?;
    fs::create_dir_all(target)?;
    let mut count = 0;
    for path in glob::glob(pattern)? {
        let path = path?;
        let parts: Vec<_> = path.components().rev().take(depth + 1).collect();
        let to = parts.iter().rev().fold(target.to_path_buf(), |to, part| to.join(part));
        fs::create_dir_all(to.parent().unwrap_or(target))?;
        fs::rename(&path, &to).with_context(|| format!("moving to {}", to.display()))?;
        count += 1;
    }
    ensure!(count > 0, "the download holds no file like {pattern}");
    Ok(target.to_path_buf())
}

fn bring_venv(cache: &Cache, name: &str, what: &str, requirements: &str, needed_mb: u64) -> Result<()> {
    if venv_is_there(cache, name, requirements)? {
        return Ok(());
    }
    let started = Instant::now();
    let text = requirements_text(requirements)?;
    // A virtual environment knows its own path, so it is made in its place; without the stamp it does not count.
    let folder = cache.join(name);
    clear(&folder)?;
    ensure_room(cache, needed_mb * MB)?;
    let busy = Busy::new(&format!("{what}: installing, {} on disk", DecimalBytes(needed_mb * MB)));
    run_quietly(Command::new("python3").args(["-m", "venv"]).arg(&folder)).with_context(|| {
        format!("making {}; Debian's package python3-venv brings the module", folder.display())
    })?;
    let own = folder.join("tmp");
    fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
    run_quietly(
        Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"])
            .args(["--require-hashes", "--only-binary=:all:", "-r"])
            .arg(root().join("xtask").join(requirements))
            .env("TMPDIR", &own),
    )
    .with_context(|| {
        format!("installing {what}; the packages are pinned for Python 3.11 to 3.14 on x86-64")
    })?;
    clear(&own)?;
    fs::write(folder.join(STAMP), text).context("writing the stamp")?;
    drop(busy);
    eprintln!("{what} ({:.0} s)", started.elapsed().as_secs_f64());
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(context.finish())),
            count => context.update(&buffer[..count]),
        }
    }
}

/// Runs a client; what it says is shown only when it fails, on one line.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.output().with_context(|| format!("{program} does not start: {}", how_to_get(&program)))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    bail!("{program} failed ({}): {}", output.status, telling_line(&said))
}

/// Of what a failed client said, the line that tells most: a full disk, else its last error, else its last word.
fn telling_line(said: &str) -> &str {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_error = |line: &&str| {
        let line = line.to_lowercase();
        line.starts_with("error") || line.starts_with("e: ") || line.starts_with("npm error")
    };
    lines()
        .find(|line| line.to_lowercase().contains("no space left"))
        .or_else(|| lines().rfind(is_error))
        .or_else(|| lines().next_back())
        .unwrap_or("it said nothing")
}

fn how_to_get(program: &str) -> &'static str {
    match program {
        "python3" => "install Python 3 with pip (Debian: apt-get install python3 python3-pip python3-venv)",
        "npm" => "install Node.js with npm (Debian: apt-get install nodejs npm)",
        "apt-get" | "dpkg-deb" => "this system has no Debian packages",
        _ => "is it installed and in PATH?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_fails_is_quoted_with_the_line_that_tells_most() {
        assert_eq!(
            telling_line("ERROR: No matching distribution\nWARNING: try later\n"),
            "ERROR: No matching distribution"
        );
        assert_eq!(
            telling_line("OSError: [Errno 28] No space left on device\nERROR: x"),
            "OSError: [Errno 28] No space left on device"
        );
        assert_eq!(telling_line("  one \n two \n\n"), "two");
        assert_eq!(telling_line(""), "it said nothing");
    }

    #[test]
    fn each_virtual_environment_pins_what_it_is_for_with_hashes() {
        for (file, packages) in [
            ("requirements-tools.txt", &["model-signing", "onnx", "onnxruntime", "tritonclient", "tuf"][..]),
            ("requirements-torch.txt", &["torch"]),
        ] {
            let text = requirements_text(file).unwrap().replace("\\\n", " ");
            let names: Vec<&str> = text.lines().filter_map(|line| line.split("==").next()).collect();
            for package in packages {
                assert!(names.contains(package), "{file} lacks {package}");
            }
            for line in text.lines() {
                assert!(line.contains("==") && line.contains("--hash=sha256:"), "{file}: {line}");
            }
        }
    }
}
