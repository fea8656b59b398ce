use super::*;
use crate::{
    graph::{Graph, Op, Shape, ValueId, Window},
    onnx::{
        self,
        tests::{conv, linear, ort},
    },
    seeds::{self, Purpose},
};
use rand::RngExt;
use std::{fmt::Write, fs};

const BOARD: &str = include_str!("../../../../firmware-configs/x86-64.toml");

/// A folder with a model of two classes over series of 24 values, and a data set and arrays to calibrate it by.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = seeds::stream(3, Purpose::NetworkWeights, 0);
        let mut graph = Graph::new(Shape::series(1, 24)).unwrap();
        let mut last = ValueId::INPUT;
        for channels in [8, 12] {
            let shape = graph.shape(last).unwrap().clone();
            let window = Window::same(1, 3, 1, 1, 1);
            last = graph.push(conv(&mut rng, &shape, channels, 1, window), &[last]).unwrap();
        }
        last = graph.push(Op::GlobalAvgPool, &[last]).unwrap();
        last = graph.push(linear(&mut rng, 12, 2, false), &[last]).unwrap();
        graph.push(Op::Softmax, &[last]).unwrap();
        let world = Self { folder };
        fs::write(world.path("waves.onnx"), onnx::write_f32(&graph).unwrap()).unwrap();
        let mut rows = String::new();
        for sample in 0..40 {
            write!(rows, "{}", sample % 2).unwrap();
            for _ in 0..24 {
                write!(rows, "\t{}", rng.random_range(-1.0..1.0f32)).unwrap();
            }
            rows.push('\n');
        }
        fs::create_dir(world.path("set")).unwrap();
        for part in ["TRAIN", "TEST"] {
            fs::write(world.path(&format!("set/Waves_{part}.tsv")), &rows).unwrap();
        }
        fs::create_dir(world.path("arrays")).unwrap();
        let values: Vec<f32> = (0..30 * 24).map(|_| rng.random_range(-1.0..1.0)).collect();
        world.write_array("arrays/a.npy", "(29, 1, 24)", &values[24..]);
        world.write_array("arrays/b.npy", "(1, 24)", &values[..24]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_array(&self, name: &str, shape: &str, values: &[f32]) {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        fs::write(self.path(name), bytes).unwrap();
    }

    fn import(
        &self,
        ort: &Ort,
        calibrate: &str,
        board: Option<&Board>,
        labels: Option<&Path>,
    ) -> Result<Outcome, Error> {
        let (model, calibrate) = (self.path("waves.onnx"), self.path(calibrate));
        let wanted = Import {
            model: &model,
            calibrate: &calibrate,
            board,
            labels,
            wishes: Wishes::default(),
            sqnr_min_db: SQNR_MIN_DB,
            seed: 1,
        };
        import(&wanted, ort)
    }

    fn refused(&self, ort: &Ort, calibrate: &str) -> String {
        let error = self.import(ort, calibrate, None, None).unwrap_err();
        assert!(error.is_input(), "{error}");
        format!("{:#}", anyhow::Error::new(error))
    }
}

#[test]
fn a_model_with_arrays_becomes_a_result_folder_that_passes_the_check() {
    let Some(ort) = ort() else { return };
    let world = World::new();
    let done = world.import(&ort, "arrays", None, None).unwrap();
    let report = &done.report;
    assert_eq!((report.job, report.dataset.labels.len(), report.dataset.train_count), (None, 2, 30));
    assert_eq!((&report.dataset.shape[..], report.dataset.format), (&[1, 24][..], job::DataFormat::Npy));
    assert_eq!(report.model.accuracy_int8, None);
    let import = report.import.as_ref().unwrap();
    assert!(import.closeness.sqnr_db > SQNR_MIN_DB && import.kept_f32.is_empty(), "{import:?}");
    assert_eq!((import.source.as_str(), &import.not_for_devices), ("waves.onnx", &None));
    assert!(report.model.us_per_inference.tract_int8.is_some());
    let out = world.path("result");
    done.write(&out).unwrap();
    let passed = finish::check(&out, None).unwrap();
    assert_eq!(passed.iter().map(|checked| checked.runtime).collect::<Vec<_>>(), ["tract", "onnxruntime"]);
    let text = fs::read(out.join(job::REPORT_FILE)).unwrap();
    let read: JobReport = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (read.job, &read.dataset, read.import.unwrap().way),
        (None, &report.dataset, import.way.clone())
    );
    let again = world.import(&ort, "arrays", None, None).unwrap();
    assert_eq!((again.onnx_int8, again.golden), (done.onnx_int8, done.golden));
}

#[test]
fn a_data_set_brings_labels_and_an_accuracy() {
    let Some(ort) = ort() else { return };
    let world = World::new();
    let done = world.import(&ort, "set", None, None).unwrap();
    assert_eq!(done.report.dataset.labels, ["0", "1"]);
    let accuracy = done.report.model.accuracy_fp32.unwrap();
    assert!((0.0..=1.0).contains(&accuracy) && done.report.quality().starts_with("accuracy "));
}

#[test]
fn a_model_that_tract_does_not_run_is_said_to_be_for_onnx_runtime_only() {
    let Some(ort) = ort() else { return };
    let world = World::new();
    let mut model = quantiser::file::read(&fs::read(world.path("waves.onnx")).unwrap()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    // Of its input Det makes nothing that lasts; tract has no such operator.
    let add = |graph: &mut quantiser::proto::GraphProto, op: &str, inputs: &[&str], output: &str| {
        let inputs: Vec<String> = inputs.iter().map(|name| (*name).to_owned()).collect();
        graph.node.push(quantiser::proto::NodeProto::new(op, &inputs, output, Vec::new()));
    };
    graph.output[0].name = "answer".to_owned();
    add(graph, "Unsqueeze", &["probabilities", "last"], "square");
    graph.initializer.push(quantiser::proto::TensorProto::ints("last", &[2]));
    add(graph, "MatMul", &["square", "flat"], "matrix");
    graph.initializer.push(quantiser::proto::TensorProto::floats("flat", &[1, 2], &[0.0, 0.0]));
    add(graph, "Det", &["matrix"], "nothing");
    graph.initializer.push(quantiser::proto::TensorProto::ints("column", &[-1, 1]));
    add(graph, "Reshape", &["nothing", "column"], "nothings");
    add(graph, "Add", &["probabilities", "nothings"], "answer");
    fs::write(world.path("waves.onnx"), prost::Message::encode_to_vec(&model)).unwrap();
    let done = world.import(&ort, "arrays", None, None).unwrap();
    let report = &done.report.model;
    assert_eq!((report.us_per_inference.tract_int8, report.accuracy_int8_tract), (None, None));
    assert!(
        report.remarks.iter().any(|remark| remark.starts_with("it runs on ONNX Runtime only; tract: ")),
        "{:?}",
        report.remarks
    );
    let out = world.path("result");
    done.write(&out).unwrap();
    let passed = finish::check(&out, None).unwrap();
    assert_eq!(passed.iter().map(|checked| checked.runtime).collect::<Vec<_>>(), ["onnxruntime"]);
    let mut board = Board::from_toml(BOARD, "x86-64.toml").unwrap();
    board.runtime.allowed = vec![RuntimeName::Tract];
    let done = world.import(&ort, "arrays", Some(&board), None).unwrap();
    let not = done.report.import.unwrap().not_for_devices.unwrap();
    assert_eq!(not, "devices do not run it: the board allows tract only");
}

#[test]
fn an_operator_that_nothing_knows_is_named_with_its_node_and_the_file() {
    let Some(ort) = ort() else { return };
    let world = World::new();
    let bytes = fs::read(world.path("waves.onnx")).unwrap();
    let refused = |change: &dyn Fn(&mut quantiser::proto::NodeProto)| {
        let mut model = quantiser::file::read(&bytes).unwrap();
        change(&mut model.graph.as_mut().unwrap().node[1]);
        fs::write(world.path("waves.onnx"), prost::Message::encode_to_vec(&model)).unwrap();
        let text = world.refused(&ort, "arrays");
        assert!(text.contains("waves.onnx") && !text.contains('\n'), "{text}");
        text
    };
    let unknown = refused(&|node| {
        node.op_type = "FusedSwish".to_owned();
        node.name = "block1/act".to_owned();
    });
    assert!(
        unknown.ends_with("node FusedSwish \"block1/act\": no operator of opset 21 or older has this name"),
        "{unknown}"
    );
    let flow = refused(&|node| {
        node.op_type = "Loop".to_owned();
        node.name = "decoder/loop".to_owned();
    });
    assert!(flow.contains("node Loop \"decoder/loop\": control flow is not taken in"), "{flow}");
    let domain = refused(&|node| {
        node.domain = "com.microsoft".to_owned();
        node.name = "attention".to_owned();
    });
    assert!(domain.contains("\"attention\"") && domain.contains("com.microsoft"), "{domain}");
}

#[test]
fn a_model_over_the_boards_limits_is_refused() {
    let Some(ort) = ort() else { return };
    let world = World::new();
    let mut board = Board::from_toml(BOARD, "x86-64.toml").unwrap();
    board.limits.weight_bytes_max = 100;
    let error = world.import(&ort, "arrays", Some(&board), None).unwrap_err();
    assert!(error.is_input());
    assert!(error.to_string().contains("limits.weight_bytes_max = 100"), "{error}");
}

#[test]
fn samples_and_labels_that_do_not_fit_are_named() {
    let Some(ort) = ort() else { return };
    let world = World::new();
    let text = world.refused(&ort, "nowhere");
    assert!(text.contains("nowhere: no data set found: expected .npy files, or a folder with"), "{text}");
    world.write_array("arrays/c.npy", "(2, 2, 2, 2)", &[0.0; 16]);
    let text = world.refused(&ort, "arrays");
    assert!(text.contains("c.npy: its shape is [2, 2, 2, 2]; a sample has 2 axes"), "{text}");
    world.write_array("arrays/c.npy", "(1, 1, 25)", &[0.0; 25]);
    let text = world.refused(&ort, "arrays");
    assert!(text.contains("c.npy: its samples are [1, 25], those of the files before it [1, 24]"), "{text}");
    fs::remove_file(world.path("arrays/c.npy")).unwrap();
    let labels = world.path("labels.txt");
    fs::write(&labels, "one\n").unwrap();
    let error = world.import(&ort, "arrays", None, Some(&labels)).unwrap_err();
    assert!(error.to_string().contains("labels.txt: it has 1 lines, the model gives 2 values"), "{error}");
    fs::write(&labels, "one\ntwo\n").unwrap();
    let done = world.import(&ort, "arrays", None, Some(&labels)).unwrap();
    assert_eq!(done.report.dataset.labels, ["one", "two"]);
    fs::write(world.path("waves.onnx"), "none").unwrap();
    assert!(world.refused(&ort, "arrays").contains("waves.onnx: this is not an ONNX model"));
}
