//! The forge from a data set to a measured INT8 model, over several seeds: our search, against random search with the same
//! budget and against a hand-made network of the same size. Every job is a worker process, as the control plane
//! starts it, one after another with all cores.

pub mod hand_made;
pub mod job;
pub mod linear;
pub mod record;
pub mod reference;
pub mod sets;

use super::machine::Machine;
use anyhow::{Context, Result, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use job::{Contestant, Done};
use record::Records;
use reference::Reference;
use serde::Serialize;
use sets::{Against, Set};
use shared::job::Metric;
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
    /// Record here what each run measured, and leave out the runs that are recorded.
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Run nothing: report what is recorded.
    #[arg(long, requires = "record")]
    pub recorded: bool,
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
    /// The measure of the task beside accuracy, where it has one.
    pub metric: Option<Metric>,
    /// Of the INT8 model on ONNX Runtime.
    pub metric_int8_mean: Option<f64>,
    pub metric_int8_std: Option<f64>,
    pub metric_fp32_mean: Option<f64>,
    /// Of random search and of the hand-made network, in INT8.
    pub metric_random_search_mean: Option<f64>,
    pub metric_hand_made_mean: Option<f64>,
    /// Others on the same test split.
    pub references: Vec<Reference>,
    /// INT8 accuracy that is aimed for; of anomalies the AUROC.
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
    let records = Records::new(options.record.clone());
    let bars = MultiProgress::new();
    let all = bars.add(ProgressBar::new((chosen.len() * options.seeds.len() * contestants.len()) as u64));
    all.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} jobs {elapsed}")?);
    let mut results = Vec::new();
    for set in &chosen {
        let mut runs = Vec::new();
        for &seed in &options.seeds {
            for &contestant in &contestants {
                let run = job::Run { set, seed, contestant, threads, folder: &folder };
                let done = match run.recorded(&records)? {
                    Some(done) => done,
                    None if options.recorded => continue,
                    None => run.play(&records, &bars)?,
                };
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
        results.push(outcome(set, &options.seeds, reference::of(set)?, runs));
    }
    all.finish_and_clear();
    let report = Report { machine, results };
    print!("{}", table(&report));
    Ok(report)
}

fn outcome(set: &Set, seeds: &[u64], references: Vec<Reference>, runs: Vec<Done>) -> Outcome {
    let of = |contestant: Contestant, figure: fn(&Done) -> f64| {
        let figures: Vec<f64> = runs.iter().filter(|run| run.contestant == contestant).map(figure).collect();
        (mean(&figures), deviation(&figures))
    };
    let ours = |figure: fn(&Done) -> f64| of(Contestant::Ours, figure).0;
    let (int8_mean, int8_std) = of(Contestant::Ours, |run| run.int8);
    let fp32_mean = ours(|run| run.fp32);
    let bytes_int8 = ours(|run| run.bytes_int8 as f64);
    // Figures of runs that have the measure.
    let metric_of = |contestant: Contestant, int8: bool| {
        let pick = |run: &Done| run.metric.map(|found| if int8 { found.int8 } else { found.fp32 });
        let figures: Vec<f64> =
            runs.iter().filter(|run| run.contestant == contestant).filter_map(pick).collect();
        (mean(&figures), deviation(&figures))
    };
    let metric = runs.iter().find_map(|run| run.metric).map(|found| found.metric);
    let (metric_int8_mean, metric_int8_std) = metric_of(Contestant::Ours, true);
    let metric_fp32_mean = metric_of(Contestant::Ours, false).0;
    // What finds anomalies answers right at one line of many: the curve through all of them is what counts.
    let by_curve = metric == Some(Metric::Auroc);
    let judged = if by_curve { (metric_int8_mean, metric_fp32_mean) } else { (int8_mean, fp32_mean) };
    let reached = judged.0.zip(judged.1).zip(bytes_int8).map(|((int8, fp32), bytes)| {
        let measured = metric.zip(metric_int8_mean).zip(metric_fp32_mean);
        int8 >= set.goal
            && int8 >= fp32 * (1.0 - INT8_LOSS_MAX)
            && set.bytes_goal.is_none_or(|most| bytes <= most as f64)
            && measured.is_none_or(|((metric, int8), fp32)| !is_worse(metric, int8, fp32))
            && (set.against == Against::Goal || beats(&references, int8, metric_int8_mean))
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
        metric,
        metric_int8_mean,
        metric_int8_std,
        metric_fp32_mean,
        metric_random_search_mean: metric_of(Contestant::Random, true).0,
        metric_hand_made_mean: metric_of(Contestant::HandMade, true).0,
        references,
        goal: set.goal,
        bytes_goal: set.bytes_goal,
        reached,
        runs,
    }
}

/// Whether INT8 costs more of a measure than it may.
fn is_worse(metric: Metric, int8: f64, fp32: f64) -> bool {
    metric.is_worse(int8, fp32, INT8_LOSS_MAX)
}

/// Whether the first reference is left behind: in bits where it packs, else in accuracy and slots.
fn beats(references: &[Reference], accuracy: f64, metric: Option<f64>) -> bool {
    let Some((first, metric)) = references.first().zip(metric) else { return false };
    match first.accuracy {
        None => metric < first.metric,
        Some(theirs) => accuracy >= theirs && metric >= first.metric,
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
    for one in &report.results {
        let Some((metric, int8)) = one.metric.zip(one.metric_int8_mean) else { continue };
        let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        text += &format!(
            "{}: {metric} {int8:.4} INT8, {} FP32, random {}, hand-made {}",
            one.dataset,
            figure(one.metric_fp32_mean),
            figure(one.metric_random_search_mean),
            figure(one.metric_hand_made_mean)
        );
        for Reference { name, accuracy, metric } in &one.references {
            let accuracy = accuracy.map_or_else(String::new, |accuracy| format!(" (accuracy {accuracy:.4})"));
            text += &format!(", {name} {metric:.4}{accuracy}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::job::MetricReport;

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
        let found = outcome(&set, &[1, 2], Vec::new(), runs.clone());
        assert!((found.int8_mean.unwrap() - 0.91).abs() < 1e-9);
        assert!((found.int8_std.unwrap() - 0.02 / 2f64.sqrt()).abs() < 1e-9);
        assert_eq!((found.hand_made_mean, found.random_search_mean), (Some(0.5), None));
        assert_eq!(found.reached, Some(true));
        let small = Set { bytes_goal: Some(2047), ..set.clone() };
        assert_eq!(outcome(&small, &[1, 2], Vec::new(), runs).reached, Some(false));
        let lossy = outcome(&set, &[1], Vec::new(), vec![done(Contestant::Ours, 1, 0.88)]);
        assert_eq!((lossy.reached, lossy.int8_std), (Some(false), None));
        assert_eq!(outcome(&set, &[1], Vec::new(), Vec::new()).reached, None);
        let text = table(&Report { machine: Machine::this(), results: vec![found] });
        assert!(text.contains("0.85 reached") && text.contains("0.9100"), "{text}");
    }

    #[test]
    fn a_model_that_writes_is_judged_by_its_bits_against_the_compressor() {
        let set = sets::chosen(&["shakespeare".to_owned()]).unwrap().remove(0);
        let reference = |metric| Reference { name: "xz", accuracy: None, metric };
        let run = |int8| Done {
            metric: Some(MetricReport { metric: Metric::BitsPerCharacter, fp32: 2.0, int8 }),
            ..done(Contestant::Ours, 1, 0.9)
        };
        let judged = |int8, xz| outcome(&set, &[1], vec![reference(xz)], vec![run(int8)]);
        assert_eq!(judged(2.01, 2.5).reached, Some(true));
        assert_eq!(judged(2.01, 2.0).reached, Some(false));
        // More than 1 % worse than FP32.
        assert_eq!(judged(2.1, 2.5).reached, Some(false));
        assert_eq!(judged(2.01, 2.5).metric_int8_mean, Some(2.01));
        let text = table(&Report { machine: Machine::this(), results: vec![judged(2.01, 2.5)] });
        assert!(
            text.contains("bits per character 2.0100 INT8, 2.0000 FP32, random -, hand-made -, xz 2.5000"),
            "{text}"
        );
    }

    #[test]
    fn what_finds_anomalies_is_judged_by_its_auroc_and_not_by_the_answers_at_its_line() {
        let set = sets::chosen(&["shuttle".to_owned()]).unwrap().remove(0);
        let run = |int8| Done {
            metric: Some(MetricReport { metric: Metric::Auroc, fp32: 0.999, int8 }),
            ..done(Contestant::Ours, 1, 0.7)
        };
        let judged = |int8| outcome(&set, &[1], Vec::new(), vec![run(int8)]).reached;
        assert_eq!((judged(0.995), judged(0.9895)), (Some(true), Some(false)));
    }

    #[test]
    fn a_model_of_intents_must_beat_the_linear_one_in_both_figures() {
        let reference = [Reference { name: "linear", accuracy: Some(0.9), metric: 0.8 }];
        assert!(beats(&reference, 0.9, Some(0.8)));
        assert!(!beats(&reference, 0.89, Some(0.9)) && !beats(&reference, 0.95, Some(0.79)));
        assert!(!beats(&reference, 0.95, None) && !beats(&[], 0.95, Some(0.9)));
    }
}
