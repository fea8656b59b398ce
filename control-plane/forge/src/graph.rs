//! The inference network between training and export: plain weights, BatchNorm already folded.
//!
//! A [`Graph`] is built front to back with [`Graph::push`], which infers and checks every shape, so a graph
//! that exists is one that the ONNX writer and the quantiser can take. The batch axis is never part of a
//! [`Shape`]; it is free everywhere.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Most nodes one graph may hold.
pub const MAX_NODES: usize = 4096;
/// Most weights and biases one graph may hold: what fits a small board many times over.
pub const MAX_PARAMETERS: usize = 64 * 1024 * 1024;
/// Most elements one activation may hold per sample.
pub const MAX_ELEMENTS: usize = 16 * 1024 * 1024;
/// Largest kernel, stride, padding or dilation along one axis.
pub const MAX_WINDOW: usize = 1024;

/// Why a node could not be added, or a graph cannot be exported.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The node reads a value that does not exist in this graph.
    #[error("node {node} ({op}) reads value {value}, which this graph does not have")]
    NoSuchValue {
        /// Index of the refused node.
        node: usize,
        /// Name of its operation.
        op: &'static str,
        /// The missing value.
        value: usize,
    },
    /// The operation cannot take these inputs.
    #[error("node {node} ({op}) does not fit its inputs: {reason}")]
    Shape {
        /// Index of the refused node.
        node: usize,
        /// Name of its operation.
        op: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// A weight or a bias is NaN or infinite.
    #[error("node {node} ({op}) has a weight that is not finite at index {index}: training diverged")]
    NotFinite {
        /// Index of the refused node.
        node: usize,
        /// Name of its operation.
        op: &'static str,
        /// Where in the weights (or after them, in the bias).
        index: usize,
    },
    /// One of the limits of this module.
    #[error("the graph is too large: {what} would be {found}, at most {limit} is allowed")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// The count with the refused node.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The graph as a whole is no classifier.
    #[error("the graph cannot be exported: {0}")]
    NotAClassifier(String),
}

/// The shape of one sample's activation: channels first, then zero (a vector), one (a series) or two (an
/// image: height, width) axes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Channels, or features of a vector.
    pub channels: usize,
    /// Length, or height and width, or nothing.
    pub spatial: Vec<usize>,
}

impl Shape {
    /// `[features]`.
    pub fn vector(features: usize) -> Self {
        Self { channels: features, spatial: Vec::new() }
    }

    /// `[channels, length]`.
    pub fn series(channels: usize, length: usize) -> Self {
        Self { channels, spatial: vec![length] }
    }

    /// `[channels, height, width]`.
    pub fn image(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, spatial: vec![height, width] }
    }

    /// Elements of one sample.
    pub fn elements(&self) -> usize {
        self.spatial.iter().fold(self.channels, |product, axis| product.saturating_mul(*axis))
    }

    /// Elements of one channel.
    pub fn spatial_elements(&self) -> usize {
        self.spatial.iter().product()
    }

    /// All axes without the batch: channels, then the spatial ones.
    pub fn axes(&self) -> Vec<usize> {
        std::iter::once(self.channels).chain(self.spatial.iter().copied()).collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.channels)?;
        for axis in &self.spatial {
            write!(f, ", {axis}")?;
        }
        f.write_str("]")
    }
}

/// A value of the graph: its input, or the output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueId(usize);

impl ValueId {
    /// The graph's input.
    pub const INPUT: Self = Self(0);

    /// The output of the node with this index.
    pub fn of_node(node: usize) -> Self {
        Self(node + 1)
    }

    /// 0 for the input, 1 + node index for a node's output.
    pub fn index(self) -> usize {
        self.0
    }
}

/// How a kernel moves over the spatial axes: one entry an axis. The output length rounds down.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// Taps along each axis.
    pub kernel: Vec<usize>,
    /// Step along each axis.
    pub stride: Vec<usize>,
    /// Elements added before each axis.
    pub padding: Vec<usize>,
    /// Elements added after each axis.
    pub padding_after: Vec<usize>,
    /// Distance between taps along each axis.
    pub dilation: Vec<usize>,
}

impl Window {
    /// The same numbers on each of `rank` axes.
    pub fn same(rank: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Self {
        Self {
            kernel: vec![kernel; rank],
            stride: vec![stride; rank],
            padding: vec![padding; rank],
            padding_after: vec![padding; rank],
            dilation: vec![dilation; rank],
        }
    }

    /// Taps of the whole kernel.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// The spatial axes after this window has gone over `spatial`, or why it cannot.
    fn output(&self, spatial: &[usize]) -> Result<Vec<usize>, String> {
        let rank = spatial.len();
        if rank == 0 || rank > 2 {
            return Err(format!("a window needs one or two spatial axes, the input has {rank}"));
        }
        for (name, list) in [
            ("kernel", &self.kernel),
            ("stride", &self.stride),
            ("padding", &self.padding),
            ("padding_after", &self.padding_after),
            ("dilation", &self.dilation),
        ] {
            if list.len() != rank {
                return Err(format!("{name} has {} axes, the input has {rank}", list.len()));
            }
            if let Some(value) = list.iter().find(|value| **value > MAX_WINDOW) {
                return Err(format!("{name} {value} is over the limit {MAX_WINDOW}"));
            }
            if !name.starts_with("padding") && list.contains(&0) {
                return Err(format!("{name} must not be zero"));
            }
        }
        (0..rank)
            .map(|axis| {
                let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
                let padded = spatial[axis] + self.padding[axis] + self.padding_after[axis];
                if padded < reach {
                    return Err(format!("a window of {reach} does not fit {padded} padded elements"));
                }
                Ok((padded - reach) / self.stride[axis] + 1)
            })
            .collect()
    }
}

/// A convolution over one or two axes, `y = relu?(w * x + b)`. Serialised without its numbers, see
/// [`Outline`](crate::compress::Outline).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Output channels.
    pub out_channels: usize,
    /// Kernel, stride, padding (zeros), dilation.
    pub window: Window,
    /// Groups; divides input and output channels.
    pub groups: usize,
    /// `[out_channels, in_channels / groups, kernel…]`, row major.
    #[serde(skip)]
    pub weight: Vec<f32>,
    /// `[out_channels]`.
    #[serde(skip)]
    pub bias: Vec<f32>,
    /// Whether a ReLU follows.
    pub relu: bool,
}

/// A fully connected layer over all elements of its input (channels first, row major),
/// `y = relu?(w x + b)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// Output features.
    pub out_features: usize,
    /// `[out_features, in_features]`, row major.
    #[serde(skip)]
    pub weight: Vec<f32>,
    /// `[out_features]`.
    #[serde(skip)]
    pub bias: Vec<f32>,
    /// Whether a ReLU follows.
    pub relu: bool,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// One input.
    Conv(Conv),
    /// One input; padding never wins (it counts as minus infinity), and must be smaller than the kernel.
    MaxPool(Window),
    /// One input; dilation must be 1, padding smaller than the kernel.
    AvgPool {
        /// Kernel, stride, padding.
        window: Window,
        /// Whether padded zeros count in the divisor (PyTorch's `count_include_pad`).
        count_include_pad: bool,
    },
    /// Two inputs of one shape, added; `relu` says whether a ReLU follows.
    Add {
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// Two inputs, multiplied: the second has the shape of the first, or is a vector with a value for each channel, or has
    /// one channel with a value for each position; `relu` says whether a ReLU follows.
    Mul {
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// Two or more inputs with the same spatial axes, joined along the channels.
    Concat,
    /// One input.
    Relu,
    /// One input.
    Sigmoid,
    /// One input with spatial axes; gives a vector of its channels.
    GlobalAvgPool,
    /// One input with one spatial axis; gives the vector of its channels at the last position.
    Last,
    /// One input of any shape.
    Linear(Linear),
    /// One input, each position by itself; the probabilities of its channels. Only joining may follow.
    Softmax,
    /// One input of any shape; gives a vector, channels first, row major.
    Flatten,
}

impl Op {
    /// The operation's name in errors and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv(_) => "conv",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool { .. } => "avg_pool",
            Self::Add { .. } => "add",
            Self::Mul { .. } => "mul",
            Self::Concat => "concat",
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Last => "last",
            Self::Flatten => "flatten",
            Self::Linear(_) => "linear",
            Self::Softmax => "softmax",
        }
    }

    /// Weights and bias to write to, where the operation has them.
    pub fn weights_mut(&mut self) -> Option<(&mut Vec<f32>, &mut Vec<f32>)> {
        match self {
            Self::Conv(conv) => Some((&mut conv.weight, &mut conv.bias)),
            Self::Linear(linear) => Some((&mut linear.weight, &mut linear.bias)),
            Self::MaxPool(_)
            | Self::AvgPool { .. }
            | Self::Add { .. }
            | Self::Mul { .. }
            | Self::Concat
            | Self::Relu
            | Self::Sigmoid
            | Self::GlobalAvgPool
            | Self::Last
            | Self::Flatten
            | Self::Softmax => None,
        }
    }

    /// How many weights and biases the operation has over an input of this shape, where it has any.
    pub fn weight_counts(&self, input: &Shape) -> Option<(usize, usize)> {
        match self {
            Self::Conv(conv) => {
                let each = (input.channels / conv.groups.max(1)).checked_mul(conv.window.taps())?;
                Some((conv.out_channels.checked_mul(each)?, conv.out_channels))
            }
            Self::Linear(linear) => {
                Some((linear.out_features.checked_mul(input.elements())?, linear.out_features))
            }
            Self::MaxPool(_)
            | Self::AvgPool { .. }
            | Self::Add { .. }
            | Self::Mul { .. }
            | Self::Concat
            | Self::Relu
            | Self::Sigmoid
            | Self::GlobalAvgPool
            | Self::Last
            | Self::Flatten
            | Self::Softmax => None,
        }
    }

    /// Weights and bias, where the operation has them.
    pub fn weights(&self) -> Option<(&[f32], &[f32])> {
        match self {
            Self::Conv(conv) => Some((&conv.weight, &conv.bias)),
            Self::Linear(linear) => Some((&linear.weight, &linear.bias)),
            Self::MaxPool(_)
            | Self::AvgPool { .. }
            | Self::Add { .. }
            | Self::Mul { .. }
            | Self::Concat
            | Self::Relu
            | Self::Sigmoid
            | Self::GlobalAvgPool
            | Self::Last
            | Self::Flatten
            | Self::Softmax => None,
        }
    }
}

/// One step of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    op: Op,
    inputs: Vec<ValueId>,
    output: Shape,
}

impl Node {
    /// What it computes.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// What it reads, in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// The shape of what it gives, without the batch.
    pub fn output(&self) -> &Shape {
        &self.output
    }
}

/// An inference network in topological order. The last node is its output.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    input: Shape,
    nodes: Vec<Node>,
    parameters: usize,
}

impl Graph {
    /// An empty graph over inputs of `input`.
    ///
    /// # Errors
    /// An axis of zero, or more elements than [`MAX_ELEMENTS`].
    pub fn new(input: Shape) -> Result<Self, Error> {
        if input.elements() == 0 || input.spatial.len() > 2 {
            return Err(Error::NotAClassifier(format!("an input of shape {input} is not possible")));
        }
        limit("elements of the input", input.elements(), MAX_ELEMENTS)?;
        Ok(Self { input, nodes: Vec::new(), parameters: 0 })
    }

    /// Adds a node that reads `inputs` and gives the id of its output.
    ///
    /// # Errors
    /// A value that does not exist, shapes or weight counts that do not fit, weights that are not finite, or
    /// a limit of this module. The graph is unchanged then.
    pub fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, Error> {
        let node = self.nodes.len();
        limit("nodes", node + 1, MAX_NODES)?;
        let name = op.name();
        let mut shapes = Vec::with_capacity(inputs.len());
        for id in inputs {
            let missing = Error::NoSuchValue { node, op: name, value: id.0 };
            shapes.push(self.shape(*id).ok_or(missing)?);
        }
        let answers = inputs.iter().filter(|id| self.is_answer(**id)).count();
        let fits = match op {
            Op::Flatten | Op::Concat => answers == 0 || answers == inputs.len(),
            Op::Softmax => answers == 0,
            _ => answers == 0 && !self.is_answer(self.output()),
        };
        if !fits {
            return Err(Error::NotAClassifier("only what joins probabilities may follow a softmax".into()));
        }
        let output = infer(&op, &shapes).map_err(|reason| Error::Shape { node, op: name, reason })?;
        limit("elements of an activation", output.elements(), MAX_ELEMENTS)?;
        let mut parameters = self.parameters;
        if let Some((weight, bias)) = op.weights() {
            if let Some(index) = weight.iter().chain(bias).position(|value| !value.is_finite()) {
                return Err(Error::NotFinite { node, op: name, index });
            }
            parameters += weight.len() + bias.len();
            limit("parameters", parameters, MAX_PARAMETERS)?;
        }
        self.parameters = parameters;
        self.nodes.push(Node { op, inputs: inputs.to_vec(), output });
        Ok(ValueId(self.nodes.len()))
    }

    /// The shape of the input, without the batch.
    pub fn input_shape(&self) -> &Shape {
        &self.input
    }

    /// The nodes, in topological order; node `i` gives the value with index `i + 1`.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The last value: the output, once the graph is complete.
    pub fn output(&self) -> ValueId {
        ValueId(self.nodes.len())
    }

    /// The shape of a value without the batch, if this graph has it.
    pub fn shape(&self, id: ValueId) -> Option<&Shape> {
        match id.0.checked_sub(1) {
            None => Some(&self.input),
            Some(node) => self.nodes.get(node).map(|node| &node.output),
        }
    }

    /// Whether a value is made of probabilities: by a softmax, or by joining such values.
    pub fn is_answer(&self, id: ValueId) -> bool {
        let node = id.0.checked_sub(1).and_then(|node| self.nodes.get(node));
        node.is_some_and(|node| match node.op {
            Op::Softmax => true,
            Op::Flatten | Op::Concat => node.inputs.iter().all(|input| self.is_answer(*input)),
            _ => false,
        })
    }

    /// Values of the output of a complete graph: its classes, with all that is joined to them.
    ///
    /// # Errors
    /// The last node gives no vector of at least two probabilities, or a value leads nowhere.
    pub fn classes(&self) -> Result<usize, Error> {
        let Some(last) = self.nodes.last() else {
            return Err(Error::NotAClassifier("it has no nodes".into()));
        };
        if !self.is_answer(self.output()) || !last.output.spatial.is_empty() || last.output.channels < 2 {
            return Err(Error::NotAClassifier(
                "its last node must be a softmax over two or more classes".into(),
            ));
        }
        let mut used = vec![false; self.nodes.len() + 1];
        for id in self.nodes.iter().flat_map(|node| &node.inputs) {
            used[id.0] = true;
        }
        if let Some(unused) = used[..self.nodes.len()].iter().position(|used| !used) {
            return Err(Error::NotAClassifier(format!("value {unused} is computed and never used")));
        }
        Ok(last.output.channels)
    }

    /// Weights and biases.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Multiply-accumulates of convolutions and linear layers for one sample.
    pub fn macs(&self) -> u64 {
        self.nodes
            .iter()
            .map(|node| match &node.op {
                Op::Conv(conv) => (conv.weight.len() * node.output.spatial_elements()) as u64,
                Op::Linear(linear) => linear.weight.len() as u64,
                _ => 0,
            })
            .sum()
    }

    /// The most bytes of INT8 activations (one an element, one sample) alive at once when the nodes run in
    /// order and a value is freed after its last reader.
    pub fn peak_activation_bytes(&self) -> usize {
        let mut last_read = vec![0usize; self.nodes.len() + 1];
        for (index, node) in self.nodes.iter().enumerate() {
            for id in &node.inputs {
                last_read[id.0] = index;
            }
        }
        let size = |value: usize| self.shape(ValueId(value)).map_or(0, Shape::elements);
        let mut alive = size(0);
        let mut peak = alive;
        for (index, node) in self.nodes.iter().enumerate() {
            alive += size(index + 1);
            peak = peak.max(alive);
            let mut read: Vec<usize> = node.inputs.iter().map(|id| id.0).collect();
            read.sort_unstable();
            read.dedup();
            alive -= read.into_iter().filter(|value| last_read[*value] == index).map(size).sum::<usize>();
        }
        peak
    }
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), Error> {
    if found > limit { Err(Error::TooLarge { what, found, limit }) } else { Ok(()) }
}

fn infer(op: &Op, inputs: &[&Shape]) -> Result<Shape, String> {
    let wanted = match op {
        Op::Add { .. } | Op::Mul { .. } => 2..=2,
        Op::Concat => 2..=MAX_NODES,
        _ => 1..=1,
    };
    if !wanted.contains(&inputs.len()) {
        return Err(format!("it takes at least {} inputs, {} were given", wanted.start(), inputs.len()));
    }
    let first = inputs[0];
    match op {
        Op::Conv(conv) => infer_conv(conv, first),
        Op::MaxPool(window) => infer_pool(window, first),
        Op::AvgPool { window, .. } => {
            if window.dilation.iter().any(|dilation| *dilation != 1) {
                return Err("an average pool cannot be dilated".into());
            }
            infer_pool(window, first)
        }
        Op::Add { .. } => {
            if inputs[1] != first {
                return Err(format!("{first} and {} cannot be added", inputs[1]));
            }
            Ok(first.clone())
        }
        Op::Mul { .. } => {
            let second = inputs[1];
            let each_channel = second.spatial.is_empty() && second.channels == first.channels;
            let each_position = second.channels == 1 && second.spatial == first.spatial;
            if second != first && !each_channel && !each_position {
                return Err(format!("{first} cannot be multiplied by {second}"));
            }
            Ok(first.clone())
        }
        Op::Concat => {
            if let Some(other) = inputs.iter().find(|other| other.spatial != first.spatial) {
                return Err(format!("{first} and {other} cannot be joined along the channels"));
            }
            let channels = inputs.iter().map(|shape| shape.channels).sum();
            Ok(Shape { channels, spatial: first.spatial.clone() })
        }
        Op::Relu | Op::Sigmoid => Ok(first.clone()),
        Op::GlobalAvgPool => {
            if first.spatial.is_empty() {
                return Err(format!("{first} has no spatial axes to average over"));
            }
            Ok(Shape::vector(first.channels))
        }
        Op::Linear(linear) => {
            count("weight", linear.weight.len(), linear.out_features.saturating_mul(first.elements()))?;
            count("bias", linear.bias.len(), linear.out_features)?;
            Ok(Shape::vector(linear.out_features))
        }
        Op::Last => match first.spatial.as_slice() {
            [_] => Ok(Shape::vector(first.channels)),
            _ => Err(format!("{first} has not one spatial axis that ends")),
        },
        Op::Softmax => Ok(first.clone()),
        Op::Flatten => Ok(Shape::vector(first.elements())),
    }
}

fn infer_conv(conv: &Conv, input: &Shape) -> Result<Shape, String> {
    let spatial = conv.window.output(&input.spatial)?;
    let groups = conv.groups;
    if groups == 0 || !input.channels.is_multiple_of(groups) || !conv.out_channels.is_multiple_of(groups) {
        return Err(format!(
            "{groups} groups do not divide {} input and {} output channels",
            input.channels, conv.out_channels
        ));
    }
    let per_output = (input.channels / groups).saturating_mul(conv.window.taps());
    count("weight", conv.weight.len(), conv.out_channels.saturating_mul(per_output))?;
    count("bias", conv.bias.len(), conv.out_channels)?;
    Ok(Shape { channels: conv.out_channels, spatial })
}

fn infer_pool(window: &Window, input: &Shape) -> Result<Shape, String> {
    let spatial = window.output(&input.spatial)?;
    let padding = window.padding.iter().zip(&window.kernel);
    if padding
        .chain(window.padding_after.iter().zip(&window.kernel))
        .any(|(padding, kernel)| padding >= kernel)
    {
        return Err("a pool's padding must be smaller than its kernel".into());
    }
    Ok(Shape { channels: input.channels, spatial })
}

fn count(what: &str, found: usize, wanted: usize) -> Result<(), String> {
    if wanted == 0 || found != wanted {
        return Err(format!("{what} has {found} values, {wanted} are needed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
