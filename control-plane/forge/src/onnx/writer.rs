//! Walks a graph and writes its nodes. Names are short: in a small model they weigh as much as weights.

use super::{BATCH, Error, INPUT, IR_VERSION, OPSET, OUTPUT};
use crate::{
    graph::{Conv, Graph, Linear, Op, Shape, ValueId, Window},
    quantise::{Affine, Encoding, WeightEncoding},
};
use half::f16;
use quantiser::proto::{
    AttributeProto, DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use std::collections::HashMap;

pub(super) struct Writer<'g> {
    graph: &'g Graph,
    encoding: Option<&'g Encoding>,
    /// Whether f32 weights are written as 16-bit floats.
    half: bool,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Constants by type, shape and bytes, of those that are written once when they are equal.
    shared: HashMap<(i32, Vec<usize>, Vec<u8>), String>,
    /// The f32 name that readers of a value use.
    names: Vec<String>,
    next: usize,
}

impl<'g> Writer<'g> {
    pub(super) fn new(graph: &'g Graph, encoding: Option<&'g Encoding>) -> Self {
        Self {
            graph,
            encoding,
            half: false,
            nodes: Vec::new(),
            initializers: Vec::new(),
            shared: HashMap::new(),
            names: vec![INPUT.to_owned()],
            next: 0,
        }
    }

    /// Writes f32 weights as 16-bit floats.
    pub(super) fn halved(self) -> Self {
        Self { half: true, ..self }
    }

    pub(super) fn finish(mut self, all_outputs: bool) -> Result<ModelProto, Error> {
        self.names[0] = self.quantise(ValueId::INPUT, INPUT.to_owned())?;
        let last = self.graph.nodes().len();
        for (index, node) in self.graph.nodes().iter().enumerate() {
            let output = if index + 1 == last { OUTPUT.to_owned() } else { self.fresh() };
            let inputs: Vec<String> = node.inputs().iter().map(|id| self.names[id.index()].clone()).collect();
            self.operation(index, node.op(), &inputs, output.clone())?;
            let name = self.quantise(ValueId::of_node(index), output)?;
            self.names.push(name);
        }
        let value = |name: &str, shape: &Shape| ValueInfoProto::f32(name, BATCH, &shape.axes());
        let kept = if all_outputs { 0 } else { last.saturating_sub(1) };
        let output = (kept..last)
            .map(|index| value(&self.names[index + 1], self.graph.nodes()[index].output()))
            .collect();
        let graph = GraphProto {
            node: self.nodes,
            name: "edgewright".to_owned(),
            initializer: self.initializers,
            input: vec![value(INPUT, self.graph.input_shape())],
            output,
            ..GraphProto::default()
        };
        Ok(ModelProto {
            ir_version: IR_VERSION,
            producer_name: "edgewright".to_owned(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            ..ModelProto::default()
        })
    }

    fn operation(&mut self, index: usize, op: &Op, inputs: &[String], output: String) -> Result<(), Error> {
        match op {
            Op::Conv(conv) => self.conv(index, conv, &inputs[0], output),
            Op::Linear(linear) => self.linear(index, linear, &inputs[0], output),
            Op::MaxPool(window) => {
                self.node("MaxPool", inputs, output, window_attributes(window, true));
                Ok(())
            }
            Op::AvgPool { window, count_include_pad } => {
                let source = self.graph.nodes()[index].inputs()[0];
                let encoding = self.encoding.filter(|encoding| encoding.value(source).is_some());
                if let (Some(encoding), true) = (encoding, *count_include_pad) {
                    self.mean(encoding, window, source, &inputs[0], output);
                    return Ok(());
                }
                let mut attributes = window_attributes(window, false);
                if *count_include_pad {
                    attributes.push(AttributeProto::int("count_include_pad", 1));
                }
                self.node("AveragePool", inputs, output, attributes);
                Ok(())
            }
            Op::Add { relu } => {
                self.with_relu(*relu, output, |writer, output| {
                    writer.node("Add", inputs, output, Vec::new());
                });
                Ok(())
            }
            Op::Mul { relu } => {
                let factor = self.broadcast(index, &inputs[1])?;
                let inputs = [inputs[0].clone(), factor];
                self.with_relu(*relu, output, |writer, output| {
                    writer.node("Mul", &inputs, output, Vec::new());
                });
                Ok(())
            }
            Op::Sigmoid => {
                self.node("Sigmoid", inputs, output, Vec::new());
                Ok(())
            }
            Op::Concat => {
                self.node("Concat", inputs, output, vec![AttributeProto::int("axis", 1)]);
                Ok(())
            }
            Op::Relu => {
                self.node("Relu", inputs, output, Vec::new());
                Ok(())
            }
            Op::GlobalAvgPool => {
                let pooled = self.fresh();
                self.node("GlobalAveragePool", inputs, pooled.clone(), Vec::new());
                // Both sides of the reshape carry the encoding, or the runtime sees no quantised pool before it.
                let pooled = self.quantise(ValueId::of_node(index), pooled)?;
                self.node("Flatten", &[pooled], output, vec![AttributeProto::int("axis", 1)]);
                Ok(())
            }
            Op::Last => {
                let source = self.graph.nodes()[index].inputs()[0];
                let length = self.graph.shape(source).map_or(1, Shape::spatial_elements);
                let last = (length as i64 - 1).to_le_bytes().to_vec();
                let last = self.shared(DataType::I64, &[], last);
                let inputs = [inputs[0].clone(), last];
                self.node("Gather", &inputs, output, vec![AttributeProto::int("axis", 2)]);
                Ok(())
            }
            Op::Flatten => {
                self.node("Flatten", inputs, output, vec![AttributeProto::int("axis", 1)]);
                Ok(())
            }
            Op::Softmax => {
                self.node("Softmax", inputs, output, vec![AttributeProto::int("axis", 1)]);
                Ok(())
            }
        }
    }

    /// The second factor of a product, with an axis for each that the first one has.
    fn broadcast(&mut self, index: usize, factor: &str) -> Result<String, Error> {
        let node = &self.graph.nodes()[index];
        let [first, second] = [0, 1].map(|nth| node.inputs()[nth]);
        let rank = |id: ValueId| self.graph.shape(id).map_or(0, |shape| shape.spatial.len());
        let (first_rank, second_rank) = (rank(first), rank(second));
        if second_rank == first_rank {
            return Ok(factor.to_owned());
        }
        let axes: Vec<u8> = (2..2 + first_rank as i64).flat_map(i64::to_le_bytes).collect();
        let axes = self.shared(DataType::I64, &[first_rank], axes);
        let lifted = self.fresh();
        self.node("Unsqueeze", &[factor.to_owned(), axes], lifted.clone(), Vec::new());
        // As behind a pool: both sides carry the encoding, so that the product sees integers.
        self.quantise(second, lifted)
    }

    fn conv(&mut self, index: usize, conv: &Conv, input: &str, output: String) -> Result<(), Error> {
        let per_group = conv.weight.len() / conv.out_channels / conv.window.taps();
        let mut dims = vec![conv.out_channels, per_group];
        dims.extend_from_slice(&conv.window.kernel);
        let (weight, bias) = self.weights(index, &conv.weight, &dims, &conv.bias)?;
        let mut attributes = window_attributes(&conv.window, true);
        if conv.groups != 1 {
            attributes.push(AttributeProto::size("group", conv.groups));
        }
        let inputs = [input.to_owned(), weight, bias];
        self.with_relu(conv.relu, output, |writer, output| writer.node("Conv", &inputs, output, attributes));
        Ok(())
    }

    fn linear(&mut self, index: usize, linear: &Linear, input: &str, output: String) -> Result<(), Error> {
        let source = self.graph.nodes()[index].inputs()[0];
        let flat = self.graph.shape(source).is_none_or(|shape| shape.spatial.is_empty());
        let input = if flat {
            input.to_owned()
        } else {
            let flattened = self.fresh();
            self.node(
                "Flatten",
                &[input.to_owned()],
                flattened.clone(),
                vec![AttributeProto::int("axis", 1)],
            );
            self.quantise(source, flattened)?
        };
        let dims = [linear.out_features, linear.weight.len() / linear.out_features];
        let (weight, bias) = self.weights(index, &linear.weight, &dims, &linear.bias)?;
        let attributes = vec![AttributeProto::int("transB", 1)];
        let inputs = [input, weight, bias];
        self.with_relu(linear.relu, output, |writer, output| {
            writer.node("Gemm", &inputs, output, attributes);
        });
        Ok(())
    }

    /// An average over the padding too is a depthwise convolution with equal weights, exactly; and ONNX Runtime's
    /// integer convolution takes a tenth of the time of its integer average.
    fn mean(&mut self, encoding: &Encoding, window: &Window, source: ValueId, input: &str, output: String) {
        let channels = self.graph.shape(source).map_or(0, |shape| shape.channels);
        let taps = window.taps();
        #[expect(clippy::cast_precision_loss)]
        let weight = 1.0 / taps as f32;
        let scale = weight / encoding.weight_max();
        let dims: Vec<usize> = [channels, 1].into_iter().chain(window.kernel.iter().copied()).collect();
        let integer = encoding.weight_integer(weight, scale).cast_unsigned();
        let weight = self.constant(DataType::I8, &dims, vec![integer; channels * taps]);
        let scale = self.shared(DataType::F32, &[], scale.to_le_bytes().to_vec());
        let zero = self.constant(DataType::I8, &[], vec![0]);
        let dequantised = self.fresh();
        self.node("DequantizeLinear", &[weight, scale, zero], dequantised.clone(), Vec::new());
        let mut attributes = window_attributes(window, false);
        attributes.push(AttributeProto::size("group", channels));
        self.node("Conv", &[input.to_owned(), dequantised], output, attributes);
    }

    /// Weights and bias as the operation's inputs: f32, or integers behind DequantizeLinear.
    fn weights(
        &mut self,
        index: usize,
        weight: &[f32],
        dims: &[usize],
        bias: &[f32],
    ) -> Result<(String, String), Error> {
        let channels = [bias.len()];
        let source = self.graph.nodes()[index].inputs()[0];
        let quantised = self.encoding.and_then(|encoding| Some((encoding, encoding.value(source)?)));
        let Some((encoding, activation)) = quantised else {
            return Ok((self.float(index, dims, weight)?, self.float(index, &channels, bias)?));
        };
        let missing = || Error::Encoding { tensor: format!("node {index}"), reason: "it is missing".into() };
        let WeightEncoding { scales } = encoding.weight(index).ok_or_else(missing)?;
        let per_channel = weight.len() / scales.len();
        let integers = weight
            .chunks_exact(per_channel)
            .zip(scales)
            .flat_map(|(row, scale)| row.iter().map(|value| encoding.weight_integer(*value, *scale)))
            .map(i8::cast_unsigned)
            .collect();
        let weight = self.constant(DataType::I8, dims, integers);
        let scale = self.constant(DataType::F32, &channels, f32_bytes(scales));
        let zero = self.constant(DataType::I8, &channels, vec![0; bias.len()]);
        let weight = self.dequantise(&[weight, scale, zero]);
        let bias_scales: Vec<f32> = scales.iter().map(|scale| scale * activation.scale).collect();
        let integers = bias.iter().zip(&bias_scales).flat_map(|(value, scale)| {
            #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, which is wanted")]
            let integer = (value / scale).round_ties_even() as i32;
            integer.to_le_bytes()
        });
        let bias = self.constant(DataType::I32, &channels, integers.collect());
        let scale = self.constant(DataType::F32, &channels, f32_bytes(&bias_scales));
        let bias = self.dequantise(&[bias, scale]);
        Ok((weight, bias))
    }

    /// A constant of floats as f32.
    fn float(&mut self, index: usize, dims: &[usize], values: &[f32]) -> Result<String, Error> {
        if !self.half {
            return Ok(self.constant(DataType::F32, dims, f32_bytes(values)));
        }
        let halves: Vec<f16> = values.iter().map(|value| f16::from_f32(*value)).collect();
        if let Some(at) = halves.iter().position(|value| !value.is_finite()) {
            let reason = format!("value {at} is beyond 16-bit floats");
            return Err(Error::Encoding { tensor: format!("node {index}"), reason });
        }
        let bytes = halves.iter().flat_map(|value| value.to_le_bytes()).collect();
        let constant = self.constant(DataType::F16, dims, bytes);
        let output = self.fresh();
        let to = AttributeProto::int("to", DataType::F32 as i64);
        self.node("Cast", &[constant], output.clone(), vec![to]);
        Ok(output)
    }

    /// Dequantises a constant along its first axis.
    fn dequantise(&mut self, inputs: &[String]) -> String {
        let output = self.fresh();
        self.node("DequantizeLinear", inputs, output.clone(), vec![AttributeProto::int("axis", 0)]);
        output
    }

    /// A pair of QuantizeLinear and DequantizeLinear behind `name`, where `id` has an encoding.
    fn quantise(&mut self, id: ValueId, name: String) -> Result<String, Error> {
        let Some(Affine { scale, zero_point }) = self.encoding.and_then(|encoding| encoding.value(id)) else {
            return Ok(name);
        };
        let scale = self.shared(DataType::F32, &[], scale.to_le_bytes().to_vec());
        let zero = self.shared(DataType::U8, &[], vec![zero_point]);
        let (quantised, output) = (self.fresh(), self.fresh());
        self.node("QuantizeLinear", &[name, scale.clone(), zero.clone()], quantised.clone(), Vec::new());
        self.node("DequantizeLinear", &[quantised, scale, zero], output.clone(), Vec::new());
        Ok(output)
    }

    fn with_relu(&mut self, relu: bool, output: String, write: impl FnOnce(&mut Self, String)) {
        if relu {
            let inner = self.fresh();
            write(self, inner.clone());
            self.node("Relu", &[inner], output, Vec::new());
        } else {
            write(self, output);
        }
    }

    fn node(&mut self, op_type: &str, inputs: &[String], output: String, attribute: Vec<AttributeProto>) {
        self.nodes.push(NodeProto::new(op_type, inputs, &output, attribute));
    }

    fn constant(&mut self, data_type: DataType, dims: &[usize], bytes: Vec<u8>) -> String {
        let name = self.fresh();
        self.initializers.push(TensorProto::new(name.clone(), data_type, dims, bytes));
        name
    }

    /// A constant that is written once however often it is asked for. Not for 8-bit weights and their zero points:
    /// where ONNX Runtime takes its exact kernels on x86, it replaces each under one name and fails on a second reader.
    fn shared(&mut self, data_type: DataType, dims: &[usize], bytes: Vec<u8>) -> String {
        let key = (data_type as i32, dims.to_vec(), bytes);
        if let Some(name) = self.shared.get(&key) {
            return name.clone();
        }
        let name = self.constant(data_type, dims, key.2.clone());
        self.shared.insert(key, name.clone());
        name
    }

    /// A name that no other value has: a letter and a number in base 36.
    fn fresh(&mut self) -> String {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut number = self.next;
        self.next += 1;
        let mut name = String::from("t");
        loop {
            name.push(char::from(DIGITS[number % 36]));
            number /= 36;
            if number == 0 {
                return name;
            }
        }
    }
}

/// Only what differs from the operator's own defaults is written.
fn window_attributes(window: &Window, dilates: bool) -> Vec<AttributeProto> {
    let mut attributes = vec![AttributeProto::ints("kernel_shape", window.kernel.iter().copied())];
    if window.stride.iter().any(|stride| *stride != 1) {
        attributes.push(AttributeProto::ints("strides", window.stride.iter().copied()));
    }
    let both = window.padding.iter().chain(&window.padding_after);
    if both.clone().any(|padding| *padding != 0) {
        attributes.push(AttributeProto::ints("pads", both.copied()));
    }
    if dilates && window.dilation.iter().any(|dilation| *dilation != 1) {
        attributes.push(AttributeProto::ints("dilations", window.dilation.iter().copied()));
    }
    attributes
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
