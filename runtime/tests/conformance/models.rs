//! Small ONNX models written by hand, in both forms.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

pub fn tensor(name: &str, data_type: DataType, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: data_type as i32,
        dims: dims.to_vec(),
        raw_data,
        ..TensorProto::default()
    }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    tensor(name, DataType::Float, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub fn node(op_type: &str, input: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: 2, ..AttributeProto::default() }
}

pub fn value(name: &str, axes: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let axis = |value| Dimension { value: Some(value), ..Dimension::default() };
    let batch = axis(Value::DimParam("N".into()));
    let dim = std::iter::once(batch).chain(axes.iter().map(|size| axis(Value::DimValue(*size)))).collect();
    let shape = Some(TensorShapeProto { dim });
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape };
    let r#type =
        Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() });
    ValueInfoProto { name: name.into(), r#type, ..ValueInfoProto::default() }
}

pub fn model(graph: GraphProto) -> Vec<u8> {
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    let proto =
        ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() };
    proto.encode_to_vec()
}

pub const WEIGHT: [f32; 6] = [1.0, -0.5, 0.25, 0.75, -1.0, 0.5];
pub const BIAS: [f32; 3] = [0.1, 0.0, -0.2];

/// `softmax(relu(input) W^T + b)` over two features and three classes, in f32.
pub fn plain() -> GraphProto {
    GraphProto {
        name: "plain".into(),
        initializer: vec![floats("w", &[3, 2], &WEIGHT), floats("b", &[3], &BIAS)],
        input: vec![value("input", &[2])],
        output: vec![value("probabilities", &[3])],
        node: vec![
            node("Relu", &["input"], "r", vec![]),
            node("Gemm", &["r", "w", "b"], "l", vec![int("transB", 1)]),
            node("Softmax", &["l"], "probabilities", vec![int("axis", 1)]),
        ],
        ..GraphProto::default()
    }
}

/// The same with u8 activations in 0..4 and s8 weights.
pub fn quantised() -> GraphProto {
    let weight = WEIGHT.iter().flat_map(|w| ((w * 127.0).round() as i8).to_le_bytes()).collect();
    let scale = 4.0 / 255.0;
    let bias = BIAS.iter().flat_map(|b| ((b / (scale / 127.0)).round() as i32).to_le_bytes()).collect();
    let mut graph = plain();
    graph.name = "quantised".into();
    graph.initializer = vec![
        tensor("w", DataType::Int8, &[3, 2], weight),
        floats("ws", &[3], &[1.0 / 127.0; 3]),
        tensor("wz", DataType::Int8, &[3], vec![0; 3]),
        tensor("b", DataType::Int32, &[3], bias),
        floats("bs", &[3], &[scale / 127.0; 3]),
        floats("s", &[], &[scale]),
        tensor("z", DataType::Uint8, &[], vec![0]),
    ];
    graph.node = vec![
        node("Relu", &["input"], "r", vec![]),
        node("QuantizeLinear", &["r", "s", "z"], "q", vec![]),
        node("DequantizeLinear", &["q", "s", "z"], "d", vec![]),
        node("DequantizeLinear", &["w", "ws", "wz"], "wd", vec![int("axis", 0)]),
        node("DequantizeLinear", &["b", "bs"], "bd", vec![int("axis", 0)]),
        node("Gemm", &["d", "wd", "bd"], "l", vec![int("transB", 1)]),
        node("Softmax", &["l"], "probabilities", vec![int("axis", 1)]),
    ];
    graph
}

/// What both compute, by the book.
pub fn expected(input: &[f32]) -> Vec<f32> {
    let mut all = Vec::new();
    for x in input.chunks_exact(2) {
        let logit = |class: usize| {
            let row = &WEIGHT[class * 2..][..2];
            x.iter().zip(row).map(|(x, w)| x.clamp(0.0, 4.0) * w).sum::<f32>() + BIAS[class]
        };
        let e: Vec<f32> = (0..3).map(|class| logit(class).exp()).collect();
        let sum: f32 = e.iter().sum();
        all.extend(e.iter().map(|e| e / sum));
    }
    all
}
