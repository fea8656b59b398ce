use super::*;
use crate::models::{Loaded, ShadowRequest};
use runtime::{Runnable, TensorInfo};
use shared::{
    Digest,
    manifest::{ANOMALY_LABELS, Column, Preprocess, Task, TensorSpec},
};

/// Finds rows whose standardised values add up to more than one.
#[derive(Debug)]
struct Sum {
    input: TensorInfo,
    output: TensorInfo,
}

impl Runnable for Sum {
    fn runtime(&self) -> &'static str {
        "tract"
    }

    fn input(&self) -> &TensorInfo {
        &self.input
    }

    fn output(&self) -> &TensorInfo {
        &self.output
    }

    fn run_into(&self, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<(), runtime::Error> {
        assert_eq!(input.len(), batch * 2);
        output.clear();
        for row in input.chunks_exact(2) {
            let found = if row[0] + row[1] > 1.0 { 0.75 } else { 0.25 };
            output.extend([1.0 - found, found]);
        }
        Ok(())
    }
}

/// Columns `a` of mean 100 and deviation 10, `b` of mean 0 and deviation 0.5.
fn agent() -> Agent {
    let agent = Agent::new();
    let mut loaded: Loaded = loaded(2);
    let info = |name: &str, shape: &[usize]| TensorInfo { name: name.to_owned(), shape: shape.to_vec() };
    let model = Sum { input: info("input", &[2, 1]), output: info("probabilities", &[2]) };
    let spec = |info: &TensorInfo| TensorSpec { name: info.name.clone(), shape: info.shape.clone() };
    let column = |name: &str, scale, offset| Column { name: name.to_owned(), scale, offset };
    let manifest = &mut loaded.manifest;
    (manifest.input, manifest.output) = (spec(&model.input), spec(&model.output));
    manifest.task = Task::AnomalyDetection;
    manifest.labels = ANOMALY_LABELS.map(str::to_owned).to_vec();
    manifest.preprocess = Preprocess::of_columns(vec![column("a", 0.1, -10.0), column("b", 2.0, 0.0)]);
    loaded.runnable = Arc::new(model);
    agent.api.models.slot(&"default".parse().unwrap(), wall()).swap(Some(Arc::new(loaded)), wall());
    agent
}

fn rows(shape: &[usize], values: &[f32], datatype: &str) -> Value {
    json!({"inputs": [{"name": "input", "shape": shape, "datatype": datatype, "data": values}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_goes_in_as_it_is_and_is_standardised_by_the_manifest() {
    let agent = agent();
    let ask = async |shape: &[usize], values: &[f32], datatype: &str| {
        let (status, answer) = agent.post("/v2/models/default/infer", &rows(shape, values, datatype)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["outputs"][0]["data"].clone()
    };
    // 100 is the mean, 120 is two deviations above it, and 0.7 makes up for too little.
    let found = ask(&[3, 2], &[100.0, 0.0, 120.0, 0.0, 110.0, 0.7], "FP32").await;
    assert_eq!(found, json!(["0.750000:0:normal", "0.750000:1:anomaly", "0.750000:1:anomaly"]));
    assert_eq!(ask(&[1, 2, 1], &[100.0, 0.0], "FP32").await, json!(["0.750000:0:normal"]));
    assert_eq!(ask(&[2], &[100.0, 1.0], "UINT8").await, json!(["0.750000:1:anomaly"]));
    let (status, answer) = agent.post("/v2/models/default/infer", &rows(&[2, 3], &[0.0; 6], "FP32")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["error"].as_str().unwrap().contains("the model takes [N,2,1]"), "{answer}");
    let (_, metadata) = agent.get("/v2/models/default").await;
    assert_eq!(metadata["inputs"][0]["parameters"], json!({"columns": ["a", "b"]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_before_gets_rows_as_they_were_sent() {
    let agent = agent();
    let (queue, asked) = std::sync::mpsc::sync_channel::<ShadowRequest>(1);
    let serving = agent.api.models.slot(&"default".parse().unwrap(), wall());
    serving.begin_trial(Digest::of(b"bundle"), Some(queue));
    agent.post("/v2/models/default/infer", &rows(&[1, 2], &[120.0, 0.5], "FP32")).await;
    let request = asked.try_recv().unwrap();
    assert_eq!((request.input, request.labels), (vec![120.0, 0.5], vec![1]));
}
