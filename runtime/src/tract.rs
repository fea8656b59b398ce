//! tract: pure Rust, always there.

use crate::{
    Error, LoadOptions, Runnable, Runtime, TensorInfo, check_input, check_size, no_panic, one_line,
    pool::Pool, run_samples, tract_rewrite,
};
use std::{fmt, sync::Arc};
use tract_onnx::prelude::{
    DatumExt, DatumType, Framework, InferenceModel, InferenceModelExt, IntoRunnable, Tensor, TypedModel,
    TypedSimplePlan, TypedSimpleState, tvec,
};
use tract_onnx::tract_hir::{infer::Factoid, internal::DimLike};

const NAME: &str = "tract";

/// The runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tract;

impl Runtime for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model: &[u8], options: &LoadOptions) -> Result<Arc<dyn Runnable>, Error> {
        check_size(model)?;
        let load = |reason: String| Error::Load { runtime: NAME, reason };
        let model = no_panic(|| {
            let proto = tract_rewrite::read(model)?;
            tract_onnx::onnx().model_for_proto_model(&proto).map_err(|error| one_line(&format!("{error:#}")))
        })
        .map_err(load)?;
        let input = describe_input(&model)?;
        let one = no_panic(|| plan(&model, &input, 1)).map_err(load)?;
        let output = describe_output(&one)?;
        let make = |plan, samples| Plan::warm(plan, samples, &input, &output, options.session_count());
        let one = make(one, 1).map_err(load)?;
        // A model that takes no batch is run sample by sample.
        let together = run_samples(&input, options);
        let many = (together > 1)
            .then(|| no_panic(|| plan(&model, &input, together)).and_then(|plan| make(plan, together)).ok())
            .flatten()
            .filter(|many| many.runs);
        Ok(Arc::new(TractRunnable { input, output, one, many }))
    }
}

fn plan(model: &InferenceModel, input: &TensorInfo, batch: usize) -> Result<Arc<TypedSimplePlan>, String> {
    let shape: Vec<usize> = std::iter::once(batch).chain(input.shape.iter().copied()).collect();
    let build = || {
        model
            .clone()
            .with_input_fact(0, f32::fact(&shape).into())?
            .with_output_fact(0, Default::default())?
            .into_optimized()?
            .into_runnable()
    };
    build().map_err(|error: tract_onnx::prelude::TractError| one_line(&format!("{error:#}")))
}

fn form(reason: String) -> Error {
    Error::Form { runtime: NAME, reason }
}

fn describe_input(model: &InferenceModel) -> Result<TensorInfo, Error> {
    let [outlet] = model.inputs[..] else { return Err(form(format!("{} inputs", model.inputs.len()))) };
    if model.outputs.len() != 1 {
        return Err(form(format!("{} outputs", model.outputs.len())));
    }
    let fact = model.outlet_fact(outlet).map_err(|error| form(one_line(&error)))?;
    if fact.datum_type.concretize() != Some(DatumType::F32) {
        return Err(form("the input is not f32".to_owned()));
    }
    let sizes: Option<Vec<usize>> = fact
        .shape
        .dims()
        .skip(1)
        .map(|size| size.concretize().and_then(|size| size.to_usize().ok()).filter(|&size| size > 0))
        .collect();
    let sizes = sizes
        .filter(|sizes| !sizes.is_empty())
        .ok_or_else(|| form("the input's shape is not fixed".to_owned()))?;
    Ok(TensorInfo { name: model.node(outlet.node).name.clone(), shape: sizes })
}

fn describe_output(plan: &TypedSimplePlan) -> Result<TensorInfo, Error> {
    let model: &TypedModel = plan.model();
    let outlet = *model.outputs.first().ok_or_else(|| form("no output".to_owned()))?;
    let fact = model.outlet_fact(outlet).map_err(|error| form(one_line(&error)))?;
    let shape = fact.shape.as_concrete().ok_or_else(|| form("the output's shape is not fixed".to_owned()))?;
    if fact.datum_type != DatumType::F32 || shape.first() != Some(&1) {
        return Err(form("the output is not f32 with the batch first".to_owned()));
    }
    let name = model.outlet_label(outlet).unwrap_or(&model.node(outlet.node).name).to_owned();
    Ok(TensorInfo { name, shape: shape[1..].to_vec() })
}

/// The network compiled for one size of batch, with its states.
struct Plan {
    plan: Arc<TypedSimplePlan>,
    samples: usize,
    states: Pool<TypedSimpleState>,
    /// The first run gave as many values as it should.
    runs: bool,
}

impl Plan {
    /// Makes the states and runs each once.
    fn warm(
        plan: Arc<TypedSimplePlan>,
        samples: usize,
        input: &TensorInfo,
        output: &TensorInfo,
        sessions: usize,
    ) -> Result<Self, String> {
        let states = (0..sessions).map(|_| spawn(&plan)).collect::<Result<_, _>>()?;
        let mut made = Self { plan, samples, states: Pool::new(states), runs: true };
        let zeros = vec![0f32; samples * input.elements()];
        let mut scratch = Vec::new();
        // Held until all are taken, so that each has its turn.
        let mut taken: Vec<_> = (0..sessions).map(|_| made.states.take()).collect();
        let mut runs = true;
        for state in &mut taken {
            scratch.clear();
            let ran = made.run_on(state, &zeros, input, &mut scratch);
            runs &= ran.is_ok() && scratch.len() == samples * output.elements();
        }
        drop(taken);
        made.runs = runs;
        Ok(made)
    }

    /// Runs exactly `samples` samples and appends what comes out.
    fn run(&self, input: &[f32], info: &TensorInfo, output: &mut Vec<f32>) -> Result<(), String> {
        self.run_on(&mut self.states.take(), input, info, output)
    }

    fn run_on(
        &self,
        state: &mut TypedSimpleState,
        input: &[f32],
        info: &TensorInfo,
        output: &mut Vec<f32>,
    ) -> Result<(), String> {
        let ran = no_panic(|| {
            let shape: Vec<usize> = std::iter::once(self.samples).chain(info.shape.iter().copied()).collect();
            let text = |error: tract_onnx::prelude::TractError| one_line(&format!("{error:#}"));
            let tensor = Tensor::from_shape(&shape, input).map_err(text)?;
            let outputs = state.run(tvec![tensor.into()]).map_err(text)?;
            let first = outputs.first().ok_or("no output came")?;
            let values = first.to_plain_array_view::<f32>().map_err(text)?;
            output.extend(values.iter());
            Ok(())
        });
        if ran.is_err() {
            // Half-done work is left in it.
            if let Ok(fresh) = spawn(&self.plan) {
                *state = fresh;
            }
        }
        ran
    }
}

fn spawn(plan: &Arc<TypedSimplePlan>) -> Result<TypedSimpleState, String> {
    plan.spawn().map_err(|error| one_line(&format!("{error:#}")))
}

struct TractRunnable {
    input: TensorInfo,
    output: TensorInfo,
    one: Plan,
    /// For parts of larger batches; none where the model takes one sample at a time.
    many: Option<Plan>,
}

impl fmt::Debug for TractRunnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TractRunnable")
            .field("input", &self.input)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

impl Runnable for TractRunnable {
    fn runtime(&self) -> &'static str {
        NAME
    }

    fn input(&self) -> &TensorInfo {
        &self.input
    }

    fn output(&self) -> &TensorInfo {
        &self.output
    }

    fn run_into(&self, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<(), Error> {
        check_input(&self.input, input, batch)?;
        output.clear();
        let each = self.input.elements();
        let mut rest = input;
        let run = (|| {
            if let Some(many) = &self.many {
                while rest.len() >= many.samples * each {
                    let (part, after) = rest.split_at(many.samples * each);
                    many.run(part, &self.input, output)?;
                    rest = after;
                }
            }
            rest.chunks_exact(each).try_for_each(|sample| self.one.run(sample, &self.input, output))
        })();
        run.map_err(|reason: String| Error::Run { runtime: NAME, reason })?;
        let expected = batch * self.output.elements();
        if output.len() != expected {
            let reason = format!("{} values came out, expected {expected}", output.len());
            return Err(Error::Run { runtime: NAME, reason });
        }
        Ok(())
    }
}
