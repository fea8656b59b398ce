//! The forge as child processes: it looks at data sets, checks models and runs jobs.

use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use shared::{
    job::{
        self, DataFormat, DatasetSchema, FORGE_DEVICE_ENV, ForgeDevice, FrontFile, JobReport, JobSpec,
        Progress, Reading,
    },
    limits,
};
use std::{
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::{mpsc, watch},
};

/// Why the forge gave no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is missing, or libtorch is.
    #[error(
        "edgewright-forge could not start: {reason}; run `cargo xtask setup`, or name the program with --forge"
    )]
    Start { reason: String },
    /// It refused its input; the text is its own.
    #[error("{0}")]
    Input(String),
    /// It failed.
    #[error("edgewright-forge failed (exit code {code}): {last_line}")]
    Failed { code: i32, last_line: String },
    /// A signal ended it: no memory, or somebody's hand. A job goes on from its checkpoint.
    #[error("edgewright-forge was killed (signal {signal}); is the machine out of memory?")]
    Killed { signal: i32 },
    /// It said something else than was agreed.
    #[error("edgewright-forge gave no {what}: {reason}")]
    Answer { what: &'static str, reason: String },
    /// It took longer than allowed.
    #[error("edgewright-forge {what} took longer than {} s", limit.as_secs())]
    Slow { what: &'static str, limit: Duration },
    /// Somebody asked to end it.
    #[error("ended by an operator")]
    Cancelled,
    /// A file of the job's folder.
    #[error("{} failed", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The exit code with which the dynamic loader ends a program whose library is missing.
const LOADER_EXIT: i32 = 127;
/// The exit code with which the forge refuses its input.
const INPUT_EXIT: i32 = 2;
/// The exit code with which the forge ends when it has found something to be wrong, and says what.
const WRONG_EXIT: i32 = 1;
/// Workers give way to everything else.
const NICE: i32 = 5;
/// How the worker's threads wait for each other. Those that spin take the processor from the ones that they wait for,
/// many times over where the machine has other work.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";
/// Shorter than a client waits for an answer: every byte of a set is read.
const INSPECT_LIMIT: Duration = Duration::from_secs(280);
const CHECK_LIMIT: Duration = Duration::from_secs(120);
/// Shorter than a client waits for an answer.
const IMPORT_LIMIT: Duration = Duration::from_secs(280);
/// Largest answer of `inspect`.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Largest file of a result that is read into memory.
const RESULT_TEXT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// In a job's folder: the architecture that it is to train.
const GIVEN_FILE: &str = "given.json";

/// A model from elsewhere for [`Forge::import`].
#[derive(Clone, Copy, Debug)]
pub struct NewImport<'a> {
    /// The ONNX file.
    pub model: &'a Path,
    /// Samples.
    pub calibrate: &'a Path,
    /// The board, a TOML file.
    pub board: &'a Path,
    /// Class names, one a line.
    pub labels: Option<&'a Path>,
    /// The output to keep.
    pub output: Option<&'a str>,
    /// Inputs that become constants, as `NAME` or `NAME=NUMBER`.
    pub freeze: &'a [String],
    /// Least signal to noise of the INT8 model, in decibels.
    pub sqnr_min_db: Option<f64>,
    /// The result folder, which is not there yet.
    pub out: &'a Path,
}

/// The program.
#[derive(Clone, Debug)]
pub struct Forge {
    program: PathBuf,
    device: ForgeDevice,
}

impl Forge {
    /// The program at `program`, or of that name on the path.
    pub fn new(program: PathBuf) -> Self {
        Self { program, device: ForgeDevice::default() }
    }

    /// The same, whose jobs compute on `device`.
    pub fn on(self, device: ForgeDevice) -> Self {
        Self { device, ..self }
    }

    /// Reads a data set: its schema, counts and digest.
    pub async fn inspect(
        &self,
        path: &Path,
        format: Option<DataFormat>,
        reading: &Reading,
    ) -> Result<DatasetSchema, Error> {
        let mut command = Command::new(&self.program);
        command.arg("inspect").arg("--path").arg(path);
        if let Some(format) = format {
            command.args(["--format", format_word(format)]);
        }
        // With an equals sign, so that no label is taken for an option.
        command.args(reading.normal.iter().map(|label| format!("--normal={label}")));
        command.args(reading.label_column.iter().map(|column| format!("--label-column={column}")));
        command.arg("--json");
        let answer = self.ask(command, "inspect", INSPECT_LIMIT).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| Error::Answer { what: "description of the data set", reason: error.to_string() })
    }

    /// Runs the golden inputs of a result folder on both runtimes.
    pub async fn check(&self, folder: &Path) -> Result<(), Error> {
        let mut command = Command::new(&self.program);
        command.arg("check").arg(folder);
        match self.ask(command, "check", CHECK_LIMIT).await {
            Ok(_) => Ok(()),
            Err(Error::Failed { code: WRONG_EXIT, last_line }) if !last_line.is_empty() => {
                Err(Error::Input(last_line))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a model in and leaves its result folder at `out`.
    pub async fn import(&self, new: NewImport<'_>) -> Result<(), Error> {
        let mut command = Command::new(&self.program);
        // With an equals sign, so that no name is taken for an option.
        let named = |name: &str, value: &str| format!("--{name}={value}");
        command.arg("import");
        for (name, path) in [("--calibrate", new.calibrate), ("--board", new.board), ("--out", new.out)] {
            command.arg(name).arg(path);
        }
        command.args(new.labels.map(|_| "--labels")).args(new.labels);
        command.args(new.output.map(|name| named("output", name)));
        command.args(new.freeze.iter().map(|frozen| named("freeze", frozen)));
        command.args(new.sqnr_min_db.map(|db| named("sqnr-min", &db.to_string())));
        command.arg("--json").arg("--").arg(new.model);
        self.ask(command, "import", IMPORT_LIMIT).await.map(drop)
    }

    async fn ask(&self, mut command: Command, what: &'static str, limit: Duration) -> Result<Vec<u8>, Error> {
        let mut child = self.spawn(&mut command)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let mut answer = Vec::new();
            let read = async {
                if let Some(stdout) = stdout {
                    stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
                }
                io::Result::Ok(())
            };
            let (read, last_line, status) = tokio::join!(read, last_line(stderr), child.wait());
            read.map_err(|error| Error::Answer { what: "answer", reason: error.to_string() })?;
            verdict(status, last_line)?;
            Ok(answer)
        };
        tokio::time::timeout(limit, work).await.unwrap_or(Err(Error::Slow { what, limit }))
    }

    fn spawn(&self, command: &mut Command) -> Result<Child, Error> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::Start { reason: format!("{}: {error}", self.program.display()) })
    }

    /// Runs the job in `folder` until it ends or `cancel` turns true. `started` gets the process id; `progress`
    /// gets what the worker says, the newest only where nobody keeps up.
    pub async fn run(
        &self,
        folder: &Path,
        started: mpsc::Sender<u32>,
        progress: watch::Sender<Option<Progress>>,
        mut cancel: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--job").arg(folder).env(FORGE_DEVICE_ENV, self.device.to_string());
        if std::env::var_os(WAIT_POLICY).is_none() {
            command.env(WAIT_POLICY, "passive");
        }
        let mut child = self.spawn(&mut command)?;
        if let Some(pid) = child.id() {
            lower_priority(pid);
            // The receiver is gone only when the server ends.
            let _ = started.send(pid).await;
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let read = async move {
            if let Some(stdout) = stdout {
                read_progress(stdout, &progress).await;
            }
        };
        let work = async {
            let ((), last_line, status) = tokio::join!(read, last_line(stderr), child.wait());
            verdict(status, last_line)
        };
        tokio::select! {
            result = work => result,
            Ok(_) = cancel.wait_for(|&cancelled| cancelled) => Err(Error::Cancelled),
        }
    }
}

/// Writes the job's folder with its description, whole or not at all.
pub fn write_spec(folder: &Path, spec: &JobSpec) -> Result<(), Error> {
    let failed = |source| Error::File { path: folder.to_path_buf(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let text = serde_json::to_vec_pretty(spec)
        .map_err(|error| Error::Answer { what: "job description", reason: error.to_string() })?;
    let partial = folder.join("job.json.partial");
    let mut file = fs::File::create(&partial).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&partial, folder.join(job::SPEC_FILE)).map_err(failed)
}

/// Removes the samples that a worker keeps in a job's folder, once the job has ended. Where that fails they only take room.
pub fn remove_samples(folder: &Path) {
    let samples = folder.join(job::DATA_FILE);
    for file in [samples.with_extension("tmp"), samples] {
        let _ = fs::remove_file(file);
    }
}

/// The report of a result folder; `None` if there is none.
pub fn read_report(folder: &Path) -> Result<Option<JobReport>, Error> {
    let Some(text) = read_text(&folder.join(job::REPORT_FILE))? else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::Answer { what: "report that can be read", reason: error.to_string() })
}

/// The picture of the found cell in a result folder, if there is one.
pub fn read_cell(folder: &Path) -> Result<Option<String>, Error> {
    read_text(&folder.join(job::CELL_FILE))
}

/// Charts of a result folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// Loss and accuracy.
    Loss,
    /// Architecture weights.
    Alpha,
    /// The networks that were judged.
    Pareto,
}

impl Plot {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Loss, Self::Alpha, Self::Pareto];

    /// Its file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Loss => job::LOSS_PLOT_FILE,
            Self::Alpha => job::ALPHA_PLOT_FILE,
            Self::Pareto => job::FRONT_PLOT_FILE,
        }
    }
}

/// A chart in a result folder, if it is there.
pub fn read_plot(folder: &Path, plot: Plot) -> Result<Option<String>, Error> {
    read_text(&folder.join(plot.file()))
}

/// The networks that a search judged, if its result folder says so.
pub fn read_front(folder: &Path) -> Result<Option<FrontFile>, Error> {
    let Some(text) = read_text(&folder.join(job::FRONT_FILE))? else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::Answer { what: "front that can be read", reason: error.to_string() })
}

/// Writes the architecture that the job in `folder` is to train; where.
pub fn write_architecture(folder: &Path, architecture: &serde_json::Value) -> Result<PathBuf, Error> {
    let path = folder.join(GIVEN_FILE);
    let failed = |source| Error::File { path: path.clone(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    fs::write(&path, architecture.to_string()).map_err(failed)?;
    Ok(path)
}

fn read_text(path: &Path) -> Result<Option<String>, Error> {
    let failed = |source| Error::File { path: path.to_path_buf(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
        Ok(metadata) if metadata.len() > RESULT_TEXT_BYTES_MAX => {
            return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(failed)
}

/// Ends workers of the job in `folder` that a killed server left behind, whether or not it came to note their
/// numbers. Each is known by its command line.
pub fn end_leftovers(folder: &Path) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(command) = fs::read(process.path().join("cmdline")) else { continue };
        if works_in(&command, folder)
            && let Some(pid) = Pid::from_raw(pid)
        {
            // It may have ended by itself between the look and this.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Is this the command line of a worker on the job in `folder`, as [`Forge::run`] starts it?
fn works_in(command: &[u8], folder: &Path) -> bool {
    let arguments: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    arguments.windows(3).any(|three| three == [&b"run"[..], b"--job", folder.as_os_str().as_bytes()])
}

fn lower_priority(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    if let Err(error) = setpriority_process(Some(pid), NICE) {
        tracing::debug!("the worker keeps its priority: {error}");
    }
}

async fn read_progress(stdout: impl AsyncRead + Unpin, progress: &watch::Sender<Option<Progress>>) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    // Said once, and that line may be replaced before anybody looks.
    let mut resumed_from = None;
    loop {
        line.clear();
        let limit = limits::PROGRESS_LINE_BYTES_MAX as u64 + 1;
        match (&mut reader).take(limit).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match serde_json::from_slice::<Progress>(&line) {
            Ok(said) => {
                resumed_from = said.resumed_from.or(resumed_from);
                progress.send_replace(Some(Progress { resumed_from, ..said }));
            }
            Err(error) => tracing::debug!("a worker's line is no progress: {error}"),
        }
    }
}

/// The last line that is not empty, cut; reads all the others so that the worker never waits.
async fn last_line(stderr: Option<impl AsyncRead + Unpin>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let mut reader = BufReader::new(stderr);
    let (mut line, mut last) = (Vec::new(), String::new());
    loop {
        line.clear();
        let limit = limits::PROGRESS_LINE_BYTES_MAX as u64;
        match (&mut reader).take(limit).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        // The prefix is for terminals; ours says it again.
        let text = text.strip_prefix("error: ").unwrap_or(text);
        if !text.is_empty() {
            tracing::debug!(target: "forge", "{text}");
            last = shared::wire::cut(text);
        }
    }
}

fn verdict(status: io::Result<ExitStatus>, last_line: String) -> Result<(), Error> {
    let status = status.map_err(|error| Error::Start { reason: error.to_string() })?;
    if status.success() {
        return Ok(());
    }
    Err(match (status.code(), status.signal()) {
        (Some(LOADER_EXIT), _) => Error::Start { reason: last_line },
        (Some(INPUT_EXIT), _) => Error::Input(last_line),
        (Some(code), _) => Error::Failed { code, last_line },
        (None, signal) => Error::Killed { signal: signal.unwrap_or_default() },
    })
}

fn format_word(format: DataFormat) -> &'static str {
    match format {
        DataFormat::Idx => "idx",
        DataFormat::ImageFolder => "image_folder",
        DataFormat::UcrTsv => "ucr_tsv",
        DataFormat::Ts => "ts",
        DataFormat::Npy => "npy",
        DataFormat::Text => "text",
        DataFormat::IntentJsonl => "intent_jsonl",
        DataFormat::IntentJson => "intent_json",
        DataFormat::Csv => "csv",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A stand-in for the worker: a script with the given body.
    fn program(folder: &Path, body: &str) -> Forge {
        let path = folder.join("forge.sh");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Forge::new(path)
    }

    async fn run(forge: &Forge, cancelled: bool) -> (Result<(), Error>, Option<Progress>) {
        let (started, mut pids) = mpsc::channel(1);
        let (progress, said) = watch::channel(None);
        let (_keep, cancel) = watch::channel(cancelled);
        let result = forge.run(Path::new("/nowhere"), started, progress, cancel).await;
        assert!(pids.recv().await.is_some());
        let said = said.borrow().clone();
        (result, said)
    }

    #[tokio::test]
    async fn a_missing_program_says_what_to_do() {
        let forge = Forge::new("/nowhere/edgewright-forge".into());
        let error = forge.inspect(Path::new("x"), None, &Reading::default()).await.unwrap_err().to_string();
        assert!(error.contains("could not start") && error.contains("cargo xtask setup"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_library_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let forge =
            program(folder.path(), "echo 'libtorch_cpu.so: cannot open shared object file' >&2; exit 127");
        let error = run(&forge, false).await.0.unwrap_err().to_string();
        assert!(error.contains("libtorch_cpu.so") && error.contains("cargo xtask setup"), "{error}");
    }

    #[tokio::test]
    async fn progress_is_read_and_other_lines_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let body = r#"echo noise
echo '{"stage":"search","step":2,"total":9,"loss":0.5,"accuracy":null,"resumed_from":2,"message":null}'
echo '{"stage":"search","step":3,"total":9,"loss":0.5,"accuracy":null,"resumed_from":null,"message":null}'
echo 'the data set has one class' >&2
exit 1"#;
        let (result, said) = run(&program(folder.path(), body), false).await;
        let said = said.unwrap();
        assert_eq!((said.step, said.resumed_from), (3, Some(2)));
        assert!(
            matches!(result, Err(Error::Failed { code: 1, last_line }) if last_line == "the data set has one class")
        );
    }

    #[tokio::test]
    async fn a_worker_that_a_signal_ends_is_known_as_killed() {
        let folder = tempfile::tempdir().unwrap();
        let forge = program(folder.path(), "kill -9 $$");
        assert!(matches!(run(&forge, false).await.0, Err(Error::Killed { signal: 9 })));
    }

    #[tokio::test]
    async fn a_check_that_was_killed_or_says_nothing_is_no_verdict_on_the_model() {
        let folder = tempfile::tempdir().unwrap();
        for body in ["kill -9 $$", "exit 1", "echo panicked >&2; exit 101"] {
            let error = program(folder.path(), body).check(Path::new("/nowhere")).await.unwrap_err();
            assert!(!matches!(error, Error::Input(_)), "{body}: {error:?}");
        }
        let wrong = program(folder.path(), "echo 'golden output 0 is 0.4 off' >&2; exit 1");
        let error = wrong.check(Path::new("/nowhere")).await.unwrap_err();
        assert!(matches!(error, Error::Input(text) if text == "golden output 0 is 0.4 off"));
    }

    #[tokio::test]
    async fn a_leftover_worker_is_found_by_its_folder_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forge.sh");
        program(folder.path(), "read forever");
        let start = |job: &str| {
            let mut command = Command::new(&path);
            command.args(["run", "--job"]).arg(folder.path().join(job));
            command.stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
        };
        let (mut ours, mut other) = (start("a"), start("ab"));
        end_leftovers(&folder.path().join("a"));
        assert_eq!(ours.wait().await.unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().await.unwrap();
    }

    #[test]
    fn only_a_worker_of_that_folder_is_one() {
        let folder = Path::new("/data/jobs/1");
        assert!(works_in(b"/usr/bin/edgewright-forge\0run\0--job\0/data/jobs/1\0", folder));
        for other in [
            &b"tail\0-f\0/data/jobs/1\0"[..],
            b"edgewright-forge\0run\0--job\0/data/jobs/12\0",
            b"edgewright-forge\0check\0/data/jobs/1\0",
            b"",
        ] {
            assert!(!works_in(other, folder));
        }
    }

    #[tokio::test]
    async fn a_worker_is_told_what_to_compute_on() {
        let folder = tempfile::tempdir().unwrap();
        let forge = program(folder.path(), r#"echo "told $EDGEWRIGHT_FORGE_DEVICE" >&2; exit 2"#);
        for device in [ForgeDevice::Auto, ForgeDevice::Cuda(1)] {
            let error = run(&forge.clone().on(device), false).await.0.unwrap_err();
            assert_eq!(error.to_string(), format!("told {device}"));
        }
    }

    #[tokio::test]
    async fn a_cancelled_job_ends_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (result, _) = run(&program(folder.path(), "exec sleep 60"), true).await;
        assert!(matches!(result, Err(Error::Cancelled)));
    }

    #[tokio::test]
    async fn bad_input_is_told_in_the_workers_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let forge = program(folder.path(), "echo 'x_TRAIN.tsv:3: expected a number' >&2; exit 2");
        let error =
            forge.inspect(Path::new("x"), Some(DataFormat::UcrTsv), &Reading::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "x_TRAIN.tsv:3: expected a number");
    }
}
