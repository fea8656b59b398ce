//! What becomes of a network that 8 bits by calibration alone do not do justice to.

use super::{Compressed, Error, INT8_LOSS_MAX};
use crate::{graph::Graph, onnx};
use runtime::Mismatch;
use shared::job::ModelForm;

/// The network with weights of 16 bits, in place of an INT8 form that disagrees with it; says `why`.
///
/// # Errors
/// Weights that are beyond 16-bit floats.
pub(super) fn half(graph: Graph, why: &Mismatch) -> Result<Compressed, Error> {
    Ok(Compressed {
        onnx: onnx::write_f16(&graph)?,
        graph,
        form: ModelForm::Fp16,
        way: "weights as 16-bit floats".to_owned(),
        tensors: Vec::new(),
        structures: Vec::new(),
        tried: Vec::new(),
        remarks: vec![format!(
            "weights are 16-bit floats: INT8 by calibration alone disagrees with the trained network ({why}); more \
             train_epochs or --compress quantisation-aware may help"
        )],
        seconds: 0.0,
        loss_max: INT8_LOSS_MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{INT8_DIFFERENCE_MAX, agreeing},
        *,
    };
    use crate::onnx::tests::{ort, random_graph, values};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use runtime::{Golden, LoadOptions, Ort, Runtime};

    fn disagreement(model: &[u8], golden: &Golden, ort: &Ort) -> Option<Mismatch> {
        match agreeing("model.onnx", model, golden, INT8_DIFFERENCE_MAX, ort) {
            Err(Error::Disagrees { source, .. }) => Some(source),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn a_form_that_disagrees_gives_way_to_16_bits_and_says_why() {
        let Some(ort) = ort() else { return };
        let graph = random_graph(11);
        let shape = graph.input_shape();
        let fp32 = onnx::write_f32(&graph).unwrap();
        let model = ort.load(&fp32, &LoadOptions::default()).unwrap();
        let input = values(&mut ChaCha8Rng::seed_from_u64(3), shape.elements() * 4, 1.0);
        let mut answers = Vec::new();
        model.run_into(&input, 4, &mut answers).unwrap();
        let own = Golden::new(model.input().shape.clone(), input.clone(), answers.clone()).unwrap();
        assert!(disagreement(&fp32, &own, &ort).is_none());

        let turned: Vec<f32> = answers.iter().map(|value| 1.0 - value).collect();
        let other = Golden::new(model.input().shape.clone(), input, turned).unwrap();
        let why = disagreement(&fp32, &other, &ort).unwrap();
        let chosen = half(graph, &why).unwrap();
        assert_eq!(chosen.form, ModelForm::Fp16);
        assert!(chosen.remarks[0].contains(&why.to_string()), "{:?}", chosen.remarks);
        assert!(disagreement(&chosen.onnx, &own, &ort).is_none());
    }
}
