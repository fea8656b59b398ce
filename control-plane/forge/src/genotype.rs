//! What a search finds: the operations of a cell, and the network that repeats it.

use crate::{answer::Answer, graph::Shape, layers::Reach};
use serde::{Deserialize, Serialize};

/// Axes that a network slides over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dim {
    /// `[C, L]`.
    Series,
    /// `[C, H, W]`.
    Image,
}

/// A candidate operation of an edge. All keep the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A dense convolution (3x3; 3 in one dimension) with BatchNorm.
    Conv,
    /// A depthwise convolution (5x5; 15 in one dimension), then a pointwise one with BatchNorm.
    SepConv,
    /// Maximum over 3.
    MaxPool,
    /// Mean over 3, padding counted.
    AvgPool,
    /// The value itself.
    Skip,
    /// Nothing.
    Zero,
}

impl Operation {
    /// In the order of the columns of the architecture weights.
    pub const ALL: [Self; 6] =
        [Self::Conv, Self::SepConv, Self::MaxPool, Self::AvgPool, Self::Skip, Self::Zero];

    /// Those that a cell may consist of.
    pub const REAL: [Self; 5] = [Self::Conv, Self::SepConv, Self::MaxPool, Self::AvgPool, Self::Skip];

    /// Column in the architecture weights.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Taps along one axis, 1 where there is no window.
    pub fn kernel(self, dim: Dim) -> i64 {
        match (self, dim) {
            (Self::Conv | Self::MaxPool | Self::AvgPool, _) => 3,
            (Self::SepConv, Dim::Image) => 5,
            (Self::SepConv, Dim::Series) => 15,
            (Self::Skip | Self::Zero, _) => 1,
        }
    }

    /// For people.
    pub fn label(self, dim: Dim) -> &'static str {
        match (self, dim) {
            (Self::Conv, _) => "conv3",
            (Self::SepConv, Dim::Image) => "sep5",
            (Self::SepConv, Dim::Series) => "sep15",
            (Self::MaxPool, _) => "max3",
            (Self::AvgPool, _) => "avg3",
            (Self::Skip, _) => "skip",
            (Self::Zero, _) => "zero",
        }
    }

    /// Weights at `channels`, without biases.
    pub fn weights(self, dim: Dim, channels: u64) -> u64 {
        let taps = (self.kernel(dim) as u64).pow(match dim {
            Dim::Series => 1,
            Dim::Image => 2,
        });
        match self {
            Self::Conv => channels * channels * taps,
            Self::SepConv => channels * taps + channels * channels,
            Self::MaxPool | Self::AvgPool | Self::Skip | Self::Zero => 0,
        }
    }
}

/// One chosen edge: what a node reads, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// 0 and 1 are the cell's inputs, 2 is its first node.
    pub from: usize,
    /// What is done to it.
    pub op: Operation,
}

/// A cell: for each node the edges that it sums. Its output joins all nodes along the channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genotype {
    /// One entry a node, in order.
    pub nodes: Vec<Vec<Edge>>,
}

/// Most nodes of a cell.
pub const NODES_MAX: usize = 8;

impl Genotype {
    /// Checks that each node reads one earlier state or two different ones, through real operations.
    ///
    /// # Errors
    /// A sentence that names the node.
    pub fn validate(&self) -> Result<(), String> {
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return Err(format!("{} nodes, allowed are 1 to {NODES_MAX}", self.nodes.len()));
        }
        for (node, edges) in self.nodes.iter().enumerate() {
            if edges.is_empty() || edges.len() > 2 {
                return Err(format!("node {} has {} edges, allowed are 1 and 2", node + 2, edges.len()));
            }
            if let [a, b] = edges.as_slice()
                && a.from == b.from
            {
                return Err(format!("node {} reads state {} twice", node + 2, a.from));
            }
            for edge in edges {
                if edge.from >= node + 2 {
                    return Err(format!("node {} reads state {}, which comes after it", node + 2, edge.from));
                }
                if edge.op == Operation::Zero {
                    return Err(format!("node {} has the operation zero", node + 2));
                }
            }
        }
        Ok(())
    }

    /// Edges that are skip connections.
    pub fn skips(&self) -> usize {
        self.nodes.iter().flatten().filter(|edge| edge.op == Operation::Skip).count()
    }

    /// Share of edges that are skip connections, 0 to 1: near 1 the search collapsed.
    pub fn skip_share(&self) -> f64 {
        self.skips() as f64 / self.nodes.iter().flatten().count().max(1) as f64
    }

    /// One line, such as `0->2 conv3 | 1->2 sep5`.
    pub fn line(&self, dim: Dim) -> String {
        let mut parts = Vec::new();
        for (node, edges) in self.nodes.iter().enumerate() {
            for edge in edges {
                parts.push(format!("{}->{} {}", edge.from, node + 2, edge.op.label(dim)));
            }
        }
        parts.join(" | ")
    }
}

/// A whole network: a stem, cells in up to three stages, mean over space, a linear layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    pub dim: Dim,
    /// `[C, L]` or `[C, H, W]`.
    pub input: Vec<usize>,
    pub classes: usize,
    /// Channels of the first stage; each further stage has twice as many.
    pub channels: usize,
    pub cells: usize,
    /// Where it is not a class alone, all stages have the same width and every position.
    #[serde(default, skip_serializing_if = "Answer::is_class")]
    pub answer: Answer,
    pub genotype: Genotype,
}

/// Most stages of a network.
const STAGES_MAX: usize = 3;
/// Most channels of the first stage.
const CHANNELS_MAX: usize = 1024;
/// A stem halves the resolution from this size of its longest axis on.
const STEM_STRIDE_FROM: usize = 28;
/// No stage goes below this size of its longest axis.
const STAGE_SIZE_MIN: usize = 4;
/// Largest file that is read as an architecture.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The convolution that brings one input of a cell to the cell's channels and resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapter {
    pub channels_in: i64,
    pub stride: i64,
    /// 3 where the resolution is halved, otherwise 1.
    pub kernel: i64,
}

/// One cell's place in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellPlan {
    pub channels: i64,
    /// For the output before the previous one, and for the previous one.
    pub adapters: [Adapter; 2],
}

/// What a supernet and a derived network have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skeleton {
    pub dim: Dim,
    pub input: Vec<usize>,
    pub classes: i64,
    pub stem_channels: i64,
    pub stem_kernel: i64,
    pub stem_stride: i64,
    pub cells: Vec<CellPlan>,
    /// Channels that the last cell gives.
    pub features: i64,
    pub answer: Answer,
}

impl Skeleton {
    /// Lays out `cells` cells of `nodes` nodes, for classes alone.
    pub fn new(input: &[usize], classes: usize, channels: usize, cells: usize, nodes: usize) -> Self {
        Self::answering(Answer::Class, input, classes, [channels, cells, nodes])
    }

    /// Lays out cells for an answer; the budget is channels, cells and nodes of a cell.
    pub fn answering(
        answer: Answer,
        input: &[usize],
        classes: usize,
        [channels, cells, nodes]: [usize; 3],
    ) -> Self {
        let dim = if input.len() == 2 { Dim::Series } else { Dim::Image };
        let longest = input[1..].iter().copied().max().unwrap_or(1);
        let stem_stride = if longest >= STEM_STRIDE_FROM && answer.is_class() { 2 } else { 1 };
        let stages = if answer.is_class() { cells.min(STAGES_MAX) } else { 1 };
        let mut size = longest.div_ceil(stem_stride);
        let stem_channels = channels as i64;
        // Channels and resolution (as a power of two) of the last two outputs.
        let mut outputs = [(stem_channels, 0u32), (stem_channels, 0u32)];
        let (mut level, mut stage) = (0u32, 0);
        let mut plans = Vec::with_capacity(cells);
        for cell in 0..cells {
            let wanted = cell * stages / cells;
            if wanted > stage {
                stage = wanted;
                if size.div_ceil(2) >= STAGE_SIZE_MIN {
                    size = size.div_ceil(2);
                    level += 1;
                }
            }
            let width = stem_channels << stage;
            let adapters = outputs.map(|(channels_in, at)| {
                let stride = 1i64 << (level - at);
                Adapter { channels_in, stride, kernel: if stride > 1 { 3 } else { 1 } }
            });
            plans.push(CellPlan { channels: width, adapters });
            outputs = [outputs[1], (width * nodes as i64, level)];
        }
        Self {
            dim,
            input: input.to_vec(),
            classes: classes as i64,
            stem_channels,
            stem_kernel: match dim {
                Dim::Series => 9,
                Dim::Image => 3,
            },
            stem_stride: stem_stride as i64,
            cells: plans,
            features: outputs[1].0,
            answer,
        }
    }

    /// Where the windows of its operations lie.
    pub fn reach(&self) -> Reach {
        if self.answer.is_causal() { Reach::Before } else { Reach::Around }
    }

    /// Shape of one sample.
    pub fn shape(&self) -> Shape {
        Shape { channels: self.input[0], spatial: self.input[1..].to_vec() }
    }
}

impl Architecture {
    /// The layout of this network.
    pub fn skeleton(&self) -> Skeleton {
        let size = [self.channels, self.cells, self.genotype.nodes.len()];
        Skeleton::answering(self.answer, &self.input, self.classes, size)
    }

    /// Whether any node of the cell reads `state`.
    pub fn reads(&self, state: usize) -> bool {
        self.genotype.nodes.iter().flatten().any(|edge| edge.from == state)
    }

    /// Weights of all convolutions and of the linear layer, without biases, counted without building the network.
    pub fn weights(&self) -> u64 {
        let s = self.skeleton();
        let (input, classes) = (self.input[0] as u64, self.classes as u64);
        let taps = |kernel: i64| match s.dim {
            Dim::Series => kernel.unsigned_abs(),
            Dim::Image => (kernel * kernel).unsigned_abs(),
        };
        let mut weights = s.stem_channels.unsigned_abs() * input * taps(s.stem_kernel);
        for cell in &s.cells {
            let channels = cell.channels.unsigned_abs();
            for (side, adapter) in cell.adapters.iter().enumerate() {
                if self.reads(side) {
                    weights += channels * adapter.channels_in.unsigned_abs() * taps(adapter.kernel);
                }
            }
            let edges = self.genotype.nodes.iter().flatten();
            weights += edges.map(|edge| edge.op.weights(s.dim, channels)).sum::<u64>();
        }
        let slots = match self.answer {
            Answer::ClassAndSlots { slots } => slots as u64,
            Answer::Class | Answer::Next => 0,
        };
        weights + s.features.unsigned_abs() * (classes + slots)
    }

    /// This architecture, as wide as brings it closest to `weights`; of two equally close the narrower.
    pub fn with_weights(&self, weights: u64) -> Self {
        let wide = |channels| Self { channels, ..self.clone() };
        let widths = 1..=CHANNELS_MAX;
        widths.map(wide).min_by_key(|one| one.weights().abs_diff(weights)).unwrap_or_else(|| self.clone())
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// A sentence: no JSON of this form, or a network that cannot be.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let found: Self = serde_json::from_str(text).map_err(|error| format!("no architecture: {error}"))?;
        let axes = match found.dim {
            Dim::Series => 2,
            Dim::Image => 3,
        };
        let sane = |value: usize, max: usize| (1..=max).contains(&value);
        if found.input.len() != axes || !found.input.iter().all(|axis| sane(*axis, 1 << 20)) {
            return Err(format!("the input shape {:?} does not fit {:?}", found.input, found.dim));
        }
        if !sane(found.classes, shared::limits::LABELS_MAX)
            || !sane(found.channels, CHANNELS_MAX)
            || !sane(found.cells, 32)
        {
            return Err("classes, channels or cells out of range".to_owned());
        }
        let slots = match found.answer {
            Answer::ClassAndSlots { slots } => sane(slots, shared::limits::LABELS_MAX),
            Answer::Class | Answer::Next => true,
        };
        if !slots || (!found.answer.is_class() && found.dim == Dim::Image) {
            return Err(format!("an answer {:?} cannot be had of {:?}", found.answer, found.dim));
        }
        found.genotype.validate()?;
        Ok(found)
    }

    /// For `arch.json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn architecture() -> Architecture {
        let edge = |from, op| Edge { from, op };
        Architecture {
            dim: Dim::Image,
            input: vec![1, 28, 28],
            classes: 10,
            channels: 8,
            cells: 3,
            answer: Answer::Class,
            genotype: Genotype {
                nodes: vec![
                    vec![edge(0, Operation::Conv), edge(1, Operation::SepConv)],
                    vec![edge(1, Operation::Skip), edge(2, Operation::MaxPool)],
                ],
            },
        }
    }

    #[test]
    fn an_architecture_survives_its_file() {
        let found = architecture();
        assert_eq!(Architecture::from_json(&found.to_json()), Ok(found.clone()));
        assert_eq!(found.genotype.line(found.dim), "0->2 conv3 | 1->2 sep5 | 1->3 skip | 2->3 max3");
        assert!((found.genotype.skip_share() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn the_width_follows_the_weights_that_are_asked_for() {
        let one = architecture();
        assert_eq!(one.with_weights(one.weights()), one);
        let twice = one.with_weights(2 * one.weights());
        assert!(twice.channels > one.channels);
        let wider = Architecture { channels: twice.channels + 1, ..one.clone() };
        let off = |found: &Architecture| found.weights().abs_diff(2 * one.weights());
        assert!(off(&twice) <= off(&wider));
        assert_eq!(one.with_weights(0).channels, 1);
    }

    #[test]
    fn refuses_a_cell_that_reads_ahead_or_does_nothing() {
        let mut bad = architecture();
        bad.genotype.nodes[0][1].from = 2;
        assert_eq!(
            Architecture::from_json(&bad.to_json()),
            Err("node 2 reads state 2, which comes after it".into())
        );
        let mut bad = architecture();
        bad.genotype.nodes[1][0].from = 2;
        assert_eq!(Architecture::from_json(&bad.to_json()), Err("node 3 reads state 2 twice".into()));
        let mut bad = architecture();
        bad.genotype.nodes[1][0].op = Operation::Zero;
        assert_eq!(Architecture::from_json(&bad.to_json()), Err("node 3 has the operation zero".into()));
    }

    #[test]
    fn stages_halve_the_resolution_and_double_the_channels() {
        let skeleton = architecture().skeleton();
        let widths: Vec<i64> = skeleton.cells.iter().map(|cell| cell.channels).collect();
        assert_eq!(widths, [8, 16, 32]);
        let strides: Vec<[i64; 2]> =
            skeleton.cells.iter().map(|cell| cell.adapters.map(|a| a.stride)).collect();
        assert_eq!(strides, [[1, 1], [2, 2], [4, 2]]);
        assert_eq!(skeleton.features, 64);
    }
}
