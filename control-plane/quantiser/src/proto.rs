//! The messages of `onnx.proto` with every field of the standard (IR 14), by its field numbers.
//!
//! What nothing here looks into (graphs inside attributes, functions, sparse constants, hints for many devices) is kept
//! as the bytes that it came in, so that a file that is read and written again has lost nothing.

use prost::{Message, Oneof};

/// A whole file.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(string, tag = "4")]
    pub domain: String,
    #[prost(int64, optional, tag = "5")]
    pub model_version: Option<i64>,
    #[prost(string, tag = "6")]
    pub doc_string: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    #[prost(bytes = "vec", repeated, tag = "14")]
    pub metadata_props: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "20")]
    pub training_info: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "25")]
    pub functions: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "26")]
    pub configuration: Vec<Vec<u8>>,
}

/// Which operators the nodes are from.
#[derive(Clone, PartialEq, Message)]
pub struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// Nodes, constants, inputs and outputs.
#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    #[prost(string, tag = "10")]
    pub doc_string: String,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
    #[prost(bytes = "vec", repeated, tag = "14")]
    pub quantization_annotation: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub sparse_initializer: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "16")]
    pub metadata_props: Vec<Vec<u8>>,
}

/// One operation.
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    #[prost(string, tag = "6")]
    pub doc_string: String,
    #[prost(string, tag = "7")]
    pub domain: String,
    #[prost(string, tag = "8")]
    pub overload: String,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub metadata_props: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "10")]
    pub device_configurations: Vec<Vec<u8>>,
}

/// A setting of an operation. Scalars are optional on the wire: zero is written, as the checker wants.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<TensorProto>,
    #[prost(bytes = "vec", optional, tag = "6")]
    pub g: Option<Vec<u8>>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub strings: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "10")]
    pub tensors: Vec<TensorProto>,
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub graphs: Vec<Vec<u8>>,
    #[prost(string, tag = "13")]
    pub doc_string: String,
    #[prost(bytes = "vec", optional, tag = "14")]
    pub tp: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub type_protos: Vec<Vec<u8>>,
    #[prost(int32, tag = "20")]
    pub r#type: i32,
    #[prost(string, tag = "21")]
    pub ref_attr_name: String,
    #[prost(bytes = "vec", optional, tag = "22")]
    pub sparse_tensor: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "23")]
    pub sparse_tensors: Vec<Vec<u8>>,
}

/// A constant.
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub segment: Option<Vec<u8>>,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub string_data: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    #[prost(string, tag = "12")]
    pub doc_string: String,
    #[prost(bytes = "vec", repeated, tag = "13")]
    pub external_data: Vec<Vec<u8>>,
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
    #[prost(bytes = "vec", repeated, tag = "16")]
    pub metadata_props: Vec<Vec<u8>>,
}

/// A named input or output.
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
    #[prost(string, tag = "3")]
    pub doc_string: String,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub metadata_props: Vec<Vec<u8>>,
}

/// The type of a value.
#[derive(Clone, PartialEq, Message)]
pub struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorTypeProto>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub sequence_type: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub map_type: Option<Vec<u8>>,
    #[prost(string, tag = "6")]
    pub denotation: String,
    #[prost(bytes = "vec", optional, tag = "7")]
    pub opaque_type: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    pub sparse_tensor_type: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub optional_type: Option<Vec<u8>>,
}

/// Element type and shape.
#[derive(Clone, PartialEq, Message)]
pub struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// A shape.
#[derive(Clone, PartialEq, Message)]
pub struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<DimensionProto>,
}

/// One axis: a number, a name, or neither.
#[derive(Clone, PartialEq, Message)]
pub struct DimensionProto {
    #[prost(oneof = "Dimension", tags = "1, 2")]
    pub value: Option<Dimension>,
    #[prost(string, tag = "3")]
    pub denotation: String,
}

/// See [`DimensionProto`].
#[derive(Clone, PartialEq, Oneof)]
pub enum Dimension {
    #[prost(int64, tag = "1")]
    Value(i64),
    #[prost(string, tag = "2")]
    Param(String),
}

/// Element types, as `TensorProto.DataType` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    Bool = 9,
    F16 = 10,
    F64 = 11,
    U32 = 12,
    U64 = 13,
}

impl DataType {
    const ALL: [Self; 12] = [
        Self::F32,
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::Bool,
        Self::F16,
        Self::F64,
        Self::U32,
        Self::U64,
    ];

    /// The type of this number, if it is one that numbers have.
    pub fn of(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as i32 == number)
    }
}

const ATTRIBUTE_INT: i32 = 2;
const ATTRIBUTE_INTS: i32 = 7;

impl AttributeProto {
    /// A whole number.
    pub fn int(name: &str, value: i64) -> Self {
        Self { name: name.to_owned(), i: Some(value), r#type: ATTRIBUTE_INT, ..Self::default() }
    }

    /// A size, far below the end of an i64.
    pub fn size(name: &str, value: usize) -> Self {
        Self::int(name, size(value))
    }

    /// A list of sizes.
    pub fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> Self {
        let ints = values.into_iter().map(size).collect();
        Self { name: name.to_owned(), ints, r#type: ATTRIBUTE_INTS, ..Self::default() }
    }
}

impl NodeProto {
    /// A node of the standard operators with one output.
    pub fn new(op_type: &str, input: &[String], output: &str, attribute: Vec<AttributeProto>) -> Self {
        Self {
            input: input.to_vec(),
            output: vec![output.to_owned()],
            op_type: op_type.to_owned(),
            attribute,
            ..Self::default()
        }
    }

    /// The setting of this name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// The whole number of this name, or what the operator takes where it is not given.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    /// The number of this name, or what the operator takes where it is not given.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|attribute| attribute.f).unwrap_or(default)
    }

    /// What people call it: its name, or else its operator and first output.
    pub fn title(&self) -> String {
        let shown = if self.name.is_empty() { self.output.first() } else { Some(&self.name) };
        format!("{} {:?}", self.op_type, shown.map(String::as_str).unwrap_or_default())
    }
}

impl TensorProto {
    /// A constant of these bytes.
    pub fn new(name: String, data_type: DataType, dims: &[usize], raw_data: Vec<u8>) -> Self {
        let dims = dims.iter().copied().map(size).collect();
        Self { dims, data_type: data_type as i32, name, raw_data, ..Self::default() }
    }

    /// A constant of f32 values.
    pub fn floats(name: &str, dims: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(name.to_owned(), DataType::F32, dims, bytes)
    }

    /// A constant of i64 values along one axis.
    pub fn ints(name: &str, values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(name.to_owned(), DataType::I64, &[values.len()], bytes)
    }

    /// The shape, if every axis is a size.
    pub fn shape(&self) -> Option<Vec<usize>> {
        self.dims.iter().map(|axis| usize::try_from(*axis).ok()).collect()
    }

    /// Bytes of its values.
    pub fn data_bytes(&self) -> usize {
        let strings: usize = self.string_data.iter().map(Vec::len).sum();
        let small = 4 * (self.float_data.len() + self.int32_data.len());
        let large = 8 * (self.int64_data.len() + self.double_data.len() + self.uint64_data.len());
        self.raw_data.len() + small + large + strings
    }

    /// The values of an f32 constant.
    pub fn f32_values(&self) -> Option<Vec<f32>> {
        if self.data_type != DataType::F32 as i32 {
            return None;
        }
        if self.raw_data.is_empty() {
            return Some(self.float_data.clone());
        }
        Some(self.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// The values of an i64 or i32 constant.
    pub fn i64_values(&self) -> Option<Vec<i64>> {
        let raw = &self.raw_data;
        match DataType::of(self.data_type)? {
            DataType::I64 if raw.is_empty() => Some(self.int64_data.clone()),
            DataType::I64 => {
                let words = raw.chunks_exact(8);
                Some(words.filter_map(|b| Some(i64::from_le_bytes(b.try_into().ok()?))).collect())
            }
            DataType::I32 if raw.is_empty() => Some(self.int32_data.iter().copied().map(i64::from).collect()),
            DataType::I32 => {
                let words = raw.chunks_exact(4);
                Some(words.map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect())
            }
            _ => None,
        }
    }
}

impl ValueInfoProto {
    /// An f32 value with a free first axis of the name `batch`.
    pub fn f32(name: &str, batch: &str, axes: &[usize]) -> Self {
        let batch = Dimension::Param(batch.to_owned());
        Self::tensor(name, DataType::F32, std::iter::once(batch).chain(numbers(axes)))
    }

    /// A value of a type and shape.
    pub fn tensor(name: &str, data_type: DataType, axes: impl IntoIterator<Item = Dimension>) -> Self {
        let axis = |value| DimensionProto { value: Some(value), ..DimensionProto::default() };
        let shape = TensorShapeProto { dim: axes.into_iter().map(axis).collect() };
        Self::typed(name, TensorTypeProto { elem_type: data_type as i32, shape: Some(shape) })
    }

    /// An f32 value of a shape that nobody knows.
    pub fn f32_of_any_shape(name: &str) -> Self {
        Self::typed(name, TensorTypeProto { elem_type: DataType::F32 as i32, shape: None })
    }

    fn typed(name: &str, tensor: TensorTypeProto) -> Self {
        let kind = TypeProto { tensor_type: Some(tensor), ..TypeProto::default() };
        Self { name: name.to_owned(), r#type: Some(kind), ..Self::default() }
    }

    /// Element type and axes, where the value is a tensor; an axis of no fixed size is `None`.
    pub fn tensor_type(&self) -> Option<(i32, Option<Vec<Option<usize>>>)> {
        let tensor = self.r#type.as_ref()?.tensor_type.as_ref()?;
        let size = |axis: &DimensionProto| match &axis.value {
            Some(Dimension::Value(size)) => usize::try_from(*size).ok().filter(|size| *size > 0),
            Some(Dimension::Param(_)) | None => None,
        };
        let axes = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(size).collect());
        Some((tensor.elem_type, axes))
    }
}

/// Axes of fixed sizes.
pub fn numbers(axes: &[usize]) -> impl Iterator<Item = Dimension> {
    axes.iter().map(|axis| Dimension::Value(size(*axis)))
}

/// Sizes of a graph are bounded far below this.
fn size(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
