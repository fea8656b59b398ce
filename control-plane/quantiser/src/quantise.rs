//! From an f32 graph to its INT8 form: look at the values inside, choose ranges and corrections by what comes out of it,
//! and leave in f32 what costs too much.

use crate::{
    affine::Affine,
    bias,
    calibrate::{self, Samples, Seen, answers},
    closeness::{Closeness, compare, decibels},
    equalise,
    net::Net,
    observe::Calibrator,
    scheme::{self, Compute, Scheme},
    weights::{WEIGHT_MAX, WEIGHT_MAX_REDUCED},
    write::{self, Numbers},
};
use runtime::Ort;
use shared::{job::TensorReport, wire::one_line};
use std::collections::{HashMap, HashSet};

/// Most samples on which nodes are compared one by one.
const SENSITIVITY_SAMPLES: usize = 16;

/// Why a graph has no INT8 form.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No node can run on integers.
    #[error(
        "the model has nothing to quantise: no convolution, Gemm or MatMul with constant f32 weights whose input is \
         finite"
    )]
    Nothing,
    /// The samples cannot be used.
    #[error("the calibration samples are not usable: {0}")]
    Samples(String),
    /// The f32 model gives NaN or infinity.
    #[error(
        "the f32 model gives values that are not finite on the calibration samples: are they what it expects?"
    )]
    NotFinite,
    /// With every node in f32 but the least sensitive one the bound is still broken.
    #[error(
        "no INT8 form keeps the bound of {bound_db} dB and an agreement of {agreement_min}: the best has {found_db:.1} dB \
         and {agreement:.3}; lower the bound, or run the f32 model"
    )]
    Bound {
        /// What was asked for.
        bound_db: f64,
        /// What was asked for.
        agreement_min: f64,
        /// Of the closest form.
        found_db: f64,
        /// Of the closest form.
        agreement: f64,
    },
    /// ONNX Runtime refused a model or failed on it.
    #[error("running the model for calibration failed")]
    Run(#[from] runtime::Error),
}

/// What an INT8 form has to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// 7-bit weights, for x86 without VNNI.
    pub reduce_range: bool,
    /// Least signal to noise of the output, in decibels.
    pub sqnr_min_db: f64,
    /// Least share of samples with the same top class, 0 to 1; zero where the output is no choice of a class.
    pub agreement_min: f64,
}

/// One way that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// Calibrator and corrections.
    pub way: Way,
    /// The model against the f32 one, over samples that gave no ranges where there are enough.
    pub closeness: Closeness,
}

/// How ranges and weights are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The rule of the ranges.
    pub calibrator: Calibrator,
    /// Whether channels were equalised across layers.
    pub equalised: bool,
    /// Whether biases were corrected.
    pub bias_corrected: bool,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.calibrator)?;
        for (applied, name) in
            [(self.equalised, "cross-layer equalisation"), (self.bias_corrected, "bias correction")]
        {
            if applied {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}

/// A node that stays f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Operator and name.
    pub node: String,
    /// Signal to noise of the output with this node alone on integers, in decibels.
    pub alone_db: f64,
}

/// An INT8 form.
#[derive(Clone, Debug)]
pub struct Quantised {
    /// The model's bytes.
    pub onnx: Vec<u8>,
    /// The way that was chosen.
    pub way: Way,
    /// Its closeness.
    pub closeness: Closeness,
    /// Every way that was tried, with all nodes on integers.
    pub tried: Vec<Tried>,
    /// Nodes with weights that stay f32, the most sensitive first.
    pub kept: Vec<Kept>,
    /// Nodes with weights that run on integers.
    pub integer_nodes: usize,
    /// One row an encoded value, in the order of the graph.
    pub tensors: Vec<TensorReport>,
}

/// Quantises `net`, whose one input takes `samples`. The first three quarters of them give the ranges, the rest says
/// which way is closest; of fewer than four all do both. The same samples give the same model.
///
/// # Errors
/// [`Error`].
pub fn quantise(net: &Net, samples: Samples<'_>, ort: &Ort, options: &Options) -> Result<Quantised, Error> {
    if samples.count() == 0 {
        return Err(Error::Samples("there are none".to_owned()));
    }
    let (ranged, held) =
        if samples.count() < 4 { (samples, samples) } else { samples.split(samples.count() * 3 / 4) };
    let (reference, shape) = answers(ort, &net.encode(), held)?;
    if reference.is_empty() || !reference.iter().all(|value| value.is_finite()) {
        return Err(Error::NotFinite);
    }
    let judge =
        Judge { ort, held, reference: &reference, width: shape.iter().skip(1).product::<usize>().max(1) };
    let weight_max = if options.reduce_range { WEIGHT_MAX_REDUCED } else { WEIGHT_MAX };
    let plain = Base::new(net.clone(), ranged, ort, weight_max)?;
    let mut tried = Vec::new();
    let mut best: Option<Tried> = None;
    let mut attempt = |base: &Base, way: Way| -> Result<Tried, Error> {
        let closeness = judge.of(&base.build(&base.computes, way)?.0)?;
        let this = Tried { way, closeness };
        // Of equals the earlier way.
        if best.as_ref().is_none_or(|best| closeness.sqnr_db > best.closeness.sqnr_db) {
            best = Some(this.clone());
        }
        tried.push(this.clone());
        Ok(best.clone().unwrap_or(this))
    };
    let way = |calibrator| Way { calibrator, equalised: false, bias_corrected: false };
    let mut chosen = attempt(&plain, way(Calibrator::MinMax))?;
    for calibrator in Calibrator::ALL.into_iter().skip(1) {
        chosen = attempt(&plain, way(calibrator))?;
    }
    let calibrator = chosen.way.calibrator;
    chosen = attempt(&plain, Way { bias_corrected: true, ..way(calibrator) })?;
    let equalised = match equalise::equalise(net, &plain.computes) {
        Some(net) => Some(Base::new(net, ranged, ort, weight_max)?),
        None => None,
    };
    if let Some(base) = &equalised {
        for bias_corrected in [false, true] {
            chosen = attempt(base, Way { equalised: true, bias_corrected, ..way(calibrator) })?;
        }
    }
    let base = match &equalised {
        Some(base) if chosen.way.equalised => base,
        _ => &plain,
    };
    // One sample alone breaks no bound: it may lie between two classes.
    #[expect(clippy::cast_precision_loss)]
    let all_but_one = 1.0 - 1.0 / held.count() as f64;
    let options = &Options { agreement_min: options.agreement_min.min(all_but_one), ..*options };
    let fallback = Fallback { base, judge: &judge, way: chosen.way, options };
    let (computes, kept, closeness) = fallback.find(chosen.closeness)?;
    let (onnx, scheme, affines) = base.build(&computes, chosen.way)?;
    let tensors = base.report(&scheme, &affines);
    let integer_nodes = computes.len();
    Ok(Quantised { onnx, way: chosen.way, closeness, tried, kept, integer_nodes, tensors })
}

/// The f32 model's answers, to which others are held.
struct Judge<'a> {
    ort: &'a Ort,
    held: Samples<'a>,
    reference: &'a [f32],
    /// Values of one answer.
    width: usize,
}

impl Judge<'_> {
    fn of(&self, model: &[u8]) -> Result<Closeness, Error> {
        self.of_first(model, self.held.count())
    }

    /// Over the first `count` samples.
    fn of_first(&self, model: &[u8], count: usize) -> Result<Closeness, Error> {
        let (found, _) = answers(self.ort, model, self.held.first(count))?;
        let reference = &self.reference[..found.len().min(self.reference.len())];
        Ok(compare(reference, &found, self.width))
    }
}

/// A graph with what was seen of it.
struct Base {
    net: Net,
    computes: Vec<Compute>,
    seen: Seen,
    weight_max: f32,
}

impl Base {
    fn new(net: Net, samples: Samples<'_>, ort: &Ort, weight_max: f32) -> Result<Self, Error> {
        let mut computes = scheme::computes(&net);
        let names: Vec<String> =
            scheme::scheme(&net, &computes).values.into_iter().map(|(name, _)| name).collect();
        let seen = calibrate::look(&net, &names, &computes, samples, ort)?;
        // A node stays f32 where a value at it is not finite, such as the minus infinity of a mask.
        let finite = |name: &str| seen.values.get(name).is_none_or(crate::observe::Observer::is_finite);
        let unfit: HashSet<&str> = names.iter().map(String::as_str).filter(|name| !finite(name)).collect();
        computes.retain(|compute| {
            !unfit.contains(compute.input.as_str()) && !unfit.contains(compute.end.as_str())
        });
        let left = scheme::scheme(&net, &computes);
        if computes.is_empty() || left.values.iter().any(|(name, _)| !finite(name)) {
            return Err(Error::Nothing);
        }
        Ok(Self { net, computes, seen, weight_max })
    }

    /// The model in which these nodes run on integers.
    fn build(&self, computes: &[Compute], way: Way) -> Result<(Vec<u8>, Scheme, Vec<Affine>), Error> {
        let scheme = scheme::scheme(&self.net, computes);
        let mut ranges: Vec<Option<(f32, f32)>> = vec![None; scheme.encodings()];
        for (name, group) in &scheme.values {
            let Some(observer) = self.seen.values.get(name) else { continue };
            let (low, high) = observer.range(way.calibrator);
            let range = ranges[*group].get_or_insert((low, high));
            *range = (range.0.min(low), range.1.max(high));
        }
        let affines = ranges.into_iter().map(|range| {
            let (low, high) = range.unwrap_or((0.0, 0.0));
            Affine::from_range(low, high).map_err(Error::Samples)
        });
        let affines: Vec<Affine> = affines.collect::<Result<_, _>>()?;
        let sources: HashMap<&str, Affine> =
            scheme.values.iter().map(|(name, group)| (name.as_str(), affines[*group])).collect();
        let bias = if way.bias_corrected {
            bias::corrections(&self.net, computes, &self.seen.means, &sources, self.weight_max)
        } else {
            HashMap::new()
        };
        let numbers = Numbers { affines: &affines, weight_max: self.weight_max, bias: &bias };
        let onnx = write::write(&self.net, &scheme, numbers).encode();
        Ok((onnx, scheme, affines))
    }

    fn report(&self, scheme: &Scheme, affines: &[Affine]) -> Vec<TensorReport> {
        let rows = scheme.values.iter().filter_map(|(name, group)| {
            let affine = affines[*group];
            let (signal, noise) = self.seen.values.get(name)?.signal_and_noise(affine);
            Some(TensorReport {
                name: one_line(name),
                low: affine.low(),
                high: affine.high(),
                scale: affine.scale,
                zero_point: affine.zero_point,
                sqnr_db: decibels(signal, noise),
            })
        });
        rows.collect()
    }
}

/// The search for the nodes that have to stay f32.
struct Fallback<'a> {
    base: &'a Base,
    judge: &'a Judge<'a>,
    way: Way,
    options: &'a Options,
}

impl Fallback<'_> {
    /// The nodes that may run on integers, those that stay f32, and how close the model is then. `all` is the closeness
    /// with all nodes on integers.
    fn find(&self, all: Closeness) -> Result<(Vec<Compute>, Vec<Kept>, Closeness), Error> {
        let computes = &self.base.computes;
        if self.keeps(all) {
            return Ok((computes.clone(), Vec::new(), all));
        }
        let order = self.by_sensitivity()?;
        let without = |count: usize| -> Vec<Compute> {
            let kept: HashSet<usize> = order.iter().take(count).map(|(index, _)| *index).collect();
            let rest = computes.iter().enumerate().filter(|(index, _)| !kept.contains(index));
            rest.map(|(_, compute)| compute.clone()).collect()
        };
        let close = |count: usize| self.judge.of(&self.base.build(&without(count), self.way)?.0);
        // Doubled until it is enough, then halved between the last two.
        let most = computes.len() - 1;
        let (mut too_few, mut enough) = (0, 1.min(most));
        let mut closeness = close(enough)?;
        while !self.keeps(closeness) {
            if enough == most {
                return Err(Error::Bound {
                    bound_db: self.options.sqnr_min_db,
                    agreement_min: self.options.agreement_min,
                    found_db: closeness.sqnr_db,
                    agreement: closeness.agreement,
                });
            }
            too_few = enough;
            enough = (enough * 2).min(most);
            closeness = close(enough)?;
        }
        while enough - too_few > 1 {
            let middle = usize::midpoint(too_few, enough);
            let found = close(middle)?;
            if self.keeps(found) {
                (enough, closeness) = (middle, found);
            } else {
                too_few = middle;
            }
        }
        let kept = order.iter().take(enough).map(|(index, alone_db)| {
            let node = &self.base.net.graph.node[computes[*index].node];
            Kept { node: one_line(&node.title()), alone_db: *alone_db }
        });
        Ok((without(enough), kept.collect(), closeness))
    }

    fn keeps(&self, closeness: Closeness) -> bool {
        closeness.sqnr_db >= self.options.sqnr_min_db && closeness.agreement >= self.options.agreement_min
    }

    /// The nodes by what each costs alone, the most sensitive first.
    fn by_sensitivity(&self) -> Result<Vec<(usize, f64)>, Error> {
        let mut order = Vec::new();
        for (index, compute) in self.base.computes.iter().enumerate() {
            let (model, ..) = self.base.build(std::slice::from_ref(compute), self.way)?;
            let closeness = self.judge.of_first(&model, SENSITIVITY_SAMPLES)?;
            order.push((index, closeness.sqnr_db));
        }
        // Stable: of equals the earlier node.
        order.sort_by(|a, b| a.1.total_cmp(&b.1));
        Ok(order)
    }
}

#[cfg(test)]
mod tests;
