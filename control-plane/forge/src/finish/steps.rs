//! The table of the steps of a compression: what each form of the network is and does, measured on its own file.

use super::{Error, accuracy};
use crate::{data::Dataset, graph::Graph, kernels};
use runtime::{Golden, LoadOptions, Ort, Runtime, Tract, measure_us};
use shared::job::StepReport;

/// What has been measured of a form already.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) accuracy: f64,
    pub(super) us_ort: f64,
    pub(super) us_tract: Option<f64>,
}

/// Measures one form, as far as it is not known: what was done, the network, its file.
pub(super) fn measure(
    (step, graph, onnx): &(String, Graph, Vec<u8>),
    known: Option<Known>,
    golden: &Golden,
    set: &Dataset,
    ort: &Ort,
) -> Result<StepReport, Error> {
    let Known { accuracy, us_ort, us_tract } = match known {
        Some(known) => known,
        None => {
            let on_ort = ort.load(onnx, &LoadOptions::default())?;
            let on_tract = Tract.load(onnx, &LoadOptions::default())?;
            Known {
                accuracy: accuracy(on_ort.as_ref(), &set.test, set.schema.labels.len())?,
                us_ort: measure_us(on_ort.as_ref(), golden.input())?,
                us_tract: Some(measure_us(on_tract.as_ref(), golden.input())?),
            }
        }
    };
    let kernels = kernels::count(ort, onnx)?;
    let (parameters, bytes, macs) = (graph.parameters() as u64, onnx.len() as u64, graph.macs());
    Ok(StepReport { step: step.clone(), parameters, bytes, macs, accuracy, us_ort, us_tract, kernels })
}

/// A remark where the last step is no better than plain INT8, the one before it, in something that it was to better.
pub(super) fn where_compression_does_not_pay(steps: &[StepReport]) -> Option<String> {
    let [.., plain, last] = steps else { return None };
    // Without a compression of its own the last step is plain INT8.
    if steps.len() < 3 {
        return None;
    }
    let mut worse = Vec::new();
    if last.accuracy < plain.accuracy {
        worse.push(format!("answers {:.4} right against {:.4}", last.accuracy, plain.accuracy));
    }
    if last.us_ort > plain.us_ort {
        worse.push(format!("takes {:.0} us on ONNX Runtime against {:.0}", last.us_ort, plain.us_ort));
    }
    if last.bytes > plain.bytes {
        worse.push(format!("takes {} bytes against {}", last.bytes, plain.bytes));
    }
    let why = if last.bytes < plain.bytes {
        format!("; it was taken for {} bytes in place of {}", last.bytes, plain.bytes)
    } else if last.accuracy > plain.accuracy {
        format!("; it was taken for {:.4} right in place of {:.4}", last.accuracy, plain.accuracy)
    } else {
        "; on samples held back from training it was better".to_owned()
    };
    (!worse.is_empty())
        .then(|| format!("beside plain INT8 the compressed model {}{why}", worse.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::job::KernelReport;

    fn step(bytes: u64, accuracy: f64, us_ort: f64) -> StepReport {
        let kernels = KernelReport::default();
        StepReport {
            step: String::new(),
            parameters: 1,
            bytes,
            macs: 1,
            accuracy,
            us_ort,
            us_tract: Some(1.0),
            kernels,
        }
    }

    #[test]
    fn what_is_worse_than_plain_int8_says_in_what_and_why_it_was_taken() {
        let fp32 = step(4000, 0.9, 50.0);
        let plain = step(1000, 0.9, 30.0);
        let told = |last: StepReport| where_compression_does_not_pay(&[fp32.clone(), plain.clone(), last]);
        assert_eq!(told(step(600, 0.9, 20.0)), None);
        assert_eq!(
            told(step(600, 0.895, 20.0)).unwrap(),
            "beside plain INT8 the compressed model answers 0.8950 right against 0.9000; it was taken for 600 bytes in \
             place of 1000"
        );
        assert_eq!(
            told(step(2000, 0.91, 40.0)).unwrap(),
            "beside plain INT8 the compressed model takes 40 us on ONNX Runtime against 30 and takes 2000 bytes against \
             1000; it was taken for 0.9100 right in place of 0.9000"
        );
        assert_eq!(where_compression_does_not_pay(&[fp32.clone(), plain.clone()]), None);
    }
}
