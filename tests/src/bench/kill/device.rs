//! One device that lives through the same update again and again, each time with another fault.

use super::{
    durable::{self, Durable},
    models::{SHAPE, TOLERANCE},
    plan::Point,
};
use crate::{
    harness::{Agent, Proxy, binary, copy_folder, wait_for},
    powercut::{Fault, Operation, Record},
};
use anyhow::{Context, Result, ensure};
use runtime::golden::{Golden, argmax};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shared::wire::{Outcome, Phase};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The labels of the version that is there first and of the one that it is updated to.
pub const VERSIONS: [&str; 2] = ["v1.0", "v1.1"];
/// Longest life of an update, and longest way back after a fault.
const LIFE_LIMIT: Duration = Duration::from_secs(90);
/// Longest wait for an answer after a start.
const BACK_LIMIT: Duration = Duration::from_secs(60);
/// Longest time from an agent's last answer to its end.
const END_LIMIT: Duration = Duration::from_secs(3);
/// An agent that has written nothing for so long has ended its update. Longer than sled keeps writes to itself.
const QUIET: Duration = Duration::from_millis(1500);
/// How long a disk stays full.
const FULL_FOR: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Chunks that may be on their way when the power goes: the agent's window.
const WINDOW_CHUNKS: u64 = 64;
/// What else a device may receive in one life: handshakes, wishes, acknowledgements.
const TALK_BYTES: u64 = 96 * 1024;
/// Around a chunk, on its way.
const CHUNK_EXTRA_BYTES: u64 = 512;

/// A device with what it needs to begin the update anew.
#[derive(Debug)]
pub struct Device {
    pub agent: Agent,
    pub proxy: Proxy,
    /// Its model and its slot.
    pub name: String,
    /// A copy of its data folder with the first version committed.
    pub kept: PathBuf,
    pub record: PathBuf,
    /// The broker, and one that knows only the first version.
    pub broker: u16,
    pub older_broker: u16,
    pub chunk_bytes: u64,
    /// Bytes that it receives in an update without a fault.
    pub life_bytes: u64,
}

/// What became of a point.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// The operation that had the fault; none where the life ended before it.
    pub hit: Option<Operation>,
    /// Did not start, did not answer rightly, or did not come to the new version.
    pub bricked: Option<String>,
    /// Went back behind what it had accepted.
    pub older: Option<String>,
    /// Fetched again what was on disk.
    pub from_zero: Option<String>,
}

/// What the agent's state file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Accepted {
    generation: u64,
    last_good: Option<String>,
}

impl Device {
    /// As it was before the update.
    pub fn rewind(&mut self) -> Result<()> {
        match std::fs::remove_dir_all(&self.agent.data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", self.agent.data.display()));
            }
            _ => {}
        }
        copy_folder(&self.kept, &self.agent.data)?;
        std::fs::write(self.agent.log(), "").context("emptying the agent's log")
    }

    /// Starts the agent, with `point` ahead of it; none to let it live.
    pub fn launch(&mut self, point: Option<&Point>) -> Result<()> {
        let fault = point.map_or(Fault::Kill, |point| point.fault);
        let fault = clap::ValueEnum::to_possible_value(&fault).map(|value| value.get_name().to_owned());
        let text = |path: &Path| path.to_str().map(str::to_owned).context("folder name is not UTF-8");
        let launcher = vec![
            text(&binary("edgewright-powercut")?)?,
            "--root".to_owned(),
            text(&self.agent.data)?,
            "--record".to_owned(),
            text(&self.record)?,
            "--at".to_owned(),
            point.map_or(0, |point| point.at).to_string(),
            "--fault".to_owned(),
            fault.unwrap_or_default(),
            "--".to_owned(),
        ];
        match std::fs::remove_file(&self.record) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("removing the last record");
            }
            _ => {}
        }
        self.agent.set_launcher(launcher);
        self.agent.launch()
    }

    /// What it has done so far; nothing before it began.
    fn recorded(&self) -> Record {
        Record::read(&self.record).unwrap_or_default()
    }

    /// Lives until nothing is left to do, and gives what it did.
    pub fn live(&mut self) -> Result<Record> {
        let limit = Instant::now() + LIFE_LIMIT;
        let mut quiet = Quiet::default();
        loop {
            std::thread::sleep(LOOK_EVERY);
            self.agent.process()?.check_alive()?;
            let record = self.recorded();
            if quiet.since(&record) > QUIET && self.is_updated() {
                self.power_off()?;
                return Ok(record);
            }
            ensure!(Instant::now() < limit, "{} is not updated in {} s", self.name, LIFE_LIMIT.as_secs());
        }
    }

    /// Lives through the update with a fault, starts again without a network, meets a control plane that knows less,
    /// and then the right one.
    pub fn play(&mut self, point: &Point) -> Result<Played> {
        self.rewind()?;
        self.proxy.lead_to(self.broker);
        self.launch(Some(point))?;
        let mut played = Played { bricked: self.until_fault(point)?, ..Played::default() };
        let record = self.recorded();
        self.power_off()?;
        played.hit = hit(&record, point);
        if played.bricked.is_none()
            && let Err(error) = self.come_back(point, &record, &mut played)
        {
            played.bricked = Some(format!("{error:#}"));
        }
        if self.agent.process().is_ok() {
            self.agent.kill()?;
        }
        Ok(played)
    }

    /// Waits until the power has gone or the disk was full long enough; gives what went wrong meanwhile.
    fn until_fault(&mut self, point: &Point) -> Result<Option<String>> {
        let limit = Instant::now() + LIFE_LIMIT;
        let mut quiet = Quiet::default();
        let mut answered = false;
        let mut full_since = None;
        loop {
            std::thread::sleep(LOOK_EVERY);
            if self.agent.process()?.ended()?.is_some() {
                return Ok(None);
            }
            let record = self.recorded();
            let over = quiet.since(&record) > QUIET && self.is_updated();
            if point.fault.ends_it() {
                if over {
                    return Ok(None);
                }
            } else {
                // An agent that ends is started again; one that stays up answers.
                match self.ask() {
                    Ok(Ok(())) => answered = true,
                    Ok(Err(wrong)) => return Ok(Some(format!("with the disk full: {wrong:#}"))),
                    Err(error) if answered && !self.ends()? => {
                        return Ok(Some(format!("with the disk full it answered no more: {error:#}")));
                    }
                    Err(_) => {}
                }
                if full_since.is_none() && record.operations.iter().any(|operation| operation.refused) {
                    full_since = Some(Instant::now());
                }
                let lifted = full_since.is_some_and(|since| since.elapsed() > FULL_FOR);
                if over || (point.fault == Fault::FullOn && lifted) {
                    return Ok(None);
                }
            }
            if Instant::now() > limit {
                return Ok(Some(format!("it is not updated within {} s", LIFE_LIMIT.as_secs())));
            }
        }
    }

    fn come_back(&mut self, point: &Point, record: &Record, played: &mut Played) -> Result<()> {
        let accepted = self.accepted();
        self.proxy.cut();
        self.agent.set_launcher(Vec::new());
        std::fs::write(self.agent.log(), "").context("emptying the agent's log")?;
        self.agent.launch()?;
        self.agent.wait_live(BACK_LIMIT)?;
        wait_for("an answer without a network", BACK_LIMIT, || self.answers().map(Some))??;
        self.check_not_older(&accepted, "without a network", played)?;

        if accepted.generation > self.kept_generation() {
            self.proxy.lead_to(self.older_broker);
            let refused = wait_for("an older wish to be refused", BACK_LIMIT, || {
                Ok(self.log()?.contains("DesiredRefused").then_some(()))
            });
            if let Err(error) = refused {
                played.older = Some(format!("{error:#}"));
            }
            self.check_not_older(&accepted, "at a control plane that is older", played)?;
        }

        let before = self.proxy.received_bytes();
        self.proxy.lead_to(self.broker);
        wait_for("the new version", LIFE_LIMIT, || Ok(self.is_updated().then_some(())))?;
        self.answers()??;
        let received_bytes = self.proxy.received_bytes() - before;
        self.check_not_older(&accepted, "at the end", played)?;
        // A full disk makes room by giving up what has come: that is fetched again.
        if point.fault.ends_it() {
            played.from_zero = self.fetched_again(&durable::of(record), received_bytes)?;
        }
        Ok(())
    }

    /// Goes back behind what was accepted nowhere.
    fn check_not_older(&self, accepted: &Accepted, when: &str, played: &mut Played) -> Result<()> {
        let what = format!("a version to be active {when}");
        let active = wait_for(&what, BACK_LIMIT, || self.agent.active_version(&self.name))?;
        let reported = self.agent.reported()?;
        ensure!(VERSIONS.contains(&active.as_str()), "version {active} is active {when}");
        if reported.generation < accepted.generation {
            let (is, was) = (reported.generation, accepted.generation);
            played.older = Some(format!("generation {is} {when}, {was} was accepted"));
        }
        if accepted.last_good.as_deref() == Some(VERSIONS[1]) && active != VERSIONS[1] {
            played.older = Some(format!("{active} is active {when}, {} was committed", VERSIONS[1]));
        }
        Ok(())
    }

    /// Whether more came than was missing.
    fn fetched_again(&self, durable: &Durable, received_bytes: u64) -> Result<Option<String>> {
        if let Some(chunks) = durable.chunks {
            let resumed = resumed_at(&self.log()?);
            if resumed.is_none_or(|resumed| resumed < chunks) {
                let from = resumed.map_or_else(|| "the first".to_owned(), |resumed| resumed.to_string());
                return Ok(Some(format!("{chunks} chunks were on disk, it went on from chunk {from}")));
            }
        }
        let slack_bytes = WINDOW_CHUNKS * (self.chunk_bytes + CHUNK_EXTRA_BYTES) + TALK_BYTES;
        let most_bytes = (self.life_bytes + slack_bytes).saturating_sub(durable.size_bytes);
        Ok((received_bytes > most_bytes).then(|| {
            let there = durable.size_bytes;
            format!("{received_bytes} bytes came, {there} were on disk, at most {most_bytes} were missing")
        }))
    }

    /// Asks every golden input: an error where there is no answer, and within it one where an answer is wrong.
    fn answers(&self) -> Result<Result<()>> {
        let golden = golden()?;
        for sample in 0..golden.samples() {
            if let Err(wrong) = self.answer(&golden, sample)? {
                return Ok(Err(wrong));
            }
        }
        Ok(Ok(()))
    }

    /// As [`Device::answers`], for one of them.
    fn ask(&self) -> Result<Result<()>> {
        self.answer(&golden()?, 1)
    }

    /// Whether the agent is about to be gone.
    fn ends(&mut self) -> Result<bool> {
        let agent = self.agent.process()?;
        Ok(wait_for("the agent to be gone", END_LIMIT, || Ok(agent.ended()?.map(|_| ()))).is_ok())
    }

    fn answer(&self, golden: &Golden, sample: usize) -> Result<Result<()>> {
        let each = golden.input().len() / golden.samples();
        let input = &golden.input()[sample * each..][..each];
        let expected = &golden.output()[sample * golden.classes()..][..golden.classes()];
        let shape: Vec<usize> = std::iter::once(1).chain(SHAPE).collect();
        let got = self.agent.client().infer(&self.name, &shape, input)?;
        Ok(check(&got, expected).with_context(|| format!("golden input {sample}")))
    }

    /// The new version has proved itself and nothing is under way.
    pub fn is_updated(&self) -> bool {
        let Ok(Some(slot)) = self.agent.slot(&self.name) else { return false };
        slot.phase == Phase::Idle
            && slot.active.as_ref().is_some_and(|active| active.version.to_string() == VERSIONS[1])
            && slot.active == slot.last_good
            && slot.attempt.is_some_and(|attempt| attempt.outcome == Outcome::Committed)
    }

    /// Ends the agent at once, and waits until it is gone.
    fn power_off(&mut self) -> Result<()> {
        let process = self.recorded().process;
        if self.agent.process()?.ended()?.is_none()
            && let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw)
        {
            // It may end by itself at this very moment.
            let _ = kill_process(process, Signal::KILL);
            let agent = self.agent.process()?;
            wait_for("the agent to be gone", BACK_LIMIT, || Ok(agent.ended()?.map(|_| ())))?;
        }
        self.agent.kill()
    }

    fn log(&self) -> Result<String> {
        let path = self.agent.log();
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn accepted(&self) -> Accepted {
        accepted_in(&self.agent.data, &self.name)
    }

    fn kept_generation(&self) -> u64 {
        accepted_in(&self.kept, &self.name).generation
    }
}

fn check(got: &[f32], expected: &[f32]) -> Result<()> {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE;
    let right = got.len() == expected.len() && got.iter().zip(expected).all(near);
    ensure!(right && argmax(got) == argmax(expected), "answered {got:?} instead of {expected:?}");
    Ok(())
}

/// When a record last grew.
#[derive(Debug, Default)]
struct Quiet(Option<(usize, Instant)>);

impl Quiet {
    fn since(&mut self, record: &Record) -> Duration {
        // sled flushes twice a second, also what nobody wrote.
        let count = record.operations.iter().filter(|operation| operation.call != "fsync").count();
        match self.0 {
            Some((before, at)) if before == count => at.elapsed(),
            _ => {
                self.0 = Some((count, Instant::now()));
                Duration::ZERO
            }
        }
    }
}

/// The operation of a record that had the fault.
fn hit(record: &Record, point: &Point) -> Option<Operation> {
    if point.fault.ends_it() {
        super::plan::operation(record, point.at).cloned()
    } else {
        record.operations.iter().find(|operation| operation.refused).cloned()
    }
}

/// The state file in an agent's data folder; what cannot be read of it was not accepted.
fn accepted_in(data: &Path, slot: &str) -> Accepted {
    let text = std::fs::read(data.join("store.state.json")).unwrap_or_default();
    let state: Value = serde_json::from_slice(&text).unwrap_or_default();
    let generation = state.pointer("/saved/desired/generation").and_then(Value::as_u64).unwrap_or(0);
    let slots = state.pointer("/saved/slots").and_then(Value::as_array);
    let slot = slots.into_iter().flatten().find(|saved| saved["slot"] == slot);
    let version = slot.and_then(|slot| slot.pointer("/last_good/version")).and_then(Value::as_str);
    Accepted { generation, last_good: version.map(str::to_owned) }
}

/// The chunk that a download went on from, by the agent's log.
fn resumed_at(log: &str) -> Option<u64> {
    let (_, rest) = log.split_once("DownloadResumed: ")?;
    let (_, rest) = rest.split_once(" from chunk ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn golden() -> Result<Golden> {
    Golden::read(&super::models::asset("selftest.safetensors")?).context("the self-test's golden file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_from_which_chunk_a_download_went_on() {
        let log = "x INFO DownloadResumed: model.onnx from chunk 12 of 257 slot=m\nDownloadResumed: a from chunk 3 of 4";
        assert_eq!(resumed_at(log), Some(12));
        assert_eq!(resumed_at("DownloadStarted: m v1.1"), None);
    }

    #[test]
    fn the_state_file_says_what_was_accepted_and_a_damaged_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(accepted_in(folder.path(), "m"), Accepted::default());
        let text = r#"{"sequence":3,"saved":{"desired":{"generation":2},"slots":[
            {"slot":"other","last_good":null},{"slot":"m","last_good":{"version":"v1.1"}}]},"events":[]}"#;
        std::fs::write(folder.path().join("store.state.json"), text).unwrap();
        let expected = Accepted { generation: 2, last_good: Some("v1.1".to_owned()) };
        assert_eq!(accepted_in(folder.path(), "m"), expected);
        std::fs::write(folder.path().join("store.state.json"), &text[..20]).unwrap();
        assert_eq!(accepted_in(folder.path(), "m"), Accepted::default());
    }
}
