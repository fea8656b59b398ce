//! The forge from a data set to a measured INT8 model, over several seeds: our search, against random search with the same
//! budget and against a hand-made network of the same size. Every job is a worker process, as the control plane
//! starts it, one after another with all cores.

pub mod hand_made;
pub mod job;
pub mod sets;

use super::machine::Machine;
use anyhow::{Context, Result, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use job::{Contestant, Done};
use serde::Serialize;
use sets::Set;
use std::path::PathBuf;

/// Options of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only these data sets; all where not given.
    #[arg(long = "set", value_name = "NAME")]
    pub sets: Vec<String>,
    /// One run of each contestant with every seed.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    pub seeds: Vec<u64>,
    /// Only these contestants; all where not given.
    #[arg(long = "only", value_enum, value_name = "CONTESTANT")]
    pub contestants: Vec<Contestant>,
    /// Keep jobs and results here; a bench that was ended goes on from them.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Most threads of a job; all cores where not given.
    #[arg(long)]
    pub threads: Option<u32>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub results: Vec<Outcome>,
}

/// One data set. Accuracies are shares of right answers on the test split, 0 to 1; unless said otherwise, figures are of
/// our search, and means over the seeds.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub dataset: String,
    pub seeds: Vec<u64>,
    /// The exported INT8 model on ONNX Runtime.
    pub int8_mean: Option<f64>,
    /// Standard deviation between seeds, of the sample.
    pub int8_std: Option<f64>,
    pub fp32_mean: Option<f64>,
    pub parameters: Option<f64>,
    pub bytes_int8: Option<f64>,
    /// Microseconds of one inference on ONNX Runtime, one thread.
    pub us_int8: Option<f64>,
    pub us_fp32: Option<f64>,
    pub search_s: Option<f64>,
    pub train_s: Option<f64>,
    /// INT8 accuracy of what random search finds with the same budget.
    pub random_search_mean: Option<f64>,
    /// INT8 accuracy of the hand-made network with as many weights as ours of the same seed.
    pub hand_made_mean: Option<f64>,
    /// INT8 accuracy that is aimed for.
    pub goal: f64,
    /// Largest INT8 model that is aimed for, in bytes.
    pub bytes_goal: Option<u64>,
    /// Whether INT8 reaches the goals, and stays within 1 % of FP32.
    pub reached: Option<bool>,
    /// Every run.
    pub runs: Vec<Done>,
}

/// How far below FP32, relative to it, INT8 may be.
const INT8_LOSS_MAX: f64 = 0.01;

/// Runs every contestant on every data set with every seed.
pub fn run(options: &Options) -> Result<Report> {
    ensure!(!options.seeds.is_empty(), "--seeds names no seed");
    let chosen = sets::chosen(&options.sets)?;
    let contestants =
        if options.contestants.is_empty() { Contestant::ALL.to_vec() } else { options.contestants.clone() };
    let machine = Machine::this();
    let threads = options.threads.unwrap_or_else(|| u32::try_from(machine.cores).unwrap_or(1));
    ensure!((1..=256).contains(&threads), "--threads is {threads}, allowed are 1 to 256");
    let temporary = tempfile::tempdir().context("making a folder")?;
    let folder = options.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    let bars = MultiProgress::new();
    let all = bars.add(ProgressBar::new((chosen.len() * options.seeds.len() * contestants.len()) as u64));
    all.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} jobs {elapsed}")?);
    let mut results = Vec::new();
    for set in &chosen {
        let mut runs = Vec::new();
        for &seed in &options.seeds {
            for &contestant in &contestants {
                let run = job::Run { set, seed, contestant, threads, folder: &folder };
                let done = run.play(&bars)?;
                bars.println(format!(
                    "{} seed {seed}, {}: INT8 {:.4}, FP32 {:.4}, {} parameters, {:.0} KiB",
                    set.name,
                    contestant.label(),
                    done.int8,
                    done.fp32,
                    done.parameters,
                    done.bytes_int8 as f64 / 1024.0
                ))?;
                runs.push(done);
                all.inc(1);
            }
        }
        results.push(outcome(set, &options.seeds, runs));
    }
    all.finish_and_clear();
    let report = Report { machine, results };
    print!("{}", table(&report));
    Ok(report)
}

fn outcome(set: &Set, seeds: &[u64], runs: Vec<Done>) -> Outcome {
    let of = |contestant: Contestant, figure: fn(&Done) -> f64| {
        let figures: Vec<f64> = runs.iter().filter(|run| run.contestant == contestant).map(figure).collect();
        (mean(&figures), deviation(&figures))
    };
    let ours = |figure: fn(&Done) -> f64| of(Contestant::Ours, figure).0;
    let (int8_mean, int8_std) = of(Contestant::Ours, |run| run.int8);
    let fp32_mean = ours(|run| run.fp32);
    let bytes_int8 = ours(|run| run.bytes_int8 as f64);
    let reached = int8_mean.zip(fp32_mean).zip(bytes_int8).map(|((int8, fp32), bytes)| {
        int8 >= set.goal
            && int8 >= fp32 * (1.0 - INT8_LOSS_MAX)
            && set.bytes_goal.is_none_or(|most| bytes <= most as f64)
    });
    Outcome {
        dataset: set.name.to_owned(),
        seeds: seeds.to_vec(),
        int8_mean,
        int8_std,
        fp32_mean,
        parameters: ours(|run| run.parameters as f64),
        bytes_int8,
        us_int8: ours(|run| run.us_int8),
        us_fp32: ours(|run| run.us_fp32),
        search_s: ours(|run| run.search_s),
        train_s: ours(|run| run.train_s),
        random_search_mean: of(Contestant::Random, |run| run.int8).0,
        hand_made_mean: of(Contestant::HandMade, |run| run.int8).0,
        goal: set.goal,
        bytes_goal: set.bytes_goal,
        reached,
        runs,
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Of the sample; none of fewer than two.
fn deviation(values: &[f64]) -> Option<f64> {
    let middle = mean(values)?;
    let squares = values.iter().map(|value| (value - middle).powi(2)).sum::<f64>();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

fn table(report: &Report) -> String {
    let mut text = format!("{} ({} cores)\n", report.machine.cpu, report.machine.cores);
    let mut row = |cells: [String; 11]| {
        let [name, rest @ ..] = cells;
        text += &format!("{name:<20}");
        rest.iter().for_each(|cell| text += &format!(" {cell:>11}"));
        text.push('\n');
    };
    let heads = ["data set", "INT8", "+-", "FP32", "goal", "random", "hand-made", "params", "KiB", "us", "s"];
    row(heads.map(str::to_owned));
    for one in &report.results {
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let seconds = one.search_s.zip(one.train_s).map(|(search, train)| search + train);
        let mark = match one.reached {
            Some(true) => " reached",
            Some(false) => " missed",
            None => "",
        };
        row([
            one.dataset.clone(),
            figure(one.int8_mean, 4),
            figure(one.int8_std, 4),
            figure(one.fp32_mean, 4),
            format!("{}{mark}", one.goal),
            figure(one.random_search_mean, 4),
            figure(one.hand_made_mean, 4),
            figure(one.parameters, 0),
            figure(one.bytes_int8.map(|bytes| bytes / 1024.0), 0),
            figure(one.us_int8, 0),
            figure(seconds, 0),
        ]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(contestant: Contestant, seed: u64, int8: f64) -> Done {
        let fp32 = 0.9;
        let (parameters, bytes_int8) = (1000, 2048);
        Done { contestant, seed, int8, fp32, parameters, bytes_int8, ..Done::default() }
    }

    #[test]
    fn means_are_of_each_contestants_own_runs_and_the_goals_are_judged() {
        let set = sets::chosen(&["mnist".to_owned()]).unwrap().remove(0);
        let set = Set { goal: 0.85, bytes_goal: Some(2048), ..set };
        let runs = vec![
            done(Contestant::Ours, 1, 0.90),
            done(Contestant::Ours, 2, 0.92),
            done(Contestant::HandMade, 1, 0.5),
        ];
        let found = outcome(&set, &[1, 2], runs.clone());
        assert!((found.int8_mean.unwrap() - 0.91).abs() < 1e-9);
        assert!((found.int8_std.unwrap() - 0.02 / 2f64.sqrt()).abs() < 1e-9);
        assert_eq!((found.hand_made_mean, found.random_search_mean), (Some(0.5), None));
        assert_eq!(found.reached, Some(true));
        let small = Set { bytes_goal: Some(2047), ..set.clone() };
        assert_eq!(outcome(&small, &[1, 2], runs).reached, Some(false));
        let lossy = outcome(&set, &[1], vec![done(Contestant::Ours, 1, 0.88)]);
        assert_eq!((lossy.reached, lossy.int8_std), (Some(false), None));
        assert_eq!(outcome(&set, &[1], Vec::new()).reached, None);
        let text = table(&Report { machine: Machine::this(), results: vec![found] });
        assert!(text.contains("0.85 reached") && text.contains("0.9100"), "{text}");
    }
}
