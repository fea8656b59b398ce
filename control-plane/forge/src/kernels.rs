//! Whether integer kernels really run: counts the nodes with weights in the graph that ONNX Runtime makes of a file for
//! this machine. tract computes every form of a model in f32 and has nothing to count.

use quantiser::proto::{ModelProto, NodeProto};
use runtime::{Error, Ort};
use shared::job::KernelReport;

/// Operators of ONNX Runtime that multiply integers.
const INTEGER: [&str; 8] = [
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "QAttention",
];
/// Operators that multiply f32 by weights; what ONNX Runtime fuses them with stands before the name or is an attribute.
const FLOAT: [&str; 6] = ["Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"];

/// Counts them in an ONNX file.
///
/// # Errors
/// ONNX Runtime does not take it, or no file can be written beside it.
pub fn count(ort: &Ort, model: &[u8]) -> Result<KernelReport, Error> {
    let failed = |reason: String| Error::Load { runtime: "onnxruntime", reason };
    let folder = tempfile::tempdir().map_err(|error| failed(format!("a folder for its graph: {error}")))?;
    let bytes = ort.rewritten(model, &folder.path().join("rewritten.onnx"))?;
    let rewritten: ModelProto =
        prost::Message::decode(bytes.as_slice()).map_err(|error| failed(format!("its graph: {error}")))?;
    let nodes: &[NodeProto] = rewritten.graph.as_ref().map_or(&[], |graph| &graph.node);
    let among =
        |table: &[&str]| nodes.iter().filter(|node| table.contains(&node.op_type.as_str())).count() as u64;
    Ok(KernelReport { integer: among(&INTEGER), float: among(&FLOAT) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compress::testing::{stripes, wide_graph},
        onnx::{self, tests::ort},
        quantise::quantise,
    };

    #[test]
    fn an_int8_model_runs_on_integers_but_for_its_small_stem_and_the_others_in_f32() {
        let Some(ort) = ort() else { return };
        let graph = wide_graph();
        let weighted = graph.nodes().iter().filter(|node| node.op().weights().is_some()).count() as u64;
        let fp32 = onnx::write_f32(&graph).unwrap();
        assert_eq!(count(&ort, &fp32).unwrap(), KernelReport { integer: 0, float: weighted });
        let half = onnx::write_f16(&graph).unwrap();
        assert_eq!(count(&ort, &half).unwrap(), KernelReport { integer: 0, float: weighted });
        let int8 = quantise(&graph, &fp32, &stripes(12, 0.1, 1).samples, &ort, true).unwrap().remove(0);
        let found = count(&ort, &int8.onnx_int8).unwrap();
        assert!(found.integer >= weighted - 2 && found.float <= 2, "{found:?} of {weighted}");
        assert!(count(&ort, b"no model").is_err());
    }
}
