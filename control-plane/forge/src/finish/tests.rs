use super::*;
use crate::{
    graph::Graph,
    onnx::tests::{ort, random_graph, values},
    quantise::Candidate,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use runtime::golden::argmax;

const BOARD: &str = include_str!("../../../../firmware-configs/x86-64.toml");

#[test]
fn int8_may_lose_one_percent_gets_a_remark_beyond_it_and_is_refused_when_it_is_useless() {
    assert_eq!(judge_accuracy(0.99, 0.982, 10_000, INT8_LOSS_REFUSED).unwrap(), None);
    assert_eq!(judge_accuracy(0.98, 0.99, 10_000, INT8_LOSS_REFUSED).unwrap(), None);
    let remark = judge_accuracy(0.99, 0.96, 10_000, INT8_LOSS_REFUSED).unwrap().unwrap();
    assert_eq!(remark, "INT8 is more than 1 % less accurate than FP32: 0.9600 against 0.9900");
    let error = judge_accuracy(0.99, 0.9, 10_000, INT8_LOSS_REFUSED).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the INT8 model answers 0.9000 of the test split right, the FP32 model 0.9900")
    );
    // Nine answers of 150 may be chance.
    assert!(judge_accuracy(0.96, 0.9, 150, INT8_LOSS_REFUSED).unwrap().is_some());
    assert!(judge_accuracy(0.96, 0.88, 150, INT8_LOSS_REFUSED).is_err());
    // Who allows a tenth gets what costs a tenth.
    assert!(judge_accuracy(0.99, 0.9, 10_000, 0.1).unwrap().is_some());
    // A training that was cut short by its time gives what it came to, and says so.
    assert!(judge_accuracy(0.99, 0.1, 10_000, f64::INFINITY).unwrap().is_some());
    assert_eq!(judge_accuracy(0.0, 0.0, 10_000, f64::INFINITY).unwrap(), None);
}

#[test]
fn a_model_over_the_boards_latency_gets_a_remark_and_on_the_boards_own_kind_of_processor_it_is_refused() {
    let mut board = Board::from_toml(BOARD, "x86-64.toml").unwrap();
    board.limits.latency_us_max = 200;
    board.target = format!("{}-unknown-{}-gnu", std::env::consts::ARCH, std::env::consts::OS);
    let table =
        LatencyTable { tract_fp32: Some(10.0), tract_int8: Some(300.0), ort_fp32: 10.0, ort_int8: 150.0 };
    assert_eq!(judge_latency(&table, &board).unwrap(), None);
    board.runtime.allowed = vec![RuntimeName::Tract];
    let error = judge_latency(&table, &board).unwrap_err().to_string();
    assert!(error.contains("board x86-64 allows limits.latency_us_max = 200: lower the budget's"), "{error}");
    board.target = "other-unknown-linux-gnu".to_owned();
    let remark = judge_latency(&table, &board).unwrap().unwrap();
    assert_eq!(
        remark,
        "one inference takes 300 us even here, board x86-64 allows limits.latency_us_max = 200"
    );
    board.limits.latency_us_max = 1000;
    board.power = Some(shared::board::Power { inference_mw: 2000 });
    assert_eq!(judge_latency(&table, &board).unwrap(), None);
    board.limits.energy_uj_max = Some(500);
    assert_eq!(
        judge_latency(&table, &board).unwrap().unwrap(),
        "one inference takes 600 uJ even here, board x86-64 allows limits.energy_uj_max = 500"
    );
}

#[test]
fn the_closest_model_is_passed_over_when_it_answers_worse_than_another() {
    let Some(ort) = ort() else { return };
    let graph = random_graph(11);
    let each = graph.input_shape().elements();
    let samples = values(&mut ChaCha8Rng::seed_from_u64(3), each * 30, 1.0);
    let fp32 = onnx::write_f32(&graph).unwrap();
    let model = ort.load(&fp32, &LoadOptions::default()).unwrap();
    let mut answers = Vec::new();
    model.run_into(&samples, 30, &mut answers).unwrap();
    let classes = model.output().elements();
    let labels: Vec<i64> = answers.chunks_exact(classes).map(|row| argmax(row) as i64).collect();
    let some = Split { samples, labels, ..Split::default() };
    let good = quantise(&graph, &fp32, &some.samples, &ort, false).unwrap();
    let other = onnx::write_f32(&turned_round(&graph)).unwrap();
    let best = good[0].calibrator;
    let wrong = Candidate { onnx_int8: other, ..good[0].clone() };
    let right = good[0].onnx_int8.clone();
    let chosen = choose(good.clone(), &fp32, &some, classes, &ort).unwrap();
    assert_eq!(chosen.calibrator, best);
    let chosen = choose(vec![wrong, good[0].clone()], &fp32, &some, classes, &ort).unwrap();
    assert_eq!(chosen.onnx_int8, right);
}

/// The same network with its answers turned round.
fn turned_round(graph: &Graph) -> Graph {
    let mut other = Graph::new(graph.input_shape().clone()).unwrap();
    for node in graph.nodes() {
        let op = match node.op() {
            crate::graph::Op::Linear(linear) if !linear.relu => {
                let mut linear = linear.clone();
                linear.weight.iter_mut().chain(&mut linear.bias).for_each(|value| *value = -*value);
                crate::graph::Op::Linear(linear)
            }
            op => op.clone(),
        };
        other.push(op, node.inputs()).unwrap();
    }
    other
}
