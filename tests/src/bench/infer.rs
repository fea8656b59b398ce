//! Microseconds of one inference: through our agent's API, inside it, raw runtimes, Python's onnxruntime.

use super::{peer::Peer, spread::Spread};
use crate::{
    demo::Subject,
    harness::{
        Agent, AgentOptions, ControlPlane, ServeOptions, binary, cache, control::text_of, ort_library, root,
        wait_for,
    },
};
use anyhow::{Context, Result, ensure};
use runtime::{LoadOptions, Ort, Runnable, Runtime, Tract};
use serde::Serialize;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

/// Options of the bench.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A forge result with `model.onnx` and `model-fp32.onnx`; without it a quick one is made from MNIST.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Inferences of each.
    #[arg(long, default_value_t = 2000)]
    pub runs: usize,
    /// Inferences that one does before it is another's turn.
    #[arg(long, default_value_t = 100)]
    pub turn: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub lines: Vec<Line>,
}

/// One way to run one model; microseconds.
#[derive(Debug, Serialize)]
pub struct Line {
    pub model: String,
    pub way: String,
    pub us: Spread,
    /// Divided by raw ONNX Runtime on the same model.
    pub ratio_to_raw_ort: f64,
}

/// One inference of one sample.
type Work = Box<dyn FnMut(&[f32]) -> Result<()>>;

enum Way {
    Here(Work),
    Python(Peer, PathBuf),
}

/// Measures every way in turn.
pub fn run(options: &Options) -> Result<Report> {
    ensure!(options.turn >= 1 && options.runs >= options.turn, "--runs is at least --turn");
    let folder = tempfile::tempdir()?;
    let subject = crate::demo::mnist()?;
    let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let (version, result) = publish(&control, &subject, options.model.as_deref())?;
    let agent = Agent::enrol(&control, "bench-1", &folder.path().join("devices"), AgentOptions::default())?;
    roll_out(&control, &agent, &subject, &version)?;
    let chosen = agent.runtime(&subject.name)?;
    let (int8, fp32) = (result.join(shared::manifest::MODEL_FILE), result.join(shared::job::MODEL_FP32_FILE));
    let ort = Ort::open(Some(&ort_library()?))?;
    let mut ways: Vec<(String, String, Way)> = Vec::new();
    for (model, path) in [("int8", &int8), ("fp32", &fp32)] {
        let raw = |runtime: &dyn Runtime| -> Result<Way> { Ok(Way::Here(direct(runtime, path)?)) };
        ways.push((model.to_owned(), "raw ort".to_owned(), raw(&ort)?));
        ways.push((model.to_owned(), "raw tract".to_owned(), raw(&Tract)?));
        let mut command = Command::new(cache()?.join("venv-tools/bin/python"));
        let python = Peer::start("python onnxruntime", command.arg(root().join("tests/peers/infer.py")))?;
        ways.push((model.to_owned(), "python onnxruntime".to_owned(), Way::Python(python, path.clone())));
    }
    let inside: &dyn Runtime = if chosen == "tract" { &Tract } else { &ort };
    ways.push(("int8".to_owned(), format!("inside the agent ({chosen})"), Way::Here(direct(inside, &int8)?)));
    ways.push((
        "int8".to_owned(),
        "agent, binary tensors".to_owned(),
        Way::Here(through_api(&agent, &subject, true)),
    ));
    ways.push(("int8".to_owned(), "agent, JSON".to_owned(), Way::Here(through_api(&agent, &subject, false))));
    let times = in_turn(&mut ways, &subject, options)?;
    let raw = |model: &str| {
        let index = ways.iter().position(|(name, way, _)| name == model && way == "raw ort").unwrap_or(0);
        Spread::of(&times[index]).median
    };
    let lines: Vec<Line> = ways
        .iter()
        .zip(&times)
        .map(|((model, way, _), all)| {
            let us = Spread::of(all);
            Line { model: model.clone(), way: way.clone(), us, ratio_to_raw_ort: us.median / raw(model) }
        })
        .collect();
    println!("{:<6} {:<28} {:>26} {:>16}", "model", "way", "µs median (middle half)", "of raw ort");
    for line in &lines {
        println!(
            "{:<6} {:<28} {:>26} {:>16.2}",
            line.model,
            line.way,
            line.us.text(0),
            line.ratio_to_raw_ort
        );
    }
    Ok(Report { lines })
}

fn in_turn(
    ways: &mut [(String, String, Way)],
    subject: &Subject,
    options: &Options,
) -> Result<Vec<Vec<f64>>> {
    let mut times = vec![Vec::new(); ways.len()];
    let inputs = &subject.test.inputs;
    while times[0].len() < options.runs {
        for ((_, _, way), all) in ways.iter_mut().zip(&mut times) {
            let samples = inputs.iter().cycle().skip(all.len() % inputs.len()).take(options.turn);
            match way {
                Way::Here(work) => {
                    for sample in samples {
                        let started = Instant::now();
                        work(sample)?;
                        all.push(started.elapsed().as_secs_f64() * 1e6);
                    }
                }
                Way::Python(peer, path) => {
                    let samples: Vec<&Vec<f32>> = samples.collect();
                    let shape = subject.test.batch_shape(1);
                    all.extend(peer.numbers(&json!({ "model": path, "shape": shape, "samples": samples }))?);
                }
            }
        }
    }
    Ok(times)
}

fn direct(runtime: &dyn Runtime, path: &Path) -> Result<Work> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let model: Arc<dyn Runnable> = runtime.load(&bytes, &LoadOptions::default())?;
    let mut output = Vec::new();
    Ok(Box::new(move |sample| Ok(model.run_into(sample, 1, &mut output)?)))
}

fn through_api(agent: &Agent, subject: &Subject, binary: bool) -> Work {
    let client = agent.client();
    let shape = subject.test.batch_shape(1);
    let name = subject.name.clone();
    if binary {
        return Box::new(move |sample| client.infer(&name, &shape, sample).map(|_| ()));
    }
    let path = format!("/v2/models/{name}/infer");
    Box::new(move |sample| {
        let body =
            json!({ "inputs": [{ "name": "input", "datatype": "FP32", "shape": shape, "data": sample }] });
        let (status, answer) = client.post_json(&path, &body)?;
        ensure!(status == 200, "the agent answered {status}: {answer}");
        Ok(())
    })
}

/// The result folder as a version of the control plane, or a quickly trained one.
fn publish(control: &ControlPlane, subject: &Subject, result: Option<&Path>) -> Result<(String, PathBuf)> {
    binary("edgewright-forge")?;
    let path = subject.path.to_str().context("the data set's path is not UTF-8")?;
    control.cli(&["dataset", "add", &subject.name, "--path", path])?;
    if let Some(folder) = result {
        let text = folder.to_str().context("--model is not UTF-8")?;
        let shown =
            control.cli(&["model", "publish", text, "--model", &subject.name, "--board", "x86-64"])?;
        return Ok((text_of(&shown, "/name")?.to_owned(), folder.to_path_buf()));
    }
    let job = control.cli_shown(&[
        "search",
        "start",
        "--dataset",
        &subject.name,
        "--board",
        "x86-64",
        "--model",
        &subject.name,
        "--wait",
    ])?;
    let result = control.data.join("jobs").join(text_of(&job, "/id")?).join("result");
    Ok((text_of(&job, "/version")?.to_owned(), result))
}

fn roll_out(control: &ControlPlane, agent: &Agent, subject: &Subject, version: &str) -> Result<()> {
    control.cli(&[
        "rollout",
        "create",
        "--version",
        version,
        "--slot",
        &subject.name,
        "--wave",
        "100%",
        "--trial-duration-ms",
        "500",
    ])?;
    wait_for("the agent to run the model", Duration::from_secs(120), || {
        Ok(agent.active_version(&subject.name)?.map(|_| ()))
    })
}
