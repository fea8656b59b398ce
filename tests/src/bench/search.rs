//! Milliseconds of one step of each search that trains a shared network, and seconds to one validation accuracy: ours
//! against PyTorch eager, default layout, channels last, and, for DARTS, restructured.
//!
//! All begin from the same weights and batches, and have to lose the same in the first steps: what is compared is
//! the time of one computation.

pub mod until;

use super::{machine::Machine, peer::Peer, spread::Spread, turns::Turns};
use crate::harness::{binary, cache, root};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::job::SearchMethod;
use std::{path::Path, process::Command};

/// Options of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Steps of each, at least; 50 or more.
    #[arg(long, default_value_t = STEPS_MIN)]
    pub steps: usize,
    /// Steps that one runs before it is another's turn.
    #[arg(long, default_value_t = 5)]
    pub turn: usize,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    pub threads: Vec<usize>,
    /// Only these of darts, darts-second-order, gdas, partial-channels, evolution and hypernetwork.
    #[arg(long = "method", value_delimiter = ',', default_values_t = METHODS)]
    pub methods: Vec<SearchMethod>,
    /// Share of right answers on images that nobody learns from, to which the time is taken, 0 to 1.
    #[arg(long, default_value_t = 0.9)]
    pub accuracy: f64,
    /// Steps after which nobody goes on to that; 0 leaves it out.
    #[arg(long, default_value_t = 300)]
    pub accuracy_steps: usize,
}

/// The methods that train a shared network.
const METHODS: [SearchMethod; 6] = [
    SearchMethod::Darts,
    SearchMethod::DartsSecondOrder,
    SearchMethod::Gdas,
    SearchMethod::PartialChannels,
    SearchMethod::Evolution,
    SearchMethod::Hypernetwork,
];

impl Options {
    fn validate(&self) -> Result<()> {
        let Self { steps, turn, threads, methods, accuracy, accuracy_steps } = self;
        ensure!(*steps >= STEPS_MIN, "--steps is {steps}, allowed are {STEPS_MIN} and more");
        ensure!(
            (1..=steps / TURNS_MIN).contains(turn),
            "--turn is {turn}, allowed are 1 to {}: each runs in {TURNS_MIN} turns or more",
            steps / TURNS_MIN
        );
        ensure!(
            !threads.is_empty() && threads.iter().all(|count| (1..=THREADS_MAX).contains(count)),
            "--threads is {threads:?}, allowed are 1 to {THREADS_MAX}"
        );
        for method in methods {
            ensure!(
                !peers(*method).is_empty(),
                "--method is {method}, which has no step of a shared network to compare"
            );
        }
        ensure!((0.0..1.0).contains(accuracy), "--accuracy is {accuracy}, allowed is 0 to below 1");
        ensure!(
            *accuracy_steps <= ACCURACY_STEPS_MAX,
            "--accuracy-steps is {accuracy_steps}, allowed are 0 to {ACCURACY_STEPS_MAX}"
        );
        Ok(())
    }
}

/// Fewest steps of each from which a median is worth reporting.
const STEPS_MIN: usize = 50;
/// Fewest turns of each from which a ratio's spread is worth reporting.
const TURNS_MIN: usize = 5;
/// What `edgewright-forge bench-step` takes.
const THREADS_MAX: usize = 256;
const ACCURACY_STEPS_MAX: usize = 100_000;
/// Steps before the clock counts, on which the losses have to agree: the first shows that the forward passes are the
/// same, the later ones the gradients and the optimisers.
const WARM_UP: usize = 3;
/// Largest relative difference of a loss from ours; rounding in another order gives about a millionth.
const LOSS_DIFFERENCE_MAX: f64 = 1e-4;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    /// What each did in a step.
    pub work: String,
    /// To which the time was taken.
    pub accuracy: f64,
    pub methods: Vec<OfMethod>,
}

/// One method.
#[derive(Debug, Serialize)]
pub struct OfMethod {
    pub method: SearchMethod,
    pub steps: Vec<Line>,
    /// With the most threads; empty where it was left out.
    pub to_accuracy: Vec<until::Way>,
}

/// One number of threads. The first four figures are medians in milliseconds.
#[derive(Debug, Serialize)]
pub struct Line {
    pub threads: usize,
    pub ours_ms: f64,
    pub torch_default_ms: f64,
    pub torch_channels_last_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torch_restructured_ms: Option<f64>,
    /// Milliseconds.
    pub spread: OfEach,
    /// Ours divided by the peer's, turn by turn; below 1 we are faster.
    pub ratio: OfPeers,
    /// Largest relative difference of a peer's loss from ours in the first steps.
    pub loss_difference_max: f64,
    pub torch_version: String,
}

/// Milliseconds of one step.
#[derive(Debug, Serialize)]
pub struct OfEach {
    pub ours: Spread,
    pub torch_default: Spread,
    pub torch_channels_last: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torch_restructured: Option<Spread>,
}

/// Ours divided by each peer's.
#[derive(Debug, Serialize)]
pub struct OfPeers {
    pub torch_default: Spread,
    pub torch_channels_last: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torch_restructured: Option<Spread>,
}

/// A peer's answer to `{"run": N}`.
#[derive(Debug, Deserialize)]
struct Steps {
    ms: Vec<f64>,
    loss: Vec<f64>,
    #[serde(default)]
    version: String,
}

/// What we are called among the peers.
const OURS: &str = "ours";

/// The peers of a method, as `darts_step.py` names them.
///
/// None where it trains plain networks, one for each cell that it drew: there is no step of a shared network to compare.
/// Progressive discretisation has no row of its own: every search by gradients removes candidates in stages, and its
/// step stays the same with those that are left.
fn peers(method: SearchMethod) -> &'static [&'static str] {
    match method {
        SearchMethod::Darts | SearchMethod::DartsSecondOrder => &["default", "channels_last", "restructured"],
        SearchMethod::Gdas
        | SearchMethod::PartialChannels
        | SearchMethod::Evolution
        | SearchMethod::Hypernetwork => &["default", "channels_last"],
        SearchMethod::Random | SearchMethod::SuccessiveHalving => &[],
    }
}

const WORK: &str = "one weight step: where there are architecture weights after an architecture step, for evolution \
    and hypernetwork along one random path; batch 64, 28x28, 16 channels, 8 edges x 6 operations";

/// Runs every variant in turn.
pub fn run(options: &Options) -> Result<Report> {
    options.validate()?;
    let mut methods = Vec::new();
    for &method in &options.methods {
        methods.push(one(options, method)?);
    }
    let report =
        Report { machine: Machine::this(), work: WORK.to_owned(), accuracy: options.accuracy, methods };
    print!("{}", table(&report));
    Ok(report)
}

fn one(options: &Options, method: SearchMethod) -> Result<OfMethod> {
    let folder = tempfile::tempdir().context("making a folder")?;
    let start = folder.path().join("start.safetensors");
    write_start(&start, method, None)?;
    let mut steps = Vec::new();
    for &threads in &options.threads {
        steps.push(measure(options, method, threads, &start)?);
    }
    let threads = options.threads.iter().copied().max().unwrap_or(1);
    let to_accuracy = match options.accuracy_steps {
        0 => Vec::new(),
        most => until::measure(method, threads, options.accuracy, most)?,
    };
    Ok(OfMethod { method, steps, to_accuracy })
}

/// Where all begin, as the forge writes it.
fn write_start(path: &Path, method: SearchMethod, images: Option<&Path>) -> Result<()> {
    let mut command = Command::new(binary("edgewright-forge")?);
    command.args(["bench-step", "--method", method.name(), "--start"]).arg(path);
    if let Some(images) = images {
        command.arg("--images").arg(images);
    }
    let status = command.status().context("running edgewright-forge")?;
    ensure!(status.success(), "edgewright-forge bench-step --start ended with {status}");
    Ok(())
}

fn start_peer(
    variant: &str,
    method: SearchMethod,
    threads: usize,
    start: &Path,
    images: Option<&Path>,
) -> Result<Peer> {
    let (method, threads) = (method.name(), threads.to_string());
    if variant == OURS {
        let mut command = Command::new(binary("edgewright-forge")?);
        command.args(["bench-step", "--serve", "--method", method, "--threads", &threads]);
        if let Some(images) = images {
            command.arg("--images").arg(images);
        }
        return Peer::start(variant, &mut command);
    }
    let mut command = Command::new(cache()?.join("venv-torch/bin/python"));
    command.arg(root().join("tests/peers/darts_step.py")).args([variant, &threads]).arg(start).arg(method);
    Peer::start(&format!("PyTorch, {variant}"), &mut command)
}

fn measure(options: &Options, method: SearchMethod, threads: usize, start: &Path) -> Result<Line> {
    let variants: Vec<&str> = [OURS].iter().chain(peers(method)).copied().collect();
    let mut peers: Vec<Peer> = variants
        .iter()
        .map(|variant| start_peer(variant, method, threads, start, None))
        .collect::<Result<_>>()?;
    let mut firsts = Vec::new();
    for peer in &mut peers {
        firsts.push(peer.ask::<Steps>(&json!({ "run": WARM_UP }))?);
    }
    let losses: Vec<&[f64]> = firsts.iter().map(|first| first.loss.as_slice()).collect();
    let loss_difference_max = loss_difference(&variants, &losses)?;
    let mut turns = Turns::new(variants.len());
    let request = json!({ "run": options.turn });
    while turns.count() < options.steps {
        for variant in turns.order(variants.len()) {
            turns.push(variant, peers[variant].ask::<Steps>(&request)?.ms)?;
        }
        eprintln!(
            "{method}, {threads} threads: {} of {} steps",
            turns.count().min(options.steps),
            options.steps
        );
    }
    let torch_version = firsts.pop().map(|first| first.version).unwrap_or_default();
    let restructured = variants.contains(&"restructured");
    line(threads, &turns, restructured, loss_difference_max, torch_version)
}

fn line(
    threads: usize,
    turns: &Turns,
    restructured: bool,
    loss_difference_max: f64,
    torch_version: String,
) -> Result<Line> {
    let spread = OfEach {
        ours: turns.spread(0)?,
        torch_default: turns.spread(1)?,
        torch_channels_last: turns.spread(2)?,
        torch_restructured: restructured.then(|| turns.spread(3)).transpose()?,
    };
    Ok(Line {
        threads,
        ours_ms: spread.ours.median,
        torch_default_ms: spread.torch_default.median,
        torch_channels_last_ms: spread.torch_channels_last.median,
        torch_restructured_ms: spread.torch_restructured.map(|spread| spread.median),
        spread,
        ratio: OfPeers {
            torch_default: turns.ratio(0, 1)?,
            torch_channels_last: turns.ratio(0, 2)?,
            torch_restructured: restructured.then(|| turns.ratio(0, 3)).transpose()?,
        },
        loss_difference_max,
        torch_version,
    })
}

/// The largest relative difference of a loss from the first list's, which is ours.
///
/// # Errors
/// One above [`LOSS_DIFFERENCE_MAX`], or a list of another length: then not the same is computed.
fn loss_difference(variants: &[&str], losses: &[&[f64]]) -> Result<f64> {
    let Some((ours, peers)) = losses.split_first() else { bail!("nobody computed a loss") };
    let mut most = 0.0f64;
    for (peer, variant) in peers.iter().zip(&variants[1..]) {
        ensure!(peer.len() == WARM_UP && ours.len() == WARM_UP, "losses {ours:?} and {peer:?}");
        for (step, (a, b)) in ours.iter().zip(*peer).enumerate() {
            let difference = (a - b).abs() / a.abs().max(f64::MIN_POSITIVE);
            ensure!(
                difference <= LOSS_DIFFERENCE_MAX,
                "step {step}: our loss is {a}, that of PyTorch ({variant}) {b}: they do not compute the same"
            );
            most = most.max(difference);
        }
    }
    Ok(most)
}

/// Milliseconds, ratios and seconds for people; medians with the middle half.
fn table(report: &Report) -> String {
    let Report { machine, work, accuracy, methods } = report;
    let mut text = format!("{} ({} cores); {work}\n", machine.cpu, machine.cores);
    for OfMethod { method, steps, to_accuracy } in methods {
        text += &format!("\n{method}\n{}", rows(steps));
        if !to_accuracy.is_empty() {
            text += &until::table(*accuracy, to_accuracy);
        }
    }
    text
}

/// The steps of one method.
fn rows(steps: &[Line]) -> String {
    let mut text = String::new();
    let or_none =
        |spread: Option<Spread>, digits| spread.map_or_else(|| "-".to_owned(), |spread| spread.text(digits));
    let mut row = |cells: [&str; 5]| {
        let [threads, rest @ ..] = cells;
        text += &format!("{threads:<16}");
        rest.iter().for_each(|cell| text += &format!(" {cell:>20}"));
        text += "\n";
    };
    row(["threads", "ours", "PyTorch default", "channels_last", "restructured"]);
    for line in steps {
        let Line { threads, spread, ratio, .. } = line;
        row([
            &format!("{threads}, ms"),
            &spread.ours.text(0),
            &spread.torch_default.text(0),
            &spread.torch_channels_last.text(0),
            &or_none(spread.torch_restructured, 0),
        ]);
        row([
            &format!("{threads}, ours/theirs"),
            "",
            &ratio.torch_default.text(2),
            &ratio.torch_channels_last.text(2),
            &or_none(ratio.torch_restructured, 2),
        ]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(steps: usize, turn: usize, threads: &[usize]) -> Options {
        let threads = threads.to_vec();
        Options { steps, turn, threads, methods: METHODS.to_vec(), accuracy: 0.9, accuracy_steps: 300 }
    }

    #[test]
    fn fewer_than_fifty_steps_or_five_turns_are_refused() {
        options(50, 5, &[1, 2]).validate().unwrap();
        let refused = |options: Options| options.validate().unwrap_err().to_string();
        assert_eq!(refused(options(49, 5, &[1])), "--steps is 49, allowed are 50 and more");
        assert!(refused(options(50, 11, &[1])).starts_with("--turn is 11, allowed are 1 to 10"));
        assert!(refused(options(50, 0, &[1])).starts_with("--turn is 0"));
        assert!(refused(options(50, 5, &[0])).starts_with("--threads is [0]"));
        assert!(refused(options(50, 5, &[])).starts_with("--threads is []"));
        for method in [SearchMethod::Random, SearchMethod::SuccessiveHalving] {
            let plain = Options { methods: vec![method], ..options(50, 5, &[1]) };
            assert!(refused(plain).starts_with(&format!("--method is {method}, which has no step")));
        }
        let all = Options { accuracy: 1.0, ..options(50, 5, &[1]) };
        assert_eq!(refused(all), "--accuracy is 1, allowed is 0 to below 1");
    }

    #[test]
    fn every_method_with_a_shared_network_is_compared_unless_others_are_named() {
        let all = options(50, 5, &[1]).methods;
        let compared: Vec<_> =
            SearchMethod::ALL.into_iter().filter(|method| !peers(*method).is_empty()).collect();
        assert_eq!(all, compared);
        assert!(all.iter().all(|method| peers(*method).starts_with(&["default", "channels_last"])));
    }

    #[test]
    fn losses_that_differ_by_more_than_rounding_are_refused() {
        let ours = [2.3, 2.2, 2.1];
        let close = [2.3, 2.2, 2.1 * 1.00001];
        let variants = ["ours", "default", "channels_last", "restructured"];
        let loss_difference = |losses: &[&[f64]]| loss_difference(&variants, losses);
        let difference = loss_difference(&[&ours, &close, &ours, &ours]).unwrap();
        assert!((difference - 1e-5).abs() < 1e-7, "{difference}");
        let error = loss_difference(&[&ours, &ours, &[2.3, 2.25, 2.1], &ours]).unwrap_err().to_string();
        assert!(
            error.starts_with("step 1: our loss is 2.2, that of PyTorch (channels_last) 2.25"),
            "{error}"
        );
        assert!(loss_difference(&[&ours, &ours[..2]]).is_err());
        assert!(loss_difference(&[&ours, &[2.3, 2.2, f64::NAN]]).is_err());
    }

    fn report(restructured: bool) -> Report {
        let mut turns = Turns::new(4);
        for _ in 0..10 {
            for (variant, ms) in [300.0, 600.0, 400.0, 375.0].into_iter().enumerate() {
                turns.push(variant, vec![ms; 5]).unwrap();
            }
        }
        let machine = Machine { cpu: "A CPU".to_owned(), cores: 2 };
        let steps = vec![line(2, &turns, restructured, 1e-6, "2.13.0".to_owned()).unwrap()];
        let methods = vec![OfMethod { method: SearchMethod::Darts, steps, to_accuracy: Vec::new() }];
        Report { machine, work: WORK.to_owned(), accuracy: 0.9, methods }
    }

    #[test]
    fn the_report_holds_medians_spreads_and_ratios_of_each_number_of_threads() {
        let value = serde_json::to_value(report(true)).unwrap();
        let line = &value["methods"][0]["steps"][0];
        for (key, expected) in [
            ("/threads", 2.0),
            ("/ours_ms", 300.0),
            ("/torch_default_ms", 600.0),
            ("/torch_channels_last_ms", 400.0),
            ("/torch_restructured_ms", 375.0),
            ("/spread/ours/low", 300.0),
            ("/spread/torch_restructured/count", 50.0),
            ("/ratio/torch_default/median", 0.5),
            ("/ratio/torch_channels_last/high", 0.75),
            ("/ratio/torch_restructured/median", 0.8),
            ("/ratio/torch_restructured/count", 10.0),
        ] {
            assert_eq!(line.pointer(key).and_then(serde_json::Value::as_f64), Some(expected), "{key}");
        }
    }

    #[test]
    fn the_table_shows_medians_and_ratios_with_their_spread() {
        let text = table(&report(true));
        assert!(text.contains("300 (300-300)") && text.contains("0.80 (0.80-0.80)"), "{text}");
        let text = table(&report(false));
        assert!(text.contains("0.75 (0.75-0.75)") && !text.contains("0.80"), "{text}");
        assert!(text.lines().last().unwrap().ends_with(" -"), "{text}");
    }
}
