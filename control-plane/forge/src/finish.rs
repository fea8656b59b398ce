//! From a trained network to measured files: fold, quantise, check on both runtimes, time.

mod alarm;
mod fallback;
mod measure;
mod steps;

use crate::{
    batch::picked,
    compress::Trainable,
    data::{Dataset, Split, balance},
    graph::Graph,
    network::Network,
    onnx,
    params::{channels_last, to_vec},
    quantise::{self, Candidate, quantise},
    seeds::{self, Purpose},
};
use measure::{Measured, measure};
use runtime::{Golden, LoadOptions, Mismatch, Ort, Runnable, Runtime, Tract, measure_us};
use shared::{
    board::{Board, RuntimeName},
    job::{
        CompressionReport, DatasetSchema, LatencyTable, Metric, MetricReport, ModelForm, ModelReport,
        SequenceReport, TensorReport,
    },
    limits,
    manifest::{Alarm, Head, MODEL_FILE},
};
use std::{path::Path, sync::Arc};
use steps::Known;
use tch::Tensor;

/// Golden samples in a result.
pub const GOLDEN_SAMPLES: usize = 16;
/// How far the best class of a golden sample is ahead of the next, so that rounding cannot change the answer.
const GOLDEN_MARGIN: f32 = 0.3;
/// Training samples that ranges are taken from.
pub(crate) const CALIBRATION_SAMPLES: usize = 512;
/// Samples of one run in an accuracy test.
const ACCURACY_BATCH: usize = 50;
/// Largest difference that folding and another runtime may make to an f32 probability.
const FP32_DIFFERENCE_MAX: f32 = 2e-3;
/// Largest difference that 8 bits may make to a golden probability.
const INT8_DIFFERENCE_MAX: f32 = 0.25;
/// Least tolerance that a manifest gets: other processors round otherwise.
pub(crate) const TOLERANCE_MIN: f32 = 0.05;
/// How much less accurate than FP32, relative to it, an INT8 model may be before other ranges are tried; what stays
/// worse gets a remark.
const INT8_LOSS_MAX: f64 = 0.01;
/// The same, before the model is refused.
const INT8_LOSS_REFUSED: f64 = 0.05;
/// Right answers that INT8 must have lost for a refusal: fewer are within chance on a small test split.
const INT8_LOST_MIN: f64 = 10.0;
/// Training samples on which ranges are compared by accuracy.
const CHOICE_SAMPLES: usize = 2000;
/// Test samples of text that a model runs on tract.
const TRACT_TEXT_SAMPLES: usize = 256;
/// What `check` allows where no report names a tolerance.
pub const TOLERANCE_DEFAULT: f32 = INT8_DIFFERENCE_MAX;

/// Why a trained network gave no files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The graph is not possible; the weights are not finite.
    #[error(transparent)]
    Graph(#[from] crate::graph::Error),
    /// ONNX could not be written.
    #[error(transparent)]
    Onnx(#[from] onnx::Error),
    /// Quantisation failed.
    #[error(transparent)]
    Quantise(#[from] quantise::Error),
    /// A runtime failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// A model disagrees with the trained network.
    #[error("{file} on {runtime} disagrees with the trained network and is refused")]
    Disagrees {
        /// The exported file.
        file: &'static str,
        /// Where it ran.
        runtime: &'static str,
        /// How.
        #[source]
        source: Mismatch,
    },
    /// The constants of the exported model break the board's limit, which their estimate kept.
    #[error(
        "model.onnx holds {needed} bytes of weights, board {board} allows limits.weight_bytes_max = {allowed}"
    )]
    TooLarge {
        /// The board's id.
        board: String,
        /// What it allows.
        allowed: u64,
        /// What the model takes.
        needed: u64,
    },
    /// INT8 costs too many right answers.
    #[error(
        "the INT8 model answers {int8:.4} of the test split right, the FP32 model {fp32:.4}: it is refused; more \
         train_epochs or channels may help"
    )]
    Inaccurate {
        /// Accuracy of the FP32 model, 0 to 1.
        fp32: f64,
        /// Accuracy of the INT8 model on the worse runtime, 0 to 1.
        int8: f64,
    },
    /// INT8 costs too much of what tells anomalies from normal samples.
    #[error(
        "the INT8 model tells anomalies from normal samples with an AUROC of {int8:.4}, the FP32 model with {fp32:.4}: it is \
         refused; more train_epochs or channels may help"
    )]
    Blind {
        /// Of the FP32 model, 0 to 1.
        fp32: f64,
        /// Of the INT8 model on the worse runtime, 0 to 1.
        int8: f64,
    },
    /// The model takes more time or energy than the board's target on a processor of the board's own kind.
    #[error(
        "one inference takes {needed:.0} {unit} on this {arch} machine, board {board} allows {key} = {allowed}: \
         lower the budget's channels, cells or nodes, or raise the limit",
        arch = std::env::consts::ARCH
    )]
    TooSlow {
        /// The board's id.
        board: String,
        /// Which limit.
        key: &'static str,
        /// What it allows.
        allowed: u64,
        /// What the best runtime takes that the board allows.
        needed: f64,
        /// Of both.
        unit: &'static str,
    },
    /// No golden samples could be made.
    #[error("no golden samples")]
    Golden(#[source] Mismatch),
}

/// The exported files with what was measured on them.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The model for the board.
    pub onnx_int8: Vec<u8>,
    /// The same before quantisation.
    pub onnx_fp32: Vec<u8>,
    /// Inputs, and the trained network's answers to them.
    pub golden: Golden,
    /// What was measured.
    pub report: ModelReport,
    /// The steps to it, measured.
    pub compression: CompressionReport,
    /// Of a model that finds anomalies.
    pub alarm: Option<Alarm>,
}

/// A smaller form of the trained network, and how it came about.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// The network with all changes of its structure; of an INT8 form the weights that are rounded.
    pub graph: Graph,
    /// The model for the board.
    pub onnx: Vec<u8>,
    /// What it is.
    pub form: ModelForm,
    /// How its numbers became small, for people.
    pub way: String,
    /// As in [`ModelReport`].
    pub tensors: Vec<TensorReport>,
    /// The network after every change of its structure: what was done, and what came out.
    pub structures: Vec<(String, Graph)>,
    /// The sequences that were tried.
    pub tried: Vec<SequenceReport>,
    /// For people.
    pub remarks: Vec<String>,
    /// Of all of it.
    pub seconds: f64,
    /// How much of the right answers it may cost, 0 to 1.
    pub loss_max: f64,
}

/// What an export has to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The board that the model is for.
    pub board: &'a Board,
    /// Of the samples that are drawn.
    pub seed: u64,
    /// Whether the training was cut short by its time: what INT8 costs such a network is said, and no reason to refuse it. A
    /// poor model that says so is of more use than none.
    pub cut_short: bool,
}

/// Exports `net`, which is on the processor, and measures it on the test split: the form of it that is given, or its INT8 form by calibration alone.
/// `ort` calibrates and measures. By `held`, normal samples that were not trained on, a model that finds anomalies gets its
/// line.
///
/// # Errors
/// A model that disagrees with the network on either runtime, that INT8 makes useless, or that breaks the board's
/// limits; and whatever stands in the way of finding out.
pub fn export(
    net: &Network,
    compressed: Option<Compressed>,
    set: &Dataset,
    terms: Terms<'_>,
    ort: &Ort,
    held: Option<&Split>,
) -> Result<Exported, Error> {
    let Terms { board, seed, cut_short } = terms;
    let graph = net.to_graph()?;
    let onnx_fp32 = onnx::write_f32(&graph)?;
    let reduce_range = crate::import::saturates(board);
    let some = part(&set.train, &set.schema.shape, CHOICE_SAMPLES, seed);
    let each = graph.input_shape().elements();
    let calibration = &some.samples[..some.samples.len().min(CALIBRATION_SAMPLES * each)];
    let candidates = quantise(&graph, &onnx_fp32, calibration, ort, reduce_range)?;
    let plain = choose(candidates, &onnx_fp32, &some, set.schema.labels.len(), ort)?;
    let way = format!(
        "calibrated by {}, {:.1} dB over {} training samples",
        plain.calibrator,
        plain.closeness.sqnr_db,
        calibration.len() / each
    );
    let (onnx_fp32, line_fp32) = alarm::drawn(onnx_fp32, held, ort)?;
    let (plain_onnx, plain_line) = alarm::drawn(plain.onnx_int8, held, ort)?;
    let plain_row = (format!("plain INT8, {way}"), graph.clone(), plain_onnx.clone());
    let mut rows = vec![("FP32 as trained".to_owned(), graph.clone(), onnx_fp32.clone())];
    let mut answers: Box<dyn Fn(&Tensor) -> Tensor> = Box::new(|x| net.probabilities(x));
    let lowered = |x: &Tensor| alarm::lowered(answers(x), line_fp32);
    let of_net = golden(&lowered, set, seed).map_err(Error::Golden)?;
    let is_asked_for = compressed.is_some();
    let (mut chosen, mut line) = match compressed {
        Some(mut compressed) => {
            for (step, graph) in &compressed.structures {
                let (onnx, _) = alarm::drawn(onnx::write_f32(graph)?, held, ort)?;
                rows.push((format!("FP32, {step}"), graph.clone(), onnx));
            }
            rows.push(plain_row);
            let line;
            (compressed.onnx, line) = alarm::drawn(compressed.onnx, held, ort)?;
            let named = format!("{}, {}", compressed.form.name(), compressed.way);
            rows.push((named, compressed.graph.clone(), compressed.onnx.clone()));
            let small = Trainable::new(&compressed.graph).on_cpu();
            answers = Box::new(move |x| small.probabilities(x));
            (compressed, line)
        }
        None => {
            rows.push(plain_row);
            let compressed = Compressed {
                graph,
                onnx: plain_onnx,
                form: ModelForm::Int8,
                remarks: vec![way.clone()],
                way,
                tensors: plain.tensors,
                structures: Vec::new(),
                tried: Vec::new(),
                seconds: 0.0,
                loss_max: INT8_LOSS_MAX,
            };
            (compressed, plain_line)
        }
    };
    check_size(&chosen.onnx, board)?;
    let sure =
        |line| golden(&|x: &Tensor| alarm::lowered(answers(x), line), set, seed).map_err(Error::Golden);
    let mut golden = sure(line)?;

    let of_fp32 = agreeing("model-fp32.onnx", &onnx_fp32, &of_net, FP32_DIFFERENCE_MAX, ort)?;
    let of_chosen = match agreeing(MODEL_FILE, &chosen.onnx, &golden, INT8_DIFFERENCE_MAX, ort) {
        Err(Error::Disagrees { source, .. }) if !is_asked_for => {
            chosen = fallback::half(chosen.graph, &source)?;
            (chosen.onnx, line) = alarm::drawn(chosen.onnx, held, ort)?;
            rows.push((chosen.way.clone(), chosen.graph.clone(), chosen.onnx.clone()));
            check_size(&chosen.onnx, board)?;
            golden = sure(line)?;
            agreeing(MODEL_FILE, &chosen.onnx, &golden, INT8_DIFFERENCE_MAX, ort)?
        }
        found => found?,
    };
    let difference_max = of_fp32.difference_max.max(of_chosen.difference_max);
    let ([tract_fp32, ort_fp32], [tract_int8, ort_int8]) = (of_fp32.models, of_chosen.models);

    let mut remarks = chosen.remarks;
    let us = |model: &Arc<dyn Runnable>| measure_us(model.as_ref(), golden.input());
    let us_per_inference = LatencyTable {
        tract_fp32: Some(us(&tract_fp32)?),
        tract_int8: Some(us(&tract_int8)?),
        ort_fp32: us(&ort_fp32)?,
        ort_int8: us(&ort_int8)?,
    };
    if chosen.form == ModelForm::Int8 {
        remarks.extend(where_int8_does_not_pay(&us_per_inference));
    }
    let balanced = balance::weights(&set.train.labels, set.schema.labels.len()).is_some();
    let on =
        |model: &Arc<dyn Runnable>, count| measure(model.as_ref(), &set.test, &set.schema, balanced, count);
    let (fp32, int8) = (on(&ort_fp32, usize::MAX)?, on(&ort_int8, usize::MAX)?);
    // Text runs on tract at a fraction of the speed, and one sample a character.
    let tract = on(&tract_int8, if set.schema.text.is_some() { TRACT_TEXT_SAMPLES } else { usize::MAX })?;
    let accuracy_fp32 = fp32.accuracy();
    let accuracy_int8 = int8.accuracy();
    let accuracy_int8_tract = tract.accuracy();
    let refused_from = if cut_short { f64::INFINITY } else { INT8_LOSS_REFUSED.max(chosen.loss_max) };
    if let Some(fp32) = fp32.metric(Metric::Auroc) {
        // Right answers are those at one line among many, which was drawn for each form by itself.
        let found = [&int8, &tract].into_iter().filter_map(|model| model.metric(Metric::Auroc));
        judge_auroc(fp32, found.fold(f64::INFINITY, f64::min), refused_from)?;
    } else {
        let mut judged = judge_accuracy(accuracy_fp32, accuracy_int8, int8.count(), refused_from)?;
        if accuracy_int8_tract < accuracy_int8 {
            let same = fp32.accuracy_of(tract.count());
            judged = judge_accuracy(same, accuracy_int8_tract, tract.count(), refused_from)?.or(judged);
        }
        remarks.extend(judged);
    }
    let metrics = compared(&fp32, &int8);
    remarks.extend(metrics.iter().filter_map(judge_metric));
    remarks.extend(judge_latency(&us_per_inference, board)?);
    let us = &us_per_inference;
    let of_fp32 = Known { accuracy: accuracy_fp32, us_ort: us.ort_fp32, us_tract: us.tract_fp32 };
    let of_last = Known { accuracy: accuracy_int8, us_ort: us.ort_int8, us_tract: us.tract_int8 };
    let last = rows.len() - 1;
    let measured = rows.iter().enumerate().map(|(index, row)| {
        let known = [(0, of_fp32), (last, of_last)].into_iter().find(|(of, _)| *of == index);
        steps::measure(row, known.map(|(_, known)| known), &golden, set, ort)
    });
    let steps = measured.collect::<Result<Vec<_>, _>>()?;
    remarks.extend(steps::where_compression_does_not_pay(&steps));
    let report = ModelReport {
        form: chosen.form,
        parameters: chosen.graph.parameters() as u64,
        macs: chosen.graph.macs(),
        activation_bytes: chosen.graph.peak_activation_bytes() as u64,
        accuracy_fp32: Some(accuracy_fp32),
        accuracy_int8: Some(accuracy_int8),
        accuracy_int8_tract: Some(accuracy_int8_tract),
        bytes_fp32_onnx: onnx_fp32.len() as u64,
        bytes_int8_onnx: chosen.onnx.len() as u64,
        us_per_inference,
        golden_difference_max: difference_max,
        golden_tolerance: (difference_max * 2.0).clamp(TOLERANCE_MIN, INT8_DIFFERENCE_MAX),
        metrics,
        tensors: chosen.tensors,
        remarks,
    };
    let compression = CompressionReport { steps, tried: chosen.tried, seconds: chosen.seconds };
    Ok(Exported { onnx_int8: chosen.onnx, onnx_fp32, golden, report, compression, alarm: alarm::told(held) })
}

/// The closest candidate, unless it costs too many right answers on training samples: then the first that does not, or
/// the most accurate.
fn choose(
    candidates: Vec<Candidate>,
    onnx_fp32: &[u8],
    some: &Split,
    classes: usize,
    ort: &Ort,
) -> Result<Candidate, Error> {
    let on_ort = |bytes: &[u8]| -> Result<f64, Error> {
        Ok(accuracy(ort.load(bytes, &LoadOptions::default())?.as_ref(), some, classes)?)
    };
    let fp32 = on_ort(onnx_fp32)?;
    let mut best: Option<(f64, Candidate)> = None;
    for candidate in candidates {
        let found = on_ort(&candidate.onnx_int8)?;
        if found >= fp32 * (1.0 - INT8_LOSS_MAX) {
            return Ok(candidate);
        }
        if best.as_ref().is_none_or(|(most, _)| found > *most) {
            best = Some((found, candidate));
        }
    }
    let none = || quantise::Error::Samples("no rule was tried".to_owned());
    Ok(best.map(|(_, candidate)| candidate).ok_or_else(none)?)
}

/// A remark where INT8 costs more right answers of `count` than it should; an error where it costs a share of more than
/// `refused_from`.
fn judge_accuracy(fp32: f64, int8: f64, count: usize, refused_from: f64) -> Result<Option<String>, Error> {
    let lost = fp32 - int8;
    if lost > fp32 * refused_from && lost * count as f64 >= INT8_LOST_MIN {
        return Err(Error::Inaccurate { fp32, int8 });
    }
    Ok((lost > fp32 * INT8_LOSS_MAX).then(|| {
        format!(
            "INT8 is more than {:.0} % less accurate than FP32: {int8:.4} against {fp32:.4}",
            INT8_LOSS_MAX * 100.0
        )
    }))
}

/// An error where INT8 costs a share of more than `refused_from` of what FP32 has beyond chance.
fn judge_auroc(fp32: f64, int8: f64, refused_from: f64) -> Result<(), Error> {
    const CHANCE: f64 = 0.5;
    if fp32 > CHANCE && int8 - CHANCE < (fp32 - CHANCE) * (1.0 - refused_from) {
        return Err(Error::Blind { fp32, int8 });
    }
    Ok(())
}

/// A remark for each runtime on which INT8 is not faster than FP32.
pub(crate) fn where_int8_does_not_pay(table: &LatencyTable) -> impl Iterator<Item = String> + use<> {
    let pairs = [
        ("tract", table.tract_fp32.zip(table.tract_int8)),
        ("ONNX Runtime", Some((table.ort_fp32, table.ort_int8))),
    ];
    let slower = |(name, pair): (&str, Option<(f64, f64)>)| {
        let (fp32, int8) = pair.filter(|(fp32, int8)| int8 >= fp32)?;
        Some(format!("INT8 is not faster than FP32 on {name} here: {int8:.0} against {fp32:.0} us"))
    };
    pairs.into_iter().filter_map(slower)
}

/// A remark where the INT8 model takes more time or energy here than the board allows, on the best runtime that the board allows. A
/// worker is at least as fast as a board with its kind of processor, so there it is an error.
pub(crate) fn judge_latency(table: &LatencyTable, board: &Board) -> Result<Option<String>, Error> {
    let us = |runtime: &RuntimeName| match runtime {
        RuntimeName::OnnxRuntime => Some(table.ort_int8),
        RuntimeName::Tract => table.tract_int8,
    };
    let us = board.runtime.allowed.iter().filter_map(us).fold(f64::INFINITY, f64::min);
    // Where nothing that the board allows runs the model, there is no time to judge.
    if us.is_infinite() {
        return Ok(None);
    }
    let limits = &board.limits;
    let limits = [
        ("limits.latency_us_max", Some(us), Some(limits.latency_us_max), "us"),
        ("limits.energy_uj_max", board.energy_uj(us), limits.energy_uj_max, "uJ"),
    ];
    let broken = limits.into_iter().find_map(|(key, needed, allowed, unit)| {
        let (needed, allowed) = needed.zip(allowed)?;
        (needed > allowed as f64).then_some((key, needed, allowed, unit))
    });
    let Some((key, needed, allowed, unit)) = broken else { return Ok(None) };
    let board_id = board.id.to_string();
    let mut target = board.target.split('-');
    if target.next() == Some(std::env::consts::ARCH) && target.any(|part| part == std::env::consts::OS) {
        return Err(Error::TooSlow { board: board_id, key, allowed, needed, unit });
    }
    Ok(Some(format!(
        "one inference takes {needed:.0} {unit} even here, board {board_id} allows {key} = {allowed}"
    )))
}

/// A model on tract and on ONNX Runtime, where it gives its golden outputs.
struct Agreeing {
    models: [Arc<dyn Runnable>; 2],
    /// Largest difference from a golden output.
    difference_max: f32,
}

/// Loads a model on both runtimes and checks it there.
fn agreeing(
    file: &'static str,
    model: &[u8],
    golden: &Golden,
    tolerance: f32,
    ort: &Ort,
) -> Result<Agreeing, Error> {
    let on = |runtime: &dyn Runtime| {
        let model = runtime.load(model, &LoadOptions::default())?;
        let report = golden.check(model.as_ref(), tolerance).map_err(|source| Error::Disagrees {
            file,
            runtime: runtime.name(),
            source,
        })?;
        Ok::<_, Error>((model, report.difference_max))
    };
    let ((on_tract, tract_difference), (on_ort, ort_difference)) = (on(&Tract)?, on(ort)?);
    Ok(Agreeing { models: [on_tract, on_ort], difference_max: tract_difference.max(ort_difference) })
}

/// That the constants of a model keep the board's limit.
fn check_size(model: &[u8], board: &Board) -> Result<(), Error> {
    let (needed, allowed) = (onnx::constant_bytes(model)?, board.limits.weight_bytes_max);
    if needed > allowed {
        return Err(Error::TooLarge { board: board.id.to_string(), allowed, needed });
    }
    Ok(())
}

/// The measures of a task, in f32 and in INT8.
fn compared(fp32: &Measured, int8: &Measured) -> Vec<MetricReport> {
    let pairs = fp32.metrics.iter().zip(&int8.metrics);
    pairs
        .map(|((metric, fp32), (_, int8))| MetricReport { metric: *metric, fp32: *fp32, int8: *int8 })
        .collect()
}

/// A remark where INT8 costs more of a measure than it should.
fn judge_metric(found: &MetricReport) -> Option<String> {
    let MetricReport { metric, fp32, int8 } = *found;
    metric.is_worse(int8, fp32, INT8_LOSS_MAX).then(|| {
        format!(
            "INT8 is more than {:.0} % worse than FP32: {metric} {int8:.4} against {fp32:.4}",
            INT8_LOSS_MAX * 100.0
        )
    })
}

/// Up to `count` random training samples, as numbers.
fn part(train: &Split, shape: &[usize], count: usize, seed: u64) -> Split {
    let mut order: Vec<usize> = (0..train.len()).collect();
    seeds::shuffle(&mut order, &mut seeds::stream(seed, Purpose::Samples, 0));
    order.truncate(count);
    picked(train, shape, order)
}

/// Random test samples that the network is sure of (the surest, where too few are), with its answers.
fn golden(answers: &dyn Fn(&Tensor) -> Tensor, set: &Dataset, seed: u64) -> Result<Golden, Mismatch> {
    let shape = &set.schema.shape;
    let each: usize = shape.iter().product();
    let mut order: Vec<usize> = (0..set.test.len()).collect();
    seeds::shuffle(&mut order, &mut seeds::stream(seed, Purpose::Samples, 1));
    order.truncate(GOLDEN_SAMPLES * 16);
    let mut input: Vec<f32> = Vec::new();
    order.iter().for_each(|index| set.test.values(*index, shape, &mut input));
    let (c, rest) = (shape[0] as i64, &shape[1..]);
    let (h, w) = match *rest {
        [h, w] => (h as i64, w as i64),
        _ => (1, (each / shape[0].max(1)) as i64),
    };
    let x = channels_last(&Tensor::from_slice(&input).reshape([-1, c, h, w]));
    let output = to_vec(&answers(&x));
    let outputs = output.len() / order.len().max(1);
    surest(shape, &input, &output, outputs, |row| least_margin(row, &set.schema))
}

/// How far the best label is ahead of the next, where that is least of the class and all positions.
fn least_margin(row: &[f32], schema: &DatasetSchema) -> f32 {
    let (class, mut behind) = row.split_at(schema.labels.len().min(row.len()));
    let mut least = margin(class);
    for Head { positions, .. } in &schema.heads {
        let (this, rest) = behind.split_at(behind.len() / schema.heads.len().max(1));
        for at in 0..*positions {
            let column: Vec<f32> = this.iter().skip(at).step_by((*positions).max(1)).copied().collect();
            least = least.min(margin(&column));
        }
        behind = rest;
    }
    least
}

/// How far the best label is ahead of the next.
pub(crate) fn margin(row: &[f32]) -> f32 {
    let (mut best, mut next) = (0f32, 0f32);
    for value in row {
        if *value > best {
            (best, next) = (*value, best);
        } else {
            next = next.max(*value);
        }
    }
    best - next
}

/// Golden samples of `shape` from answers of `classes` values each: the first that are sure by their margin, or else the
/// surest.
pub(crate) fn surest(
    shape: &[usize],
    input: &[f32],
    output: &[f32],
    classes: usize,
    margin: impl Fn(&[f32]) -> f32,
) -> Result<Golden, Mismatch> {
    let each: usize = shape.iter().product();
    let mut rows: Vec<(f32, usize)> =
        output.chunks_exact(classes).map(margin).enumerate().map(|(row, margin)| (margin, row)).collect();
    // Stable: among the sure ones the order stays.
    rows.sort_by(|a, b| b.0.min(GOLDEN_MARGIN).total_cmp(&a.0.min(GOLDEN_MARGIN)));
    rows.truncate(GOLDEN_SAMPLES);
    let pick = |values: &[f32], each: usize| -> Vec<f32> {
        rows.iter().flat_map(|(_, row)| &values[row * each..][..each]).copied().collect()
    };
    Golden::new(shape.to_vec(), pick(input, each), pick(output, classes))
}

/// Share of right classes on a split of numbers; of an answer the first `classes` values are theirs.
///
/// # Errors
/// The runtime failed.
pub fn accuracy(model: &dyn Runnable, split: &Split, classes: usize) -> Result<f64, runtime::Error> {
    let (each, outputs) = (model.input().elements(), model.output().elements());
    let classes = classes.min(outputs);
    let (mut right, mut samples, mut answers) = (0usize, Vec::new(), Vec::new());
    for (batch, labels) in split.labels.chunks(ACCURACY_BATCH).enumerate() {
        samples.clear();
        let first = batch * ACCURACY_BATCH;
        (first..first + labels.len()).for_each(|sample| split.values(sample, &[each], &mut samples));
        model.run_into(&samples, labels.len(), &mut answers)?;
        for (answer, label) in answers.chunks_exact(outputs).zip(labels) {
            right += usize::from(runtime::golden::argmax(&answer[..classes]) as i64 == *label);
        }
    }
    Ok(right as f64 / split.len().max(1) as f64)
}

/// One runtime's answer to `check`.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Its name.
    pub runtime: &'static str,
    /// Largest difference from a golden output.
    pub difference_max: f32,
}

/// Why a folder does not pass [`check`].
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A file is missing or cannot be read.
    #[error("{0}")]
    Input(String),
    /// A model is wrong.
    #[error("{0}")]
    Wrong(String),
}

/// Runs the golden inputs of a result or bundle folder on tract and ONNX Runtime.
///
/// # Errors
/// Files that are missing, and a model that disagrees on either runtime.
pub fn check(folder: &Path, tolerance: Option<f32>) -> Result<Vec<Checked>, CheckError> {
    let read = |name: &str, limit: usize| {
        let path = folder.join(name);
        let text =
            |error: std::io::Error| CheckError::Input(format!("{}: cannot be read: {error}", path.display()));
        let size = std::fs::metadata(&path).map_err(text)?.len();
        if size > limit as u64 {
            return Err(CheckError::Input(format!(
                "{}: {size} bytes, at most {limit} are read",
                path.display()
            )));
        }
        std::fs::read(&path).map_err(text)
    };
    let model = read(MODEL_FILE, runtime::MODEL_BYTES_MAX)?;
    let golden = read(shared::manifest::GOLDEN_FILE, runtime::golden::GOLDEN_BYTES_MAX)?;
    let named = |name: &str, error: &dyn std::fmt::Display| {
        CheckError::Wrong(format!("{}: {error}", folder.join(name).display()))
    };
    onnx::inspect(&model).map_err(|error| named(MODEL_FILE, &error))?;
    let golden = Golden::read(&golden).map_err(|error| named(shared::manifest::GOLDEN_FILE, &error))?;
    let report = if folder.join(shared::job::REPORT_FILE).is_file() {
        let text = read(shared::job::REPORT_FILE, limits::REPORT_BYTES_MAX)?;
        // A report of another kind says nothing here.
        serde_json::from_slice::<shared::job::JobReport>(&text).ok()
    } else {
        None
    };
    let told = report.as_ref().map_or(TOLERANCE_DEFAULT, |report| report.model.golden_tolerance);
    let tolerance = tolerance.unwrap_or(told);
    // A model from elsewhere may be one that tract does not run; then its report says so.
    let imported = |report: &shared::job::JobReport| {
        report.import.is_some() && report.model.us_per_inference.tract_int8.is_none()
    };
    let without_tract = report.as_ref().is_some_and(imported);
    let ort = Ort::open(None).map_err(|error| CheckError::Input(error.to_string()))?;
    let runtimes: [&dyn Runtime; 2] = [&Tract, &ort];
    let mut passed = Vec::new();
    for runtime in runtimes.into_iter().skip(usize::from(without_tract)) {
        let wrong = |error: &dyn std::fmt::Display| {
            let text = format!("on {}: {error}", runtime.name());
            named(MODEL_FILE, &text)
        };
        let loaded = runtime.load(&model, &LoadOptions::default()).map_err(|error| wrong(&error))?;
        let report = golden.check(loaded.as_ref(), tolerance).map_err(|error| wrong(&error))?;
        passed.push(Checked { runtime: runtime.name(), difference_max: report.difference_max });
    }
    Ok(passed)
}

#[cfg(test)]
mod tests;
