use super::{ways::Turn, *};

/// Takes a fixed time for each sample, and gives its index as the label.
#[derive(Debug)]
struct Steady {
    us: f64,
    inside_us: Option<f64>,
}

impl Way for Steady {
    fn turn(&mut self, indices: &[usize]) -> Result<Turn> {
        Ok(Turn { us: vec![self.us; indices.len()], labels: indices.to_vec(), inside_us: self.inside_us })
    }
}

fn options(runs: usize, turn: usize) -> Options {
    Options { models: Vec::new(), runs, turn }
}

fn model() -> Exported {
    Exported {
        model: "mnist".to_owned(),
        precision: "int8",
        path: PathBuf::new(),
        slot: "mnist-int8".to_owned(),
        agent_runtime: "onnxruntime".to_owned(),
    }
}

fn measured() -> (Turns, Vec<f64>) {
    let steady = |us, inside_us| -> Box<dyn Way> { Box::new(Steady { us, inside_us }) };
    let mut ways = [
        steady(50.0, None),
        steady(200.0, None),
        steady(60.0, None),
        steady(150.0, Some(52.0)),
        steady(300.0, Some(58.0)),
    ];
    let samples = Samples { shape: vec![1, 1], values: vec![vec![0.0]; 7] };
    in_turn(&mut ways, &samples, &options(1000, 100)).unwrap()
}

#[test]
fn too_few_runs_or_turns_and_missing_folders_are_refused() {
    options(2000, 100).validate().unwrap();
    let refused = |options: Options| options.validate().unwrap_err().to_string();
    assert!(refused(options(99, 10)).starts_with("--runs is 99, allowed are 100 to"));
    assert!(refused(options(100, 21)).starts_with("--turn is 21, allowed are 1 to 20"));
    assert!(refused(options(100, 0)).starts_with("--turn is 0"));
    let nowhere = Options { models: vec![PathBuf::from("nowhere")], ..options(2000, 100) };
    assert_eq!(refused(nowhere), "--models nowhere is no folder");
}

#[test]
fn every_way_has_a_line_with_its_ratio_to_raw_ort() {
    let (turns, agreements) = measured();
    let lines = lines(&model(), &turns, &agreements).unwrap();
    let value = serde_json::to_value(&lines).unwrap();
    let figures: Vec<(&str, f64, f64, u64)> = (0..lines.len())
        .map(|at| {
            let line = &value[at];
            let median = |key: &str| line[key]["median"].as_f64().unwrap();
            let count = line["us"]["count"].as_u64().unwrap();
            (line["way"].as_str().unwrap(), median("us"), median("ratio_to_raw_ort"), count)
        })
        .collect();
    assert_eq!(
        figures,
        [
            ("raw ort", 50.0, 1.0, 1000),
            ("raw tract", 200.0, 4.0, 1000),
            ("python onnxruntime", 60.0, 1.2, 1000),
            ("agent, binary tensors", 150.0, 3.0, 1000),
            ("agent, JSON", 300.0, 6.0, 1000),
            // One mean a turn of either form.
            ("inside the agent", 55.0, 1.1, 20),
        ]
    );
    assert!(lines.iter().all(|line| line.agreement == 1.0));
    assert_eq!((value[0]["model"].as_str(), value[0]["precision"].as_str()), (Some("mnist"), Some("int8")));
}

#[test]
fn a_way_that_runs_another_model_is_refused_and_raw_tract_is_only_reported() {
    let reference: Vec<usize> = (0..100).collect();
    let mut other = reference.clone();
    other[..6].fill(usize::MAX);
    let labels = |way: usize| {
        let mut all = vec![reference.clone(); WAYS.len()];
        all[way].clone_from(&other);
        all
    };
    assert_eq!(agreements(&labels(RAW_TRACT)).unwrap(), [1.0, 0.94, 1.0, 1.0, 1.0]);
    let error = agreements(&labels(AGENT)).unwrap_err().to_string();
    assert!(
        error.starts_with("agent, binary tensors gives the label of raw ONNX Runtime on 94 %"),
        "{error}"
    );
    let mut short = labels(RAW_TRACT);
    short[2].pop();
    assert!(agreements(&short).is_err());
    assert!(agreements(&[]).is_err());
}

#[test]
fn the_table_names_the_model_the_runtime_and_every_way() {
    let (turns, agreements) = measured();
    let machine = Machine { cpu: "A CPU".to_owned(), cores: 2 };
    let models = vec![Model {
        model: "mnist".to_owned(),
        precision: "int8".to_owned(),
        bytes: 1234,
        agent_runtime: "onnxruntime".to_owned(),
    }];
    let report = Report { machine, models, lines: lines(&model(), &turns, &agreements).unwrap() };
    let text = table(&report);
    for part in ["1234 bytes, the agent runs it on onnxruntime", "inside the agent", "1.10 (", "100.0 %"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}
