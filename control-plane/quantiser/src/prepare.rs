//! The same function in a form that can be quantised: constants in one place, opset 13 or newer, nothing that only
//! passes values on, and what follows a convolution channel by channel folded into its weights.

mod fold;
mod upgrade;

use crate::{
    net::Net,
    proto::{AttributeProto, TensorProto},
};
use std::collections::{HashMap, HashSet};

/// Oldest file format that is written; from this on constants need not be inputs.
const IR_MIN: i64 = 8;
/// Rounds of folding; each takes one operator behind every convolution.
const FOLDS_MAX: usize = 8;

/// Brings `net` into that form. It computes what it computed before, but for rounding.
pub(crate) fn prepare(net: &mut Net) {
    net.drop_other_domains();
    hoist_constants(net);
    upgrade::to_13(net);
    let opset = net.opset();
    net.set_versions(opset, IR_MIN);
    drop_idle(net);
    fold::reshaped_constants(net);
    fold::gemm_factors(net);
    for _ in 0..FOLDS_MAX {
        if !fold::into_convolutions(net) {
            break;
        }
    }
    net.prune();
}

/// Makes constants of `Constant` nodes.
fn hoist_constants(net: &mut Net) {
    let mut found = Vec::new();
    net.graph.node.retain(|node| {
        let value =
            (node.op_type == "Constant").then(|| node.attribute.iter().find_map(constant_of)).flatten();
        match (value, node.output.first()) {
            (Some(tensor), Some(name)) => {
                found.push(TensorProto { name: name.clone(), ..tensor });
                false
            }
            _ => true,
        }
    });
    net.graph.initializer.extend(found);
}

fn constant_of(attribute: &AttributeProto) -> Option<TensorProto> {
    match attribute.name.as_str() {
        "value" => attribute.t.clone(),
        "value_float" => attribute.f.map(|value| TensorProto::floats("", &[], &[value])),
        "value_floats" => Some(TensorProto::floats("", &[attribute.floats.len()], &attribute.floats)),
        "value_int" => {
            attribute.i.map(|value| TensorProto { dims: Vec::new(), ..TensorProto::ints("", &[value]) })
        }
        "value_ints" => Some(TensorProto::ints("", &attribute.ints)),
        _ => None,
    }
}

/// Drops what gives its input on as it is.
fn drop_idle(net: &mut Net) {
    let outputs: HashSet<&str> = net.graph.output.iter().map(|output| output.name.as_str()).collect();
    let mut aliases = HashMap::new();
    for node in &net.graph.node {
        let idle = match node.op_type.as_str() {
            "Identity" => true,
            // With a third input it may train.
            "Dropout" => node.input.len() < 3 && node.output.get(1).is_none_or(String::is_empty),
            _ => false,
        };
        // The graph's own outputs keep their names.
        if let ([from, ..], [to, ..]) = (&node.input[..], &node.output[..])
            && idle
            && !outputs.contains(to.as_str())
        {
            aliases.insert(to.clone(), from.clone());
        }
    }
    net.redirect(&aliases);
    net.graph.node.retain(|node| node.output.first().is_none_or(|name| !aliases.contains_key(name)));
}

#[cfg(test)]
mod tests;
