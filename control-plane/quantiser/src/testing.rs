//! Small models for tests.

use crate::proto::{
    AttributeProto, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto, numbers,
};
use prost::Message;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use runtime::Ort;

/// ONNX Runtime, or a line that says why a test does without it.
///
/// # Panics
/// Where the environment names a library and it cannot be opened: a test must not pass by testing nothing.
pub(crate) fn ort() -> Option<Ort> {
    match Ort::open(None) {
        Ok(ort) => Some(ort),
        Err(error) if std::env::var_os("EDGEWRIGHT_ORT").is_some() => panic!("EDGEWRIGHT_ORT: {error}"),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// A model in the making, with random weights.
pub(crate) struct Build {
    pub(crate) rng: ChaCha8Rng,
    pub(crate) graph: GraphProto,
    pub(crate) opset: i64,
    pub(crate) ir_version: i64,
}

impl Build {
    /// One f32 input `x` of these axes behind a free batch.
    pub(crate) fn new(seed: u64, axes: &[usize]) -> Self {
        let batch = Dimension::Param("batch".to_owned());
        let axes = std::iter::once(batch).chain(numbers(axes));
        let graph = GraphProto {
            name: "test".to_owned(),
            input: vec![ValueInfoProto::tensor("x", DataType::F32, axes)],
            ..GraphProto::default()
        };
        Self { rng: ChaCha8Rng::seed_from_u64(seed), graph, opset: 17, ir_version: 8 }
    }

    pub(crate) fn random(&mut self, count: usize, limit: f32) -> Vec<f32> {
        (0..count).map(|_| self.rng.random_range(-limit..limit)).collect()
    }

    pub(crate) fn constant(&mut self, dims: &[usize], values: &[f32]) -> String {
        let name = format!("c{}", self.graph.initializer.len());
        self.graph.initializer.push(TensorProto::floats(&name, dims, values));
        name
    }

    pub(crate) fn ints(&mut self, values: &[i64]) -> String {
        let name = format!("c{}", self.graph.initializer.len());
        self.graph.initializer.push(TensorProto::ints(&name, values));
        name
    }

    pub(crate) fn node(&mut self, op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = format!("v{}", self.graph.node.len());
        let inputs: Vec<String> = inputs.iter().map(|name| (*name).to_owned()).collect();
        self.graph.node.push(NodeProto::new(op_type, &inputs, &name, attributes));
        name
    }

    /// A 3x3 convolution with padding, or a pointwise one.
    pub(crate) fn conv(&mut self, x: &str, from: usize, to: usize, kernel: usize, group: usize) -> String {
        let each = from / group * kernel * kernel;
        #[expect(clippy::cast_precision_loss)]
        let limit = (6.0 / each as f32).sqrt();
        let (weight, bias) = (self.random(to * each, limit), self.random(to, 0.2));
        let weight = self.constant(&[to, from / group, kernel, kernel], &weight);
        let bias = self.constant(&[to], &bias);
        let attributes = vec![
            AttributeProto::ints("kernel_shape", [kernel, kernel]),
            AttributeProto::ints("pads", [kernel / 2; 4]),
            AttributeProto::size("group", group),
        ];
        self.node("Conv", &[x, &weight, &bias], attributes)
    }

    pub(crate) fn gemm(&mut self, x: &str, from: usize, to: usize) -> String {
        #[expect(clippy::cast_precision_loss)]
        let limit = (6.0 / from as f32).sqrt();
        let (weight, bias) = (self.random(to * from, limit), self.random(to, 0.2));
        let (weight, bias) = (self.constant(&[to, from], &weight), self.constant(&[to], &bias));
        self.node("Gemm", &[x, &weight, &bias], vec![AttributeProto::int("transB", 1)])
    }

    /// The model that gives these values.
    pub(crate) fn model(mut self, outputs: &[&str]) -> ModelProto {
        self.graph.output = outputs.iter().map(|name| ValueInfoProto::f32_of_any_shape(name)).collect();
        ModelProto {
            ir_version: self.ir_version,
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: self.opset }],
            ..ModelProto::default()
        }
    }

    pub(crate) fn bytes(self, outputs: &[&str]) -> Vec<u8> {
        self.model(outputs).encode_to_vec()
    }
}

/// Three convolutions with a residual over 3x12x12, then a classifier of five classes.
pub(crate) fn residual(seed: u64) -> Build {
    let mut build = Build::new(seed, &[3, 12, 12]);
    let stem = build.conv("x", 3, 8, 3, 1);
    let stem = build.node("Relu", &[&stem], Vec::new());
    let side = build.conv(&stem, 8, 16, 3, 1);
    let side = build.node("Relu", &[&side], Vec::new());
    let side = build.conv(&side, 16, 8, 1, 1);
    let sum = build.node("Add", &[&stem, &side], Vec::new());
    let sum = build.node("Relu", &[&sum], Vec::new());
    let deep = build.conv(&sum, 8, 8, 3, 8);
    let joined = build.node("Concat", &[&deep, &sum], vec![AttributeProto::int("axis", 1)]);
    let pool = build.node(
        "MaxPool",
        &[&joined],
        vec![AttributeProto::ints("kernel_shape", [2, 2]), AttributeProto::ints("strides", [2, 2])],
    );
    let mean = build.node("GlobalAveragePool", &[&pool], Vec::new());
    let flat = build.node("Flatten", &[&mean], Vec::new());
    let logits = build.gemm(&flat, 16, 5);
    build.node("Softmax", &[&logits], vec![AttributeProto::int("axis", -1)]);
    build
}

/// Values of `count` samples of `each`.
pub(crate) fn samples(seed: u64, count: usize, each: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count * each).map(|_| rng.random_range(-1.0..1.0)).collect()
}
