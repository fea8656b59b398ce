//! What a search finds: the operations of a cell, and the network that repeats it.

mod layout;

pub use layout::Layout;
pub use shared::space::{Dim, Operation, OperationKind, Stage};

use crate::{answer::Answer, graph::Shape, layers::Reach};
use serde::{Deserialize, Serialize};
use shared::space::FAN_IN_MAX;

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
    /// Checks that each node reads one earlier state or a few different ones, through real operations.
    ///
    /// # Errors
    /// A sentence that names the node.
    pub fn validate(&self) -> Result<(), String> {
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return Err(format!("{} nodes, allowed are 1 to {NODES_MAX}", self.nodes.len()));
        }
        for (node, edges) in self.nodes.iter().enumerate() {
            if edges.is_empty() || edges.len() > FAN_IN_MAX as usize {
                return Err(format!(
                    "node {} has {} edges, allowed are 1 to {FAN_IN_MAX}",
                    node + 2,
                    edges.len()
                ));
            }
            for (nth, edge) in edges.iter().enumerate() {
                if edges.iter().take(nth).any(|other| other.from == edge.from) {
                    return Err(format!("node {} reads state {} twice", node + 2, edge.from));
                }
                if edge.from >= node + 2 {
                    return Err(format!("node {} reads state {}, which comes after it", node + 2, edge.from));
                }
                if edge.op == Operation::ZERO {
                    return Err(format!("node {} has the operation zero", node + 2));
                }
            }
        }
        Ok(())
    }

    /// Edges that are skip connections.
    pub fn skips(&self) -> usize {
        self.nodes.iter().flatten().filter(|edge| edge.op == Operation::SKIP).count()
    }

    /// Share of edges that are skip connections, 0 to 1: near 1 the search collapsed.
    pub fn skip_share(&self) -> f64 {
        self.skips() as f64 / self.nodes.iter().flatten().count().max(1) as f64
    }

    /// This cell with every operation as it is called over `dim`.
    pub fn over(&self, dim: Dim) -> Self {
        let named =
            |edges: &Vec<Edge>| edges.iter().map(|edge| Edge { op: edge.op.over(dim), ..*edge }).collect();
        Self { nodes: self.nodes.iter().map(named).collect() }
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

fn longest(input: &[usize]) -> usize {
    input.iter().skip(1).copied().max().unwrap_or(1)
}

/// A whole network: a stem, cells in stages, mean over space, a linear layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    pub dim: Dim,
    /// `[C, L]` or `[C, H, W]`.
    pub input: Vec<usize>,
    pub classes: usize,
    /// Channels of the first convolution; the stages are so many times as wide.
    pub channels: usize,
    pub cells: usize,
    /// Where it is not a class alone, all stages have the same width and every position.
    #[serde(default, skip_serializing_if = "Answer::is_class")]
    pub answer: Answer,
    pub genotype: Genotype,
    /// [`Layout::usual`] where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
}

/// Most channels of the first stage.
const CHANNELS_MAX: usize = 1024;
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
    /// Lays out `cells` cells of `nodes` nodes as usual, for classes alone.
    pub fn new(input: &[usize], classes: usize, channels: usize, cells: usize, nodes: usize) -> Self {
        let layout = Layout::usual(Answer::Class, input, cells);
        Self::laid_out(Answer::Class, input, classes, channels, nodes, &layout)
    }

    /// Lays out cells of `nodes` nodes for an answer.
    pub fn laid_out(
        answer: Answer,
        input: &[usize],
        classes: usize,
        channels: usize,
        nodes: usize,
        layout: &Layout,
    ) -> Self {
        let stem_stride = layout.stem_stride.max(1);
        let mut size = longest(input).div_ceil(stem_stride);
        let stem_channels = channels as i64;
        // Channels and resolution (as a power of two) of the last two outputs.
        let mut outputs = [(stem_channels, 0u32), (stem_channels, 0u32)];
        let mut level = 0u32;
        let mut plans = Vec::with_capacity(layout.cells());
        for (index, stage) in layout.stages.iter().enumerate() {
            if index > 0 && size.div_ceil(2) >= STAGE_SIZE_MIN {
                size = size.div_ceil(2);
                level += 1;
            }
            let width = stem_channels * i64::from(stage.width);
            for _ in 0..stage.cells {
                let adapters = outputs.map(|(channels_in, at)| {
                    let stride = 1i64 << (level - at);
                    Adapter { channels_in, stride, kernel: if stride > 1 { 3 } else { 1 } }
                });
                plans.push(CellPlan { channels: width, adapters });
                outputs = [outputs[1], (width * nodes as i64, level)];
            }
        }
        Self {
            dim: Dim::of_samples(input),
            input: input.to_vec(),
            classes: classes as i64,
            stem_channels,
            stem_kernel: layout.stem_kernel as i64,
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
        let nodes = self.genotype.nodes.len();
        let usual;
        let layout = match &self.layout {
            Some(layout) => layout,
            None => {
                usual = Layout::usual(self.answer, &self.input, self.cells);
                &usual
            }
        };
        Skeleton::laid_out(self.answer, &self.input, self.classes, self.channels, nodes, layout)
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
        found.layout.iter().try_for_each(|layout| layout.validate(found.answer, found.cells))?;
        found.validate()?;
        Ok(found)
    }

    /// Checks that the cell is one, and that it shows no position what it must not see.
    ///
    /// # Errors
    /// A sentence that names the node.
    pub fn validate(&self) -> Result<(), String> {
        self.genotype.validate()?;
        for (node, edges) in self.genotype.nodes.iter().enumerate() {
            if let Some(edge) = edges.iter().find(|edge| !self.answer.allows(edge.op)) {
                return Err(format!(
                    "node {} has the operation {}, which sees what comes later: a network that writes cannot have it",
                    node + 2,
                    edge.op
                ));
            }
        }
        Ok(())
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
                    vec![edge(0, Operation::CONV3), edge(1, Operation::SEP5)],
                    vec![edge(1, Operation::SKIP), edge(2, Operation::MAX3)],
                ],
            },
            layout: None,
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
    fn a_file_from_before_kernels_had_numbers_is_the_same_network() {
        let old = architecture()
            .to_json()
            .replace("conv3", "conv")
            .replace("sep5", "sep_conv")
            .replace("max3", "max_pool");
        assert!(old.contains("sep_conv"));
        let found = Architecture::from_json(&old).unwrap();
        assert_eq!(found.genotype.line(found.dim), architecture().genotype.line(Dim::Image));
        assert_eq!(found.genotype.over(found.dim), architecture().genotype);
        assert_eq!(found.weights(), architecture().weights());
        // Written again, it is what it was.
        assert_eq!(found.to_json(), old.replace("\"conv\"", "\"conv3\"").replace("max_pool", "max3"));
    }

    #[test]
    fn a_layout_says_widths_and_cells_of_its_stages_and_is_checked() {
        let stage = |width, cells| Stage { width, cells };
        let layout = Layout { stem_kernel: 5, stem_stride: 1, stages: vec![stage(1, 1), stage(3, 2)] };
        let one = Architecture { layout: Some(layout.clone()), ..architecture() };
        let skeleton = one.skeleton();
        assert_eq!((skeleton.stem_kernel, skeleton.stem_stride), (5, 1));
        assert_eq!(skeleton.cells.iter().map(|cell| cell.channels).collect::<Vec<_>>(), [8, 24, 24]);
        let strides: Vec<[i64; 2]> =
            skeleton.cells.iter().map(|cell| cell.adapters.map(|a| a.stride)).collect();
        assert_eq!(strides, [[1, 1], [2, 2], [2, 1]]);
        assert_eq!(Architecture::from_json(&one.to_json()), Ok(one.clone()));
        let usual =
            Architecture { layout: Some(Layout::usual(Answer::Class, &[1, 28, 28], 3)), ..architecture() };
        assert_eq!(usual.skeleton(), architecture().skeleton());
        let refused = |layout| {
            Architecture::from_json(&Architecture { layout: Some(layout), ..architecture() }.to_json())
        };
        let bad = Layout { stages: vec![stage(1, 2)], ..layout.clone() };
        assert_eq!(refused(bad), Err("layout: 2 cells in its stages, cells is 3".to_owned()));
        assert!(refused(Layout { stem_kernel: 4, ..layout.clone() }).is_err());
        assert!(refused(Layout { stages: vec![stage(0, 3)], ..layout }).is_err());
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
        bad.genotype.nodes[1][0].op = Operation::ZERO;
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
