//! A graph without its numbers, and the numbers without their graph: what a checkpoint keeps of one.

use crate::graph::{Error, Graph, Op, Shape, ValueId};
use serde::{Deserialize, Serialize};

/// The operations of a graph and how they hang together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    input: Shape,
    nodes: Vec<(Op, Vec<ValueId>)>,
}

impl Outline {
    /// The outline of `graph`; its weights and biases, node after node.
    pub fn of(graph: &Graph) -> (Self, Vec<f32>) {
        let mut numbers = Vec::with_capacity(graph.parameters());
        let nodes = graph.nodes().iter().map(|node| {
            let mut op = node.op().clone();
            if let Some((weight, bias)) = op.weights_mut() {
                numbers.append(weight);
                numbers.append(bias);
            }
            (op, node.inputs().to_vec())
        });
        let nodes = nodes.collect();
        (Self { input: graph.input_shape().clone(), nodes }, numbers)
    }

    /// The graph with these numbers.
    ///
    /// # Errors
    /// An outline of no graph, or numbers that are too few, too many or not finite.
    pub fn with(self, numbers: &[f32]) -> Result<Graph, Error> {
        let mut graph = Graph::new(self.input)?;
        let mut rest = numbers;
        for (mut op, inputs) in self.nodes {
            let counts = inputs.first().and_then(|id| op.weight_counts(graph.shape(*id)?));
            if let (Some((weights, biases)), Some((weight, bias))) = (counts, op.weights_mut()) {
                for (count, into) in [(weights, weight), (biases, bias)] {
                    let Some((numbers, behind)) = rest.split_at_checked(count) else {
                        return Err(other_graph());
                    };
                    *into = numbers.to_vec();
                    rest = behind;
                }
            }
            graph.push(op, &inputs)?;
        }
        if rest.is_empty() { Ok(graph) } else { Err(other_graph()) }
    }
}

fn other_graph() -> Error {
    Error::NotAClassifier("its numbers are those of another graph".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::tests::random_graph;

    #[test]
    fn a_graph_comes_back_from_its_outline_and_its_numbers_bit_for_bit() {
        for seed in 0..8 {
            let graph = random_graph(seed);
            let (outline, numbers) = Outline::of(&graph);
            let text = serde_json::to_string(&outline).unwrap();
            let read: Outline = serde_json::from_str(&text).unwrap();
            assert_eq!(read.clone().with(&numbers).unwrap(), graph);
            assert!(read.clone().with(&numbers[1..]).is_err());
            assert!(read.with(&[&numbers[..], &[0.0]].concat()).is_err());
        }
    }
}
