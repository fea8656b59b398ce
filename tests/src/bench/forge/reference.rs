//! What the models of text are held against, on the same test split.

use super::{
    linear,
    sets::{Against, Set},
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

/// How hard zstd tries.
const ZSTD_LEVEL: i32 = 22;

/// Somebody else's figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reference {
    pub name: &'static str,
    /// Share of right classes, where it answers with one.
    pub accuracy: Option<f64>,
    /// Of the measure of the task.
    pub metric: f64,
}

/// The references of a data set.
///
/// # Errors
/// The data set or a tool is missing.
pub fn of(set: &Set) -> Result<Vec<Reference>> {
    match set.against {
        Against::Goal => Ok(Vec::new()),
        Against::Compressors => compressors(&dataset::held_out(&set.path()?)?),
        Against::Linear => {
            let score = linear::score(&dataset::open(&set.path()?, Some(set.format))?)?;
            let (accuracy, metric) = (Some(score.accuracy), score.slot_f1);
            Ok(vec![Reference { name: "linear", accuracy, metric }])
        }
    }
}

/// Bits for each character of what is held out, which each packs by itself.
fn compressors(text: &str) -> Result<Vec<Reference>> {
    let characters = text.chars().count().max(1) as f64;
    let bits = |bytes: usize| bytes as f64 * 8.0 / characters;
    let packed = zstd::bulk::compress(text.as_bytes(), ZSTD_LEVEL).context("packing with zstd")?;
    Ok(vec![
        Reference { name: "xz", accuracy: None, metric: bits(xz(text)?) },
        Reference { name: "zstd", accuracy: None, metric: bits(packed.len()) },
    ])
}

/// Bytes of `text` as xz packs it, as hard as it can, without the container.
fn xz(text: &str) -> Result<usize> {
    let mut command = Command::new("xz");
    command.args(["-9e", "--format=lzma", "--stdout"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting xz; install it (Debian: apt-get install xz-utils)")?;
    let mut input = child.stdin.take().context("xz has no input")?;
    // Apart, so that neither side waits for the other with a full pipe.
    let text = text.to_owned();
    let writer = thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().context("waiting for xz")?;
    ensure!(output.status.success(), "xz ended with {}", output.status);
    let written = writer.join().ok().context("writing to xz")?;
    written.context("writing to xz")?;
    Ok(output.stdout.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_takes_few_bits_for_each_character() {
        let found = compressors(&"to be or not to be, ".repeat(500)).unwrap();
        assert_eq!(found.iter().map(|one| one.name).collect::<Vec<_>>(), ["xz", "zstd"]);
        assert!(found.iter().all(|one| one.metric > 0.0 && one.metric < 0.5), "{found:?}");
    }
}
