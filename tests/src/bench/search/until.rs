//! How long each takes to one accuracy on images that it does not learn from.

use super::{OURS, peers, start_peer, write_start};
use crate::harness::cache;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::job::SearchMethod;

/// Steps between two looks at the accuracy.
const LOOK_STEPS: usize = 5;

/// One way to take the steps of a method.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// `ours`, or the peer's variant.
    pub way: String,
    /// Of the steps alone; none where the accuracy was not reached within the steps.
    pub seconds: Option<f64>,
    pub steps: usize,
    /// At the last look, 0 to 1.
    pub accuracy: f64,
    /// Our seconds divided by theirs; below 1 we are faster.
    pub ratio: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Done {
    seconds: f64,
    steps: usize,
    accuracy: f64,
}

/// What each took, ours first. All begin from the same weights and see the same images in the same order; one after another, so
/// that each has the machine to itself.
pub fn measure(method: SearchMethod, threads: usize, accuracy: f64, most: usize) -> Result<Vec<Way>> {
    let folder = tempfile::tempdir().context("making a folder")?;
    let start = folder.path().join("start.safetensors");
    let images = cache()?.join("data/mnist");
    write_start(&start, method, Some(&images))?;
    let mut ways: Vec<Way> = Vec::new();
    for variant in [OURS].iter().chain(peers(method)) {
        let mut peer = start_peer(variant, method, threads, &start, Some(&images))?;
        let request = json!({ "until": accuracy, "most": most, "each": LOOK_STEPS });
        let done: Done = peer.ask(&request)?;
        let seconds = (done.accuracy >= accuracy).then_some(done.seconds);
        eprintln!(
            "{method}, {variant}: {:.3} after {} steps, {:.1} s",
            done.accuracy, done.steps, done.seconds
        );
        let ours = ways.first().map_or(seconds, |ours| ours.seconds);
        let ratio = ours.zip(seconds).map(|(ours, theirs)| ours / theirs);
        ways.push(Way {
            way: (*variant).to_owned(),
            seconds,
            steps: done.steps,
            accuracy: done.accuracy,
            ratio,
        });
    }
    Ok(ways)
}

/// One line a way, for people.
pub fn table(accuracy: f64, ways: &[Way]) -> String {
    let mut text = format!("to a validation accuracy of {accuracy}: seconds (steps), ours/theirs\n");
    for Way { way, seconds, steps, accuracy, ratio } in ways {
        let seconds =
            seconds.map_or_else(|| format!("not reached, {accuracy:.3}"), |seconds| format!("{seconds:.1}"));
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        text += &format!("{way:<16} {seconds:>20} {:>8} {ratio:>8}\n", format!("({steps})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_who_did_not_reach_it() {
        let way = |way: &str, seconds, ratio| Way {
            way: way.to_owned(),
            seconds,
            steps: 80,
            accuracy: 0.85,
            ratio,
        };
        let text = table(0.9, &[way("ours", Some(20.0), Some(1.0)), way("default", None, None)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("ours") && lines[1].contains("20.0") && lines[1].ends_with("1.00"),
            "{text}"
        );
        assert!(lines[2].contains("not reached, 0.850") && lines[2].ends_with('-'), "{text}");
    }
}
