//! `job.json`, and whether this machine can do what it asks for.

use super::Error;
use crate::{device, memory};
use shared::{
    Digest,
    job::{self, JobKind, JobSpec},
};
use std::{fs, path::Path};

/// Largest `job.json`.
const SPEC_BYTES_MAX: u64 = 1 << 20;
/// Most threads of libtorch.
const THREADS_MAX: u32 = 256;
/// Values of an activation that make one more thread worth its while. With less, threads spend their time waiting for
/// each other: on a machine that has other work too, a step of a small network takes two threads many times as long as
/// one.
const VALUES_PER_THREAD: u64 = 262_144;
const MIB: u64 = 1 << 20;

/// The job in `dir`, and the digest of its file.
pub(super) fn read(dir: &Path) -> Result<(JobSpec, Digest), Error> {
    let path = dir.join(job::SPEC_FILE);
    let input = |message: String| Error::Input(format!("{}: {message}", path.display()));
    let size = fs::metadata(&path).map_err(|error| input(format!("cannot be read: {error}")))?.len();
    if size > SPEC_BYTES_MAX {
        return Err(input(format!("{size} bytes, at most {SPEC_BYTES_MAX} are read")));
    }
    let bytes = fs::read(&path).map_err(|error| input(format!("cannot be read: {error}")))?;
    let mut spec: JobSpec =
        serde_json::from_slice(&bytes).map_err(|error| input(format!("no job: {error}")))?;
    if let Some(space) = &spec.space {
        space.check("space").map_err(|error| input(error.to_string()))?;
        spec.budget = space.applied(spec.budget);
    }
    spec.budget.validate().map_err(input)?;
    if let JobKind::Search { method } = &spec.kind {
        method.validate(&spec.budget).map_err(input)?;
    }
    if matches!(spec.kind, JobKind::Retrain { .. }) && spec.budget.pretext.is_some() {
        let message = "a retraining begins at its parent's weights: leave budget.pretext out";
        return Err(input(message.to_owned()));
    }
    if !(1..=THREADS_MAX).contains(&spec.threads) {
        return Err(input(format!("threads is {}, allowed are 1 to {THREADS_MAX}", spec.threads)));
    }
    Ok((spec, Digest::of(&bytes)))
}

/// Lets libtorch use as many threads as activations of `values` values feed, at most `allowed`.
pub(super) fn set_threads(allowed: u32, values: u64) {
    tch::set_num_threads(threads(allowed, values) as i32);
}

fn threads(allowed: u32, values: u64) -> u32 {
    u32::try_from(values / VALUES_PER_THREAD).unwrap_or(u32::MAX).clamp(1, allowed.max(1))
}

/// Refuses a stage that needs more memory than is to be had, before libtorch fails in its midst or the system ends it. How
/// much a GPU has libtorch does not tell.
pub(super) fn check_memory(what: &str, needed: u64) -> Result<(), Error> {
    if device::get().is_cuda() {
        return Ok(());
    }
    refuse_beyond(what, needed, memory::available_bytes())
}

fn refuse_beyond(what: &str, needed: u64, available: Option<u64>) -> Result<(), Error> {
    match available {
        Some(available) if needed > available => Err(Error::Input(format!(
            "the {what} needs about {} MiB of memory, {} MiB are available: lower the budget's channels, search_batch, \
             cells or nodes",
            needed / MIB,
            available / MIB
        ))),
        // Where the system does not say, trying is all that is left.
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_activations_are_computed_by_one_thread_and_large_ones_by_all_that_are_allowed() {
        // A batch of ItalyPowerDemand, one of MNIST, one of images of 64 by 64, and one beyond all counting.
        assert_eq!(threads(2, 32 * 384), 1);
        assert_eq!(threads(2, 64 * 1568), 1);
        assert_eq!(threads(2, 64 * 16 * 32 * 32), 2);
        assert_eq!(threads(16, 64 * 16 * 32 * 32), 4);
        assert_eq!(threads(256, u64::MAX), 256);
    }

    #[test]
    fn a_stage_beyond_the_memory_at_hand_is_refused_in_words() {
        assert!(refuse_beyond("search", 5 * MIB, Some(5 * MIB)).is_ok());
        assert!(refuse_beyond("search", u64::MAX, None).is_ok());
        let error = refuse_beyond("search", 9000 * MIB, Some(800 * MIB)).unwrap_err();
        assert!(error.is_input());
        assert!(error.to_string().starts_with(
            "the search needs about 9000 MiB of memory, 800 MiB are available: lower the budget's channels"
        ));
    }
}
