//! Folding of constants: what scales or shifts the channels of a convolution becomes its weights and bias.

use crate::{
    net::Net,
    proto::{NodeProto, TensorProto},
};
use std::collections::{HashMap, HashSet};

/// `y = factor * x + offset`, channel by channel.
struct Affine {
    factor: Vec<f32>,
    offset: Vec<f32>,
}

/// Constants that are only given another shape become constants of that shape.
pub(super) fn reshaped_constants(net: &mut Net) {
    let mut found: HashMap<String, TensorProto> = HashMap::new();
    let mut order = Vec::new();
    {
        let constants = net.constants();
        for node in &net.graph.node {
            let at = |index: usize| {
                let name = node.input.get(index)?;
                found.get(name).or_else(|| constants.get(name.as_str()).copied())
            };
            let (Some(tensor), Some(name)) = (at(0), node.output.first()) else { continue };
            let Some(values) = tensor.f32_values() else { continue };
            let shape = match (node.op_type.as_str(), at(1)) {
                ("Reshape", Some(shape)) if node.int("allowzero", 0) == 0 => reshaped(tensor, shape),
                ("Unsqueeze", Some(axes)) => unsqueezed(tensor, axes),
                _ => None,
            };
            let Some(shape) = shape else { continue };
            let folded = TensorProto::floats(name, &shape, &values);
            found.insert(name.clone(), folded);
            order.push(name.clone());
        }
    }
    net.graph.node.retain(|node| node.output.first().is_none_or(|name| !found.contains_key(name)));
    net.graph.initializer.extend(order.iter().filter_map(|name| found.remove(name)));
}

fn reshaped(tensor: &TensorProto, shape: &TensorProto) -> Option<Vec<usize>> {
    let (from, wanted) = (tensor.shape()?, shape.i64_values()?);
    let total: usize = from.iter().product();
    let mut axes = Vec::with_capacity(wanted.len());
    for (index, axis) in wanted.iter().enumerate() {
        axes.push(match axis {
            0 => Some(*from.get(index)?),
            -1 => None,
            size => Some(usize::try_from(*size).ok()?),
        });
    }
    let known = axes.iter().flatten().try_fold(1usize, |product, axis| product.checked_mul(*axis))?;
    let unknown = axes.iter().filter(|axis| axis.is_none()).count();
    if unknown > 1 || known == 0 || !total.is_multiple_of(known) || (unknown == 0 && known != total) {
        return None;
    }
    Some(axes.into_iter().map(|axis| axis.unwrap_or(total / known)).collect())
}

fn unsqueezed(tensor: &TensorProto, axes: &TensorProto) -> Option<Vec<usize>> {
    let (from, axes) = (tensor.shape()?, axes.i64_values()?);
    let rank = from.len() + axes.len();
    let places: Option<HashSet<usize>> = axes
        .iter()
        .map(|axis| usize::try_from(if *axis < 0 { axis + i64::try_from(rank).ok()? } else { *axis }).ok())
        .collect();
    let places = places.filter(|places| places.len() == axes.len() && places.iter().all(|at| *at < rank))?;
    let mut rest = from.into_iter();
    (0..rank).map(|at| if places.contains(&at) { Some(1) } else { rest.next() }).collect()
}

/// `alpha` and `beta` of a Gemm go into its constants.
pub(super) fn gemm_factors(net: &mut Net) {
    let mut changed = Vec::new();
    {
        let constants = net.constants();
        for (index, node) in net.graph.node.iter().enumerate().filter(|(_, node)| node.op_type == "Gemm") {
            for (input, factor, attribute) in [(1, "alpha"), (2, "beta")]
                .map(|(input, attribute)| (input, node.float(attribute, 1.0), attribute))
                .into_iter()
                .filter(|(_, factor, _)| (factor - 1.0).abs() > f32::EPSILON)
            {
                let tensor = node.input.get(input).and_then(|name| constants.get(name.as_str()));
                let Some((values, shape)) = tensor.and_then(|found| found.f32_values().zip(found.shape()))
                else {
                    continue;
                };
                let values: Vec<f32> = values.iter().map(|value| value * factor).collect();
                if values.iter().all(|value| value.is_finite()) {
                    changed.push((index, input, attribute, TensorProto::floats("", &shape, &values)));
                }
            }
        }
    }
    let mut taken = net.names();
    for (index, input, attribute, tensor) in changed {
        let name = net.fresh(&mut taken);
        net.graph.initializer.push(TensorProto { name: name.clone(), ..tensor });
        let node = &mut net.graph.node[index];
        node.input[input] = name;
        node.attribute.retain(|found| found.name != attribute);
    }
}

/// Takes one operator behind each convolution into it. Whether there was any.
pub(super) fn into_convolutions(net: &mut Net) -> bool {
    let readers = net.readers();
    let mut taken = net.names();
    let mut gone = HashSet::new();
    let mut changed = Vec::new();
    let constants = net.constants();
    for (index, node) in net.graph.node.iter().enumerate() {
        let [output] = &node.output[..] else { continue };
        let Some(next) = readers.only(output) else { continue };
        if let Some(folded) = fold(&constants, node, &net.graph.node[next]) {
            changed.push((index, next, folded));
            gone.insert(next);
        }
    }
    if changed.is_empty() {
        return false;
    }
    for (index, next, (weight, bias)) in changed {
        let [weight_name, bias_name] = [(); 2].map(|()| net.fresh(&mut taken));
        net.graph.initializer.push(TensorProto { name: weight_name.clone(), ..weight });
        net.graph.initializer.push(TensorProto { name: bias_name.clone(), ..bias });
        let output = net.graph.node[next].output[..1].to_vec();
        let node = &mut net.graph.node[index];
        node.input.truncate(1);
        node.input.extend([weight_name, bias_name]);
        node.output = output;
    }
    let mut index = 0;
    net.graph.node.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
    net.prune();
    true
}

/// Weight and bias of `node` after `next`, where that one only scales and shifts channels.
fn fold(
    constants: &HashMap<&str, &TensorProto>,
    node: &NodeProto,
    next: &NodeProto,
) -> Option<(TensorProto, TensorProto)> {
    let weight = constants.get(node.input.get(1)?.as_str())?;
    let (mut values, shape) = (weight.f32_values()?, weight.shape()?);
    let group = usize::try_from(node.int("group", 1)).ok().filter(|group| *group > 0)?;
    let rank = shape.len();
    if rank < 3 || values.len() != shape.iter().product::<usize>() || values.is_empty() {
        return None;
    }
    // The output channel of each weight.
    let (inner, out_channels) = match node.op_type.as_str() {
        "Conv" => (values.len() / shape[0], shape[0]),
        "ConvTranspose" => (shape[2..].iter().product(), shape[1] * group),
        _ => return None,
    };
    let transposed = node.op_type == "ConvTranspose";
    let per_group = shape[0] / group;
    if transposed && (per_group == 0 || !shape[0].is_multiple_of(group)) {
        return None;
    }
    let channel = |at: usize| {
        if transposed {
            let (row, column) = (at / inner / shape[1], at / inner % shape[1]);
            row / per_group * shape[1] + column
        } else {
            at / inner
        }
    };
    let mut bias = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => constants.get(name.as_str())?.f32_values()?,
        None => vec![0.0; out_channels],
    };
    let given = node.output.first()?;
    let Affine { factor, offset } = affine(constants, next, given, rank, out_channels)?;
    if bias.len() != out_channels || factor.len() != out_channels || offset.len() != out_channels {
        return None;
    }
    for (at, value) in values.iter_mut().enumerate() {
        *value *= factor[channel(at)];
    }
    for (bias, (factor, offset)) in bias.iter_mut().zip(factor.iter().zip(&offset)) {
        *bias = *bias * factor + offset;
    }
    let finite = values.iter().chain(&bias).all(|value| value.is_finite());
    finite
        .then(|| (TensorProto::floats("", &shape, &values), TensorProto::floats("", &[out_channels], &bias)))
}

/// What `next` does to the channels of `given`, a value of `rank` axes.
fn affine(
    constants: &HashMap<&str, &TensorProto>,
    next: &NodeProto,
    given: &str,
    rank: usize,
    channels: usize,
) -> Option<Affine> {
    if next.op_type == "BatchNormalization" {
        if next.int("training_mode", 0) != 0 || next.output.iter().skip(1).any(|name| !name.is_empty()) {
            return None;
        }
        let constant = |at: usize| {
            let name = next.input.get(at)?;
            constants.get(name.as_str())?.f32_values().filter(|values| values.len() == channels)
        };
        let (scale, shift, mean, variance) = (constant(1)?, constant(2)?, constant(3)?, constant(4)?);
        let epsilon = next.float("epsilon", 1e-5);
        if next.input.first().map(String::as_str) != Some(given) {
            return None;
        }
        let factor: Vec<f32> = scale
            .iter()
            .zip(&variance)
            .map(|(scale, variance)| scale / (variance + epsilon).sqrt())
            .collect();
        let offset =
            shift.iter().zip(&mean).zip(&factor).map(|((shift, mean), factor)| shift - mean * factor);
        let offset = offset.collect();
        return Some(Affine { factor, offset });
    }
    let [first, second] = &next.input[..] else { return None };
    let (other, behind) = if first == given { (second, true) } else { (first, false) };
    let values = per_channel(constants.get(other.as_str())?, rank, channels)?;
    let ones = || vec![1.0; channels];
    let zeros = || vec![0.0; channels];
    match next.op_type.as_str() {
        "Mul" => Some(Affine { factor: values, offset: zeros() }),
        "Add" => Some(Affine { factor: ones(), offset: values }),
        "Sub" if behind => {
            Some(Affine { factor: ones(), offset: values.iter().map(|value| -value).collect() })
        }
        "Div" if behind => {
            Some(Affine { factor: values.iter().map(|value| 1.0 / value).collect(), offset: zeros() })
        }
        _ => None,
    }
}

/// The values of a constant, one a channel, where it is the same at every place of a channel.
fn per_channel(tensor: &TensorProto, rank: usize, channels: usize) -> Option<Vec<f32>> {
    let (values, shape) = (tensor.f32_values()?, tensor.shape()?);
    if shape.len() > rank {
        return None;
    }
    if let [value] = values[..] {
        return Some(vec![value; channels]);
    }
    // Aligned at the last axis: the channels' axis is the second of `rank`.
    let at = (shape.len() + 1).checked_sub(rank)?;
    let others = shape.iter().enumerate().all(|(axis, size)| axis == at || *size == 1);
    (shape.get(at) == Some(&channels) && others && values.len() == channels).then_some(values)
}
