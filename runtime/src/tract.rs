//! tract: pure Rust, always there.

use crate::{
    Error, LoadOptions, Runnable, Runtime, TensorInfo, check_input, check_size, no_panic, one_line,
    tract_rewrite,
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};
use tract_onnx::prelude::{
    DatumExt, DatumType, Framework, InferenceModel, InferenceModelExt, IntoRunnable, Tensor, TypedModel,
    TypedSimplePlan, TypedSimpleState, tvec,
};
use tract_onnx::tract_hir::{infer::Factoid, internal::DimLike};

const NAME: &str = "tract";
/// Plans kept, one for each size of batch that was asked for.
const PLANS_MAX: usize = 8;
/// States kept for reuse by concurrent callers of one plan.
const STATES_KEPT: usize = 4;

/// The runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tract;

impl Runtime for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model: &[u8], _options: &LoadOptions) -> Result<Arc<dyn Runnable>, Error> {
        check_size(model)?;
        let load = |reason: String| Error::Load { runtime: NAME, reason };
        let model = no_panic(|| {
            let proto = tract_rewrite::read(model)?;
            tract_onnx::onnx().model_for_proto_model(&proto).map_err(|error| one_line(&format!("{error:#}")))
        })
        .map_err(load)?;
        let input = describe_input(&model)?;
        let plan = no_panic(|| plan(&model, &input, 1)).map_err(load)?;
        let output = describe_output(&plan)?;
        let first = Batch { plan, states: Vec::new() };
        Ok(Arc::new(TractRunnable { model, input, output, batches: Mutex::new(HashMap::from([(1, first)])) }))
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

struct Batch {
    plan: Arc<TypedSimplePlan>,
    states: Vec<TypedSimpleState>,
}

struct TractRunnable {
    model: InferenceModel,
    input: TensorInfo,
    output: TensorInfo,
    batches: Mutex<HashMap<usize, Batch>>,
}

impl fmt::Debug for TractRunnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TractRunnable")
            .field("input", &self.input)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

impl TractRunnable {
    fn batches(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Batch>> {
        self.batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A state of the plan for `batch` samples, and the plan itself for making another.
    fn take(&self, batch: usize) -> Result<Option<TypedSimpleState>, String> {
        if let Some(entry) = self.batches().get_mut(&batch) {
            return match entry.states.pop() {
                Some(state) => Ok(Some(state)),
                None => entry.plan.spawn().map(Some).map_err(|error| one_line(&format!("{error:#}"))),
            };
        }
        if self.batches().len() >= PLANS_MAX {
            return Ok(None);
        }
        let plan = plan(&self.model, &self.input, batch)?;
        let state = plan.spawn().map_err(|error| one_line(&format!("{error:#}")))?;
        self.batches().entry(batch).or_insert(Batch { plan, states: Vec::new() });
        Ok(Some(state))
    }

    fn put_back(&self, batch: usize, state: TypedSimpleState) {
        if let Some(entry) = self.batches().get_mut(&batch)
            && entry.states.len() < STATES_KEPT
        {
            entry.states.push(state);
        }
    }

    /// Runs exactly `batch` samples with a plan of that size; `None` where no plan of that size may be made.
    fn run_batch(&self, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<Option<()>, String> {
        let Some(mut state) = self.take(batch)? else { return Ok(None) };
        let shape: Vec<usize> = std::iter::once(batch).chain(self.input.shape.iter().copied()).collect();
        let text = |error: tract_onnx::prelude::TractError| one_line(&format!("{error:#}"));
        let tensor = Tensor::from_shape(&shape, input).map_err(text)?;
        let outputs = state.run(tvec![tensor.into()]).map_err(text)?;
        let first = outputs.first().ok_or("no output came")?;
        let values = first.to_plain_array_view::<f32>().map_err(text)?;
        output.extend(values.iter());
        drop(outputs);
        self.put_back(batch, state);
        Ok(Some(()))
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
        let run = no_panic(|| {
            if self.run_batch(input, batch, output)?.is_some() {
                return Ok(());
            }
            for sample in input.chunks_exact(self.input.elements()) {
                self.run_batch(sample, 1, output)?;
            }
            Ok(())
        });
        run.map_err(|reason| Error::Run { runtime: NAME, reason })?;
        let expected = batch * self.output.elements();
        if output.len() != expected {
            let reason = format!("{} values came out, expected {expected}", output.len());
            return Err(Error::Run { runtime: NAME, reason });
        }
        Ok(())
    }
}
