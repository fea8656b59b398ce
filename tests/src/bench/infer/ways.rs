//! The ways to run one exported model that are measured against each other. Each runs one sample a time on one
//! thread; writing requests and reading answers is not timed.

use crate::{
    bench::peer::Peer,
    harness::{
        Agent,
        oip::{Client, Request, argmax},
        python_program, root,
    },
};
use anyhow::{Context, Result, anyhow, ensure};
use ort::{
    environment::Environment,
    session::{Session, builder::GraphOptimizationLevel},
    value::TensorRef,
};
use serde::Deserialize;
use serde_json::json;
use std::{fmt, path::Path, path::PathBuf, process::Command, sync::Arc, time::Instant};
use tract_onnx::prelude::{
    DatumExt, Framework, InferenceModelExt, IntoRunnable, Tensor, TypedSimpleState, tvec,
};

/// Samples that every way runs, in turn.
#[derive(Clone, Debug)]
pub struct Samples {
    /// Of a batch of one.
    pub shape: Vec<usize>,
    pub values: Vec<Vec<f32>>,
}

/// What a way did with some samples.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Microseconds of each.
    pub us: Vec<f64>,
    /// The index of each one's largest output.
    pub labels: Vec<usize>,
    /// Mean microseconds of one inference as the agent itself measured them, where it is one.
    pub inside_us: Option<f64>,
}

impl Turn {
    /// Times `work` and gives what it made.
    fn time<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let made = work();
        self.us.push(started.elapsed().as_secs_f64() * 1e6);
        made
    }
}

/// One way to run one model.
pub trait Way: fmt::Debug {
    /// Runs the samples with these indices.
    fn turn(&mut self, indices: &[usize]) -> Result<Turn>;
}

/// The `ort` crate as its documentation uses it.
#[derive(Debug)]
pub struct RawOrt {
    session: Session,
    samples: Arc<Samples>,
}

impl RawOrt {
    /// Loads the model.
    pub fn load(environment: &Environment, path: &Path, samples: Arc<Samples>) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let session = Session::builder(environment)
            .and_then(|builder| Ok(builder.with_intra_threads(1)?))
            .and_then(|builder| Ok(builder.with_inter_threads(1)?))
            .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::All)?))
            .and_then(|mut builder| builder.commit_from_memory(&bytes));
        let session = session.map_err(|error| anyhow!("ort does not load {}: {error}", path.display()))?;
        Ok(Self { session, samples })
    }
}

impl Way for RawOrt {
    fn turn(&mut self, indices: &[usize]) -> Result<Turn> {
        let mut turn = Turn::default();
        let Samples { shape, values } = self.samples.as_ref();
        for &index in indices {
            let sample = values[index].as_slice();
            let output = turn.time(|| {
                let input = TensorRef::from_array_view((shape.as_slice(), sample))?;
                let outputs = self.session.run(ort::inputs![input])?;
                Ok(outputs[0].try_extract_tensor::<f32>()?.1.to_vec())
            })?;
            turn.labels.push(argmax(&output));
        }
        Ok(turn)
    }
}

/// The `tract-onnx` crate as its documentation uses it, the exported file as it is.
pub struct RawTract {
    state: TypedSimpleState,
    samples: Arc<Samples>,
}

impl fmt::Debug for RawTract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawTract").finish_non_exhaustive()
    }
}

impl RawTract {
    /// Loads the model.
    pub fn load(path: &Path, samples: Arc<Samples>) -> Result<Self> {
        let load = || {
            tract_onnx::onnx()
                .model_for_path(path)?
                .with_input_fact(0, f32::fact(&samples.shape).into())?
                .with_output_fact(0, Default::default())?
                .into_optimized()?
                .into_runnable()?
                .spawn()
        };
        let state = load().map_err(|error| anyhow!("tract does not load {}: {error:#}", path.display()))?;
        Ok(Self { state, samples })
    }
}

impl Way for RawTract {
    fn turn(&mut self, indices: &[usize]) -> Result<Turn> {
        let mut turn = Turn::default();
        let Samples { shape, values } = self.samples.as_ref();
        for &index in indices {
            let sample = values[index].as_slice();
            let output: Vec<f32> = turn.time(|| {
                let input = Tensor::from_shape(shape, sample)?;
                let outputs = self.state.run(tvec![input.into()])?;
                Ok(outputs[0].to_plain_array_view::<f32>()?.iter().copied().collect())
            })?;
            turn.labels.push(argmax(&output));
        }
        Ok(turn)
    }
}

/// Python's `onnxruntime`, timed in Python.
#[derive(Debug)]
pub struct Python {
    peer: Peer,
    path: PathBuf,
    samples: Arc<Samples>,
}

/// What `infer.py` answers.
#[derive(Deserialize)]
struct Answer {
    us: Vec<f64>,
    labels: Vec<usize>,
}

impl Python {
    /// Starts the peer; it loads the model when first asked.
    pub fn start(path: &Path, samples: Arc<Samples>) -> Result<Self> {
        let mut command = Command::new(python_program()?);
        let peer = Peer::start("Python onnxruntime", command.arg(root().join("tests/peers/infer.py")))?;
        Ok(Self { peer, path: path.to_path_buf(), samples })
    }
}

impl Way for Python {
    fn turn(&mut self, indices: &[usize]) -> Result<Turn> {
        let values: Vec<&Vec<f32>> = indices.iter().map(|&index| &self.samples.values[index]).collect();
        let request = json!({ "model": self.path, "shape": self.samples.shape, "samples": values });
        let Answer { us, labels } = self.peer.ask(&request)?;
        Ok(Turn { us, labels, inside_us: None })
    }
}

/// Our agent through its API: from the first byte sent to the last byte read.
#[derive(Debug)]
pub struct Api<'a> {
    agent: &'a Agent,
    client: Client,
    slot: String,
    requests: Vec<Request>,
}

/// How tensors travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Binary,
    Json,
}

impl<'a> Api<'a> {
    /// Writes a request for every sample.
    pub fn new(agent: &'a Agent, slot: &str, form: Form, samples: &Samples) -> Result<Self> {
        let write = |sample: &Vec<f32>| match form {
            Form::Binary => Request::binary(slot, &samples.shape, sample),
            Form::Json => Request::json(slot, &samples.shape, sample),
        };
        let requests = samples.values.iter().map(write).collect::<Result<_>>()?;
        Ok(Self { agent, client: agent.client(), slot: slot.to_owned(), requests })
    }

    /// Seconds that the agent has spent in inferences of the slot, and their number.
    fn inside(&self) -> Result<(f64, f64)> {
        let metric = |part: &str| {
            self.agent.metric(&format!("edgewright_inference_seconds_{part}{{slot=\"{}\"}}", self.slot))
        };
        Ok((metric("sum")?, metric("count")?))
    }
}

impl Way for Api<'_> {
    fn turn(&mut self, indices: &[usize]) -> Result<Turn> {
        let mut turn = Turn::default();
        let before = self.inside()?;
        for &index in indices {
            let answer = turn.time(|| self.client.send(&self.requests[index]))?;
            turn.labels.push(argmax(&answer.output()?));
        }
        turn.inside_us = Some(mean_us(before, self.inside()?, indices.len())?);
        Ok(turn)
    }
}

/// Mean microseconds of the inferences between two readings of (seconds, count).
///
/// # Errors
/// Another number of inferences than `expected`: somebody else asked the agent meanwhile.
#[expect(clippy::cast_precision_loss)]
fn mean_us(before: (f64, f64), after: (f64, f64), expected: usize) -> Result<f64> {
    let count = after.1 - before.1;
    ensure!(count == expected as f64, "the agent counted {count} inferences, {expected} were asked for");
    Ok((after.0 - before.0) * 1e6 / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_mean_is_taken_over_what_was_asked_in_between() {
        let us = mean_us((1.0, 10.0), (1.005, 110.0), 100).unwrap();
        assert!((us - 50.0).abs() < 1e-6, "{us}");
        assert!(mean_us((1.0, 10.0), (1.005, 111.0), 100).is_err());
    }

    /// The little model that the agent tests itself with, and its golden inputs and labels.
    fn selftest() -> (PathBuf, Arc<Samples>, Vec<usize>) {
        let assets = root().join("agent/assets");
        let golden =
            runtime::Golden::read(&std::fs::read(assets.join("selftest.safetensors")).unwrap()).unwrap();
        let each = golden.input().len() / golden.samples();
        let values: Vec<Vec<f32>> = golden.input().chunks_exact(each).map(<[f32]>::to_vec).collect();
        let labels = golden.output().chunks_exact(golden.classes()).map(argmax).collect();
        let samples = Samples { shape: vec![1, 1, 8, 8], values };
        (assets.join("selftest.onnx"), Arc::new(samples), labels)
    }

    fn assert_golden(way: &mut dyn Way, labels: &[usize]) {
        let indices: Vec<usize> = (0..labels.len()).collect();
        let turn = way.turn(&indices).unwrap();
        assert_eq!(turn.labels, labels, "{way:?}");
        assert_eq!(turn.us.len(), labels.len());
        assert!(turn.us.iter().all(|us| *us > 0.0));
        assert_eq!(turn.inside_us, None);
    }

    #[test]
    fn raw_runtimes_and_python_give_the_golden_labels_and_a_time_for_each_sample() {
        let (path, samples, labels) = selftest();
        let environment = ort::init_from(crate::harness::ort_library().unwrap()).unwrap().build().unwrap();
        assert_golden(&mut RawOrt::load(&environment, &path, Arc::clone(&samples)).unwrap(), &labels);
        assert_golden(&mut RawTract::load(&path, Arc::clone(&samples)).unwrap(), &labels);
        assert_golden(&mut Python::start(&path, samples).unwrap(), &labels);
    }
}
