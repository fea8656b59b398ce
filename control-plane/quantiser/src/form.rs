//! The form that devices run: one f32 input and one f32 output, both batch first, of fixed shapes behind the batch. The
//! input has two or three axes behind the batch, the output one.

use crate::{
    net::Net,
    proto::{AttributeProto, DataType, Dimension, NodeProto, TensorProto, ValueInfoProto, numbers},
};
use shared::{limits::TENSOR_ELEMENTS_MAX, wire::one_line};

/// Name of the input.
pub const INPUT: &str = "input";
/// Name of the output, whatever it holds: what the forge's own models call it.
pub const OUTPUT: &str = "probabilities";
/// Name of the free batch axis.
pub const BATCH: &str = "N";
/// Fewest and most axes of an input behind the batch.
const INPUT_AXES: std::ops::RangeInclusive<usize> = 2..=3;

/// Why a model has no such form. One line, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input.
    #[error("input {name:?} {reason}")]
    Input {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The number of inputs.
    #[error(
        "the model has {count} inputs ({names}), devices run models with one: give the others a constant with --freeze NAME or NAME=NUMBER"
    )]
    Inputs {
        /// How many.
        count: usize,
        /// Which.
        names: String,
    },
    /// The output.
    #[error("output {name:?} {reason}")]
    Output {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The number of outputs.
    #[error(
        "the model has {count} outputs ({names}), devices run models with one: choose it with --output NAME"
    )]
    Outputs {
        /// How many.
        count: usize,
        /// Which.
        names: String,
    },
    /// A name that the model does not know.
    #[error("the model has no {what} {name:?}; it has {names}")]
    NoSuch {
        /// `input` or `output`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        names: String,
    },
}

/// What a person says of a model's form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    /// The output to keep; the only one where none is named.
    pub output: Option<String>,
    /// Inputs that become constants of this value.
    pub freeze: Vec<(String, f64)>,
}

/// How a sample goes into the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Shape of one sample as the model had it, without the batch.
    pub shape: Vec<usize>,
    /// Shape of one sample as devices give it: the same values.
    pub device_shape: Vec<usize>,
    /// Any number of samples at once, where the model says that it takes them.
    pub batch_free: bool,
}

/// Brings the inputs of `net` and the choice of its output into that form. `sample` is the shape of one calibration
/// sample, without the batch: it says what the model leaves open.
///
/// # Errors
/// Inputs or outputs that have no such form.
pub fn shape_input(net: &mut Net, sample: &[usize], wishes: &Wishes) -> Result<Input, Error> {
    for (name, value) in &wishes.freeze {
        freeze(net, name, *value)?;
    }
    choose_output(net, wishes.output.as_deref())?;
    let inputs = &net.graph.input;
    let [input] = &inputs[..] else {
        let names = listed(inputs.iter().map(|input| input.name.as_str()));
        return Err(Error::Inputs { count: inputs.len(), names });
    };
    let name = input.name.clone();
    let wrong = |reason: String| Error::Input { name: one_line(&name), reason };
    let (elem_type, axes) =
        input.tensor_type().ok_or_else(|| wrong("is not a tensor of numbers".to_owned()))?;
    let elem_type = DataType::of(elem_type)
        .filter(|kind| *kind != DataType::Bool)
        .ok_or_else(|| wrong("has a type that no f32 value becomes".to_owned()))?;
    let axes = axes.unwrap_or_else(|| vec![None; sample.len() + 1]);
    let Some((batch, axes)) = axes.split_first() else {
        return Err(wrong("is one number: devices give a batch of samples".to_owned()));
    };
    if batch.is_some_and(|batch| batch != 1) {
        let reason = format!(
            "takes {} samples at a time, devices give one: export it with a batch of 1 or a free one",
            batch.unwrap_or(0)
        );
        return Err(wrong(reason));
    }
    let fits = |sample: &[usize]| {
        axes.len() == sample.len()
            && axes.iter().zip(sample).all(|(axis, size)| axis.is_none_or(|axis| axis == *size))
    };
    // The same values without an axis of one in front, or in one row.
    let row = [sample.iter().fold(1usize, |product, axis| product.saturating_mul(*axis))];
    let without = sample.strip_prefix(&[1]).unwrap_or(sample);
    let Some(sample) = [sample, without, &row].into_iter().find(|sample| fits(sample)) else {
        let wanted: Vec<String> =
            axes.iter().map(|axis| axis.map_or_else(|| "any".to_owned(), |axis| axis.to_string())).collect();
        return Err(wrong(format!(
            "takes samples of [{}], the calibration samples are {sample:?}",
            wanted.join(", ")
        )));
    };
    let elements = sample.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
    if !elements.is_some_and(|elements| (1..=TENSOR_ELEMENTS_MAX).contains(&elements)) {
        return Err(wrong(format!(
            "takes samples of {sample:?}, allowed are 1 to {TENSOR_ELEMENTS_MAX} values"
        )));
    }
    let device_shape = device_shape(sample);
    let free = batch.is_none();
    adapt_input(net, &name, elem_type, sample, &device_shape, free);
    Ok(Input { shape: sample.to_vec(), device_shape, batch_free: free })
}

/// Axes of the one input behind the batch, where the model says so.
///
/// # Errors
/// The model has not one input beside those that are frozen.
pub fn input_axes(net: &Net, wishes: &Wishes) -> Result<Option<usize>, Error> {
    let frozen = |name: &str| wishes.freeze.iter().any(|(frozen, _)| frozen == name);
    let inputs: Vec<&ValueInfoProto> = net.graph.input.iter().filter(|input| !frozen(&input.name)).collect();
    let [input] = inputs[..] else {
        let names = listed(inputs.iter().map(|input| input.name.as_str()));
        return Err(Error::Inputs { count: inputs.len(), names });
    };
    Ok(input.tensor_type().and_then(|(_, axes)| axes?.len().checked_sub(1)))
}

/// The same values with as many axes as a device's input has: an axis of one in front, where there are too few.
fn device_shape(sample: &[usize]) -> Vec<usize> {
    let missing = INPUT_AXES.start().saturating_sub(sample.len());
    std::iter::repeat_n(1, missing).chain(sample.iter().copied()).collect()
}

fn adapt_input(
    net: &mut Net,
    name: &str,
    elem_type: DataType,
    sample: &[usize],
    device: &[usize],
    free: bool,
) {
    let mut taken = net.names();
    if name != INPUT && taken.contains(INPUT) {
        // Who has the name now makes room.
        let other = net.fresh(&mut taken);
        net.rename(INPUT, &other);
    }
    let mut front = Vec::new();
    let mut last = INPUT.to_owned();
    let inner = net.fresh(&mut taken);
    net.rename(name, &inner);
    if device != sample {
        let (shape, reshaped) = (net.fresh(&mut taken), net.fresh(&mut taken));
        let axes: Vec<i64> = std::iter::once(-1).chain(sample.iter().map(|axis| *axis as i64)).collect();
        net.graph.initializer.push(TensorProto::ints(&shape, &axes));
        front.push(NodeProto::new("Reshape", &[last, shape], &reshaped, Vec::new()));
        last = reshaped;
    }
    if elem_type == DataType::F32 {
        match front.last_mut() {
            Some(node) => node.output = vec![inner],
            // Nothing in between: the model reads the input itself.
            None => net.rename(&inner, INPUT),
        }
    } else {
        let to = AttributeProto::int("to", elem_type as i64);
        front.push(NodeProto::new("Cast", &[last], &inner, vec![to]));
    }
    net.graph.node.splice(0..0, front);
    net.graph.input = vec![input_info(device, free)];
}

fn input_info(device: &[usize], free: bool) -> ValueInfoProto {
    let batch = if free { Dimension::Param(BATCH.to_owned()) } else { Dimension::Value(1) };
    ValueInfoProto::tensor(INPUT, DataType::F32, std::iter::once(batch).chain(numbers(device)))
}

/// Has the model take one sample at a time, whatever it says of itself.
pub fn fix_batch(net: &mut Net, input: &mut Input) {
    input.batch_free = false;
    net.graph.input = vec![input_info(&input.device_shape, false)];
}

/// Gives the output the form of devices. `shape` is what came out for one sample, the batch first.
///
/// # Errors
/// An output that is not one row for one sample, or too large.
pub fn shape_output(net: &mut Net, shape: &[usize], free: bool) -> Result<usize, Error> {
    let Some(output) = net.graph.output.first().cloned() else {
        return Err(Error::Outputs { count: 0, names: String::new() });
    };
    let name = output.name.clone();
    let wrong = |reason: String| Error::Output { name: one_line(&name), reason };
    let (elem_type, _) = output.tensor_type().unwrap_or((DataType::F32 as i32, None));
    let elements = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
    let elements = elements.filter(|elements| (1..=TENSOR_ELEMENTS_MAX).contains(elements));
    let Some(elements) = elements.filter(|_| shape.first() == Some(&1)) else {
        return Err(wrong(format!(
            "has the shape {shape:?} for one sample; devices take one row a sample, the batch first"
        )));
    };
    let mut taken = net.names();
    let mut last = name;
    if elem_type != DataType::F32 as i32 {
        let cast = net.fresh(&mut taken);
        let to = AttributeProto::int("to", DataType::F32 as i64);
        net.graph.node.push(NodeProto::new("Cast", &[last], &cast, vec![to]));
        last = cast;
    }
    match shape.len() {
        2 => {}
        1 => {
            let (axes, column) = (net.fresh(&mut taken), net.fresh(&mut taken));
            net.graph.initializer.push(TensorProto::ints(&axes, &[-1, 1]));
            net.graph.node.push(NodeProto::new("Reshape", &[last, axes], &column, Vec::new()));
            last = column;
        }
        _ => {
            let flat = net.fresh(&mut taken);
            let axis = AttributeProto::int("axis", 1);
            net.graph.node.push(NodeProto::new("Flatten", &[last], &flat, vec![axis]));
            last = flat;
        }
    }
    if last != OUTPUT {
        if taken.contains(OUTPUT) {
            let other = net.fresh(&mut taken);
            net.rename(OUTPUT, &other);
        }
        net.rename(&last, OUTPUT);
    }
    let batch = if free { Dimension::Param(BATCH.to_owned()) } else { Dimension::Value(1) };
    let axes = [elements];
    let axes = std::iter::once(batch).chain(numbers(&axes));
    net.graph.output = vec![ValueInfoProto::tensor(OUTPUT, DataType::F32, axes)];
    Ok(elements)
}

/// Makes a constant of an input; an axis of no fixed size becomes one.
fn freeze(net: &mut Net, name: &str, value: f64) -> Result<(), Error> {
    let inputs = &net.graph.input;
    let Some(at) = inputs.iter().position(|input| input.name == name) else {
        let names = listed(inputs.iter().map(|input| input.name.as_str()));
        return Err(Error::NoSuch { what: "input", name: one_line(name), names });
    };
    let wrong = |reason: &str| Error::Input { name: one_line(name), reason: reason.to_owned() };
    let (elem_type, axes) = inputs[at].tensor_type().ok_or_else(|| wrong("is not a tensor of numbers"))?;
    let axes: Vec<usize> = axes.unwrap_or_default().into_iter().map(|axis| axis.unwrap_or(1)).collect();
    let elements = axes.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
    let elements = elements.filter(|elements| *elements <= TENSOR_ELEMENTS_MAX);
    let elements = elements.ok_or_else(|| wrong("is too large for a constant"))?;
    #[expect(clippy::cast_possible_truncation, reason = "the casts saturate")]
    let one: Vec<u8> = match DataType::of(elem_type) {
        Some(DataType::F32) => (value as f32).to_le_bytes().to_vec(),
        Some(DataType::F64) => value.to_le_bytes().to_vec(),
        Some(DataType::I64) => (value as i64).to_le_bytes().to_vec(),
        Some(DataType::I32) => (value as i32).to_le_bytes().to_vec(),
        _ => return Err(wrong("has a type that is not frozen; allowed are f32, f64, i32 and i64")),
    };
    let kind = DataType::of(elem_type).unwrap_or(DataType::F32);
    net.graph.initializer.push(TensorProto::new(name.to_owned(), kind, &axes, one.repeat(elements)));
    net.graph.input.remove(at);
    Ok(())
}

fn choose_output(net: &mut Net, wanted: Option<&str>) -> Result<(), Error> {
    let outputs = &mut net.graph.output;
    let names = || listed(outputs.iter().map(|output| output.name.as_str()));
    match wanted {
        Some(name) => {
            if !outputs.iter().any(|output| output.name == name) {
                return Err(Error::NoSuch { what: "output", name: one_line(name), names: names() });
            }
            outputs.retain(|output| output.name == name);
            outputs.truncate(1);
        }
        None if outputs.len() != 1 => return Err(Error::Outputs { count: outputs.len(), names: names() }),
        None => {}
    }
    net.prune();
    // An output that is an input or a constant as it is gets a node of its own.
    let Some(name) = net.graph.output.first().map(|output| output.name.clone()) else { return Ok(()) };
    if !net.graph.node.iter().any(|node| node.output.contains(&name)) {
        return Err(Error::Output {
            name: one_line(&name),
            reason: "is given by no node: there is nothing to compute".to_owned(),
        });
    }
    Ok(())
}

/// Names for people, of many the first.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 10;
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    one_line(&if names.len() > SHOWN { format!("{shown}, …") } else { shown })
}

#[cfg(test)]
mod tests;
