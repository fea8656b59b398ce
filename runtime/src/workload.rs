//! Makes a model of a [`Workload`], in the two forms that the forge exports: f32, and static pairs of QuantizeLinear and
//! DequantizeLinear (activations u8, weights s8 per channel of 7 bits, which every processor computes at full speed).
//! Weights are made up; how long a model takes does not depend on them.

use prost::Message;
use shared::profile::{Form, Node, Step, Workload};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto,
    type_proto,
};

const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;
const INPUT: &str = "input";
const OUTPUT: &str = "output";
/// Largest integer of a weight.
const WEIGHT_MAX: u64 = 63;
/// Step of every quantised activation.
const ACTIVATION_SCALE: f32 = 1.0 / 16.0;
/// Zero point of what may be negative; what follows a ReLU has zero at the lowest integer.
const MIDDLE: u8 = 128;

/// The model's bytes.
///
/// # Errors
/// The workload breaks a limit; a sentence says which.
pub fn write(workload: &Workload, form: Form) -> Result<Vec<u8>, String> {
    let nodes = workload.layout()?;
    let mut writer = Writer { form, nodes: Vec::new(), initializers: Vec::new(), next: 0 };
    let last = nodes.len();
    let mut names = vec![writer.quantise(INPUT.to_owned(), MIDDLE, None)];
    for (index, node) in nodes.iter().enumerate() {
        let reads: Vec<String> = node.reads.iter().filter_map(|at| names.get(*at).cloned()).collect();
        let output = (index + 1 == last).then(|| OUTPUT.to_owned());
        let name = writer.step(node, &reads, output);
        names.push(name);
    }
    let shape = nodes.last().map(|node| node.output.clone()).unwrap_or_default();
    let graph = GraphProto {
        name: "workload".to_owned(),
        node: writer.nodes,
        initializer: writer.initializers,
        input: vec![value(INPUT, &workload.input)],
        output: vec![value(OUTPUT, &shape)],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "edgewright".to_owned(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    Ok(model.encode_to_vec())
}

/// Values for the input: between zero and one, always the same.
pub fn input(workload: &Workload) -> Vec<f32> {
    let count: u64 = workload.input.iter().map(|axis| u64::from(*axis)).product();
    (0..count).map(|index| scrambled(index, 256) as f32 / 256.0).collect()
}

struct Writer {
    form: Form,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    next: usize,
}

impl Writer {
    /// Writes one step that reads `reads`; its value ends as `output` where that is given. Gives the value's name.
    fn step(&mut self, node: &Node, reads: &[String], output: Option<String>) -> String {
        let (zero, relu) = match node.step {
            Step::Conv { relu: true, .. } | Step::Add => (0, true),
            Step::Conv { .. } | Step::Linear { .. } => (MIDDLE, false),
            Step::MaxPool { .. } | Step::AveragePool { .. } | Step::Concat | Step::GlobalAverage => {
                (MIDDLE, false)
            }
        };
        let plain = self.form == Form::Fp32;
        let raw = if plain && let Some(output) = &output { output.clone() } else { self.fresh() };
        let inner = if relu { self.fresh() } else { raw.clone() };
        match node.step {
            Step::Conv { channels, kernel, stride, groups, .. } => {
                let per_group = node.input.first().map_or(0, |channels| channels / groups.max(1));
                let mut dims = vec![channels, per_group];
                dims.extend(node.input.iter().skip(1).map(|_| kernel));
                let mut inputs = reads.to_vec();
                inputs.extend(self.weights(&dims));
                let mut attributes = window(node, kernel, stride);
                attributes.push(int("group", i64::from(groups)));
                self.node("Conv", &inputs, &inner, attributes);
            }
            Step::MaxPool { kernel, stride } => {
                self.node("MaxPool", reads, &inner, window(node, kernel, stride));
            }
            Step::AveragePool { kernel, stride } if plain => {
                let mut attributes = window(node, kernel, stride);
                attributes.push(int("count_include_pad", 1));
                self.node("AveragePool", reads, &inner, attributes);
            }
            // As the forge writes it: integer convolutions are fast where integer averages are not.
            Step::AveragePool { kernel, stride } => {
                let channels = node.input.first().copied().unwrap_or(1);
                let mut dims = vec![channels, 1];
                dims.extend(node.input.iter().skip(1).map(|_| kernel));
                let mut inputs = reads.to_vec();
                inputs.push(self.scalar_scaled_weights(&dims));
                let mut attributes = window(node, kernel, stride);
                attributes.push(int("group", i64::from(channels)));
                self.node("Conv", &inputs, &inner, attributes);
            }
            Step::Add => self.node("Add", reads, &inner, Vec::new()),
            Step::Concat => self.node("Concat", reads, &inner, vec![int("axis", 1)]),
            Step::GlobalAverage => {
                let pooled = self.fresh();
                self.node("GlobalAveragePool", reads, &pooled, Vec::new());
                // On both sides of the reshape, or the runtime sees no quantised pool.
                let pooled = self.quantise(pooled, zero, None);
                self.node("Flatten", &[pooled], &inner, vec![int("axis", 1)]);
            }
            Step::Linear { features } => {
                let dims = [features, node.input.first().copied().unwrap_or(1)];
                let mut inputs = reads.to_vec();
                inputs.extend(self.weights(&dims));
                self.node("Gemm", &inputs, &inner, vec![int("transB", 1)]);
            }
        }
        if relu {
            self.node("Relu", &[inner], &raw, Vec::new());
        }
        self.quantise(raw, zero, output)
    }

    /// Weights and bias along the first of `dims`.
    fn weights(&mut self, dims: &[u32]) -> [String; 2] {
        let channels = dims.first().copied().unwrap_or(1);
        let count: u64 = dims.iter().map(|axis| u64::from(*axis)).product();
        let per_channel = (count / u64::from(channels.max(1))).max(1);
        // Keeps activations about as large as they came.
        let scale = 1.0 / (WEIGHT_MAX as f32 * (per_channel as f32).sqrt());
        let integers = (0..count).map(integer);
        if self.form == Form::Fp32 {
            let values = integers.flat_map(|value| (f32::from(value) * scale).to_le_bytes()).collect();
            let weight = self.constant(DataType::Float, dims, values);
            let bias = self.constant(DataType::Float, &[channels], vec![0; channels as usize * 4]);
            return [weight, bias];
        }
        let weight = self.constant(DataType::Int8, dims, integers.map(i8::cast_unsigned).collect());
        let scales = self.repeated(scale, channels);
        let zeros = self.constant(DataType::Int8, &[channels], vec![0; channels as usize]);
        let weight = self.dequantise(&[weight, scales, zeros], vec![int("axis", 0)]);
        let bias = self.constant(DataType::Int32, &[channels], vec![0; channels as usize * 4]);
        let scales = self.repeated(scale * ACTIVATION_SCALE, channels);
        let bias = self.dequantise(&[bias, scales], vec![int("axis", 0)]);
        [weight, bias]
    }

    /// Equal integer weights under one scale.
    fn scalar_scaled_weights(&mut self, dims: &[u32]) -> String {
        let count: usize = dims.iter().map(|axis| *axis as usize).product();
        let taps: u32 = dims.iter().skip(2).product();
        let weight = self.constant(DataType::Int8, dims, vec![WEIGHT_MAX as u8; count]);
        let scale = 1.0 / (WEIGHT_MAX as f32 * taps.max(1) as f32);
        let scale = self.constant(DataType::Float, &[], scale.to_le_bytes().to_vec());
        let zero = self.constant(DataType::Int8, &[], vec![0]);
        self.dequantise(&[weight, scale, zero], Vec::new())
    }

    fn repeated(&mut self, value: f32, count: u32) -> String {
        let bytes = (0..count).flat_map(|_| value.to_le_bytes()).collect();
        self.constant(DataType::Float, &[count], bytes)
    }

    fn dequantise(&mut self, inputs: &[String], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh();
        self.node("DequantizeLinear", inputs, &output, attributes);
        output
    }

    /// In the INT8 form a pair of QuantizeLinear and DequantizeLinear behind `name`, which ends as `output` where that is
    /// given.
    fn quantise(&mut self, name: String, zero: u8, output: Option<String>) -> String {
        if self.form == Form::Fp32 {
            return name;
        }
        let scale = self.constant(DataType::Float, &[], ACTIVATION_SCALE.to_le_bytes().to_vec());
        let zero = self.constant(DataType::Uint8, &[], vec![zero]);
        let quantised = self.fresh();
        let output = output.unwrap_or_else(|| self.fresh());
        self.node("QuantizeLinear", &[name, scale.clone(), zero.clone()], &quantised, Vec::new());
        self.node("DequantizeLinear", &[quantised, scale, zero], &output, Vec::new());
        output
    }

    fn node(&mut self, op_type: &str, inputs: &[String], output: &str, attribute: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            op_type: op_type.to_owned(),
            input: inputs.to_vec(),
            output: vec![output.to_owned()],
            attribute,
            ..NodeProto::default()
        });
    }

    fn constant(&mut self, data_type: DataType, dims: &[u32], raw_data: Vec<u8>) -> String {
        let name = self.fresh();
        self.initializers.push(TensorProto {
            name: name.clone(),
            data_type: data_type as i32,
            dims: dims.iter().map(|axis| i64::from(*axis)).collect(),
            raw_data,
            ..TensorProto::default()
        });
        name
    }

    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("t{}", self.next)
    }
}

/// The attributes of a window that pads half its kernel.
fn window(node: &Node, kernel: u32, stride: u32) -> Vec<AttributeProto> {
    let axes = node.input.len().saturating_sub(1);
    let all = |value: u32, count: usize| vec![i64::from(value); count];
    vec![
        ints("kernel_shape", all(kernel, axes)),
        ints("strides", all(stride, axes)),
        ints("pads", all(kernel / 2, 2 * axes)),
    ]
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        i: value,
        r#type: AttributeType::Int as i32,
        ..AttributeProto::default()
    }
}

fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        ints: values,
        r#type: AttributeType::Ints as i32,
        ..AttributeProto::default()
    }
}

/// A f32 tensor with a free batch before `axes`.
fn value(name: &str, axes: &[u32]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let axis = |value| Dimension { value: Some(value), ..Dimension::default() };
    let batch = axis(Value::DimParam("N".to_owned()));
    let rest = axes.iter().map(|size| axis(Value::DimValue(i64::from(*size))));
    let shape = Some(TensorShapeProto { dim: std::iter::once(batch).chain(rest).collect() });
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape };
    let r#type =
        Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() });
    ValueInfoProto { name: name.to_owned(), r#type, ..ValueInfoProto::default() }
}

/// A weight between `-WEIGHT_MAX` and `WEIGHT_MAX`.
fn integer(index: u64) -> i8 {
    let value = scrambled(index, 2 * WEIGHT_MAX + 1) as i64 - WEIGHT_MAX as i64;
    i8::try_from(value).unwrap_or(0)
}

/// A number below `below` that looks drawn; the same for the same index (SplitMix64, Steele et al. 2014).
fn scrambled(index: u64, below: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below.max(1)
}
