//! Opset 11 and 12 to 13, in which weights may have a scale for each channel. Of the operators that differ, four take as
//! an input what was an attribute, and the three softmaxes look at one axis where they looked at all that follow.

use crate::{
    net::Net,
    proto::{AttributeProto, NodeProto, TensorProto},
};

const OPSET: i64 = 13;
/// Operators whose attribute became their second input.
const MOVED: [(&str, &str); 4] =
    [("Squeeze", "axes"), ("Unsqueeze", "axes"), ("ReduceSum", "axes"), ("Split", "split")];
const SOFTMAXES: [&str; 3] = ["Softmax", "LogSoftmax", "Hardmax"];

pub(super) fn to_13(net: &mut Net) {
    if net.opset() >= OPSET {
        return;
    }
    let mut taken = net.names();
    let mut nodes = Vec::with_capacity(net.graph.node.len());
    for mut node in std::mem::take(&mut net.graph.node) {
        if let Some((_, attribute)) = MOVED.iter().find(|(operator, _)| *operator == node.op_type) {
            let at = node.attribute.iter().position(|found| found.name == *attribute);
            if let Some(at) = at.filter(|_| node.input.len() == 1) {
                let values = node.attribute.remove(at).ints;
                let name = net.fresh(&mut taken);
                net.graph.initializer.push(TensorProto::ints(&name, &values));
                node.input.push(name);
            }
            nodes.push(node);
        } else if SOFTMAXES.contains(&node.op_type.as_str()) && node.int("axis", 1) != -1 {
            nodes.extend(flattened(net, node, &mut taken));
        } else {
            nodes.push(node);
        }
    }
    net.graph.node = nodes;
    net.set_versions(OPSET, 0);
}

/// The softmax over all axes from its own on: as a matrix, and back.
fn flattened(
    net: &mut Net,
    mut softmax: NodeProto,
    taken: &mut std::collections::HashSet<String>,
) -> Vec<NodeProto> {
    let axis = softmax.int("axis", 1);
    let (Some(input), Some(output)) = (softmax.input.first().cloned(), softmax.output.first().cloned())
    else {
        return vec![softmax];
    };
    let [shape, matrix, answer] = [(); 3].map(|()| net.fresh(taken));
    softmax.input = vec![matrix.clone()];
    softmax.output = vec![answer.clone()];
    softmax.attribute = vec![AttributeProto::int("axis", -1)];
    vec![
        NodeProto::new("Shape", std::slice::from_ref(&input), &shape, Vec::new()),
        NodeProto::new("Flatten", &[input], &matrix, vec![AttributeProto::int("axis", axis)]),
        softmax,
        NodeProto::new("Reshape", &[answer, shape], &output, Vec::new()),
    ]
}
