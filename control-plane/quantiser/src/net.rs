//! A graph that is being rewritten: who gives a value, who reads it, and names that nobody has yet.

use crate::{
    file::{self, is_standard},
    proto::{GraphProto, ModelProto, TensorProto},
};
use prost::Message;
use std::collections::{HashMap, HashSet};

/// A model whose graph can be rewritten. Its nodes are in topological order.
#[derive(Clone, Debug)]
pub struct Net {
    /// Everything but the graph.
    rest: ModelProto,
    pub(crate) graph: GraphProto,
    /// Names that were made here.
    made: usize,
}

impl Net {
    /// Takes a model that [`file::read`] has let through; one without a graph gives an empty one.
    pub fn new(mut model: ModelProto) -> Self {
        let mut graph = model.graph.take().unwrap_or_default();
        // Known shapes of values inside are of no use to anybody here, and some will be wrong.
        graph.value_info.clear();
        graph.quantization_annotation.clear();
        // Old formats name constants among the inputs.
        let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        graph.input.retain(|input| !constants.contains(input.name.as_str()));
        Self { rest: model, graph, made: 0 }
    }

    /// The whole model.
    fn into_model(self) -> ModelProto {
        ModelProto { graph: Some(self.graph), ..self.rest }
    }

    /// The model's bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.clone().into_model().encode_to_vec()
    }

    pub(crate) fn opset(&self) -> i64 {
        file::opset(&self.rest)
    }

    pub(crate) fn set_versions(&mut self, opset: i64, ir_min: i64) {
        self.rest.ir_version = self.rest.ir_version.max(ir_min);
        for set in &mut self.rest.opset_import {
            if is_standard(&set.domain) {
                set.version = opset;
            }
        }
    }

    /// Keeps the standard operators only: no node is of another domain, and a runtime may not know that one.
    pub(crate) fn drop_other_domains(&mut self) {
        self.rest.opset_import.retain(|set| is_standard(&set.domain));
    }

    /// The constants by name.
    pub(crate) fn constants(&self) -> HashMap<&str, &TensorProto> {
        self.graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect()
    }

    /// The nodes that read a value, each once for every time that it does; and how often a graph output is it.
    pub(crate) fn readers(&self) -> Readers {
        let mut readers = Readers::default();
        for (index, node) in self.graph.node.iter().enumerate() {
            for name in node.input.iter().filter(|name| !name.is_empty()) {
                readers.nodes.entry(name.clone()).or_default().push(index);
            }
        }
        readers.outputs.extend(self.graph.output.iter().map(|output| output.name.clone()));
        readers
    }

    /// A name that no value has: short, because in a small model names weigh as much as weights.
    pub(crate) fn fresh(&mut self, taken: &mut HashSet<String>) -> String {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        loop {
            let mut number = self.made;
            self.made += 1;
            let mut name = String::from("q");
            loop {
                name.push(char::from(DIGITS[number % 36]));
                number /= 36;
                if number == 0 {
                    break;
                }
            }
            if taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// Every name of a value.
    pub(crate) fn names(&self) -> HashSet<String> {
        let graph = &self.graph;
        let ports = graph.input.iter().chain(&graph.output).map(|value| &value.name);
        let constants = graph.initializer.iter().map(|tensor| &tensor.name);
        let inner = graph.node.iter().flat_map(|node| node.input.iter().chain(&node.output));
        ports.chain(constants).chain(inner).filter(|name| !name.is_empty()).cloned().collect()
    }

    /// Has everybody who reads a value of `to` read what it stands for instead.
    pub(crate) fn redirect(&mut self, to: &HashMap<String, String>) {
        for name in self.graph.node.iter_mut().flat_map(|node| &mut node.input) {
            let mut steps = 0;
            // A chain of aliases is followed to its end; it has no circle, for each stands for an earlier value.
            while let Some(next) = to.get(name.as_str()).filter(|_| steps <= to.len()) {
                name.clone_from(next);
                steps += 1;
            }
        }
    }

    /// Gives a value another name, wherever it stands.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let graph = &mut self.graph;
        let inner = graph.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
        let ports = graph.input.iter_mut().chain(&mut graph.output).map(|value| &mut value.name);
        let constants = graph.initializer.iter_mut().map(|tensor| &mut tensor.name);
        for name in inner.chain(ports).chain(constants).filter(|name| *name == from) {
            to.clone_into(name);
        }
    }

    /// Drops nodes and constants that lead to no output.
    pub(crate) fn prune(&mut self) {
        let graph = &mut self.graph;
        let mut needed: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        let mut kept = vec![false; graph.node.len()];
        for (node, kept) in graph.node.iter().zip(&mut kept).rev() {
            if node.output.iter().any(|name| needed.contains(name.as_str())) {
                needed.extend(node.input.iter().map(String::as_str));
                *kept = true;
            }
        }
        let unneeded: HashSet<String> = graph
            .initializer
            .iter()
            .filter(|tensor| !needed.contains(tensor.name.as_str()))
            .map(|tensor| tensor.name.clone())
            .collect();
        graph.initializer.retain(|tensor| !unneeded.contains(&tensor.name));
        let mut kept = kept.into_iter();
        graph.node.retain(|_| kept.next().unwrap_or(true));
    }
}

/// See [`Net::readers`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers {
    nodes: HashMap<String, Vec<usize>>,
    outputs: HashSet<String>,
}

impl Readers {
    /// The nodes that read `name`.
    pub(crate) fn of(&self, name: &str) -> &[usize] {
        self.nodes.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether the graph gives `name` to its caller.
    pub(crate) fn is_output(&self, name: &str) -> bool {
        self.outputs.contains(name)
    }

    /// The one node that reads `name`, where it is the only reader of any kind.
    pub(crate) fn only(&self, name: &str) -> Option<usize> {
        match self.of(name) {
            [only] if !self.is_output(name) => Some(*only),
            _ => None,
        }
    }
}
