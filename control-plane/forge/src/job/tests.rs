use super::*;
use crate::genotype::{self, Dim};
use rand::RngExt;
use shared::{
    job::{Budget, Compression, DataFormat, DatasetRef, Pretext, Reading},
    manifest::Task,
};
use std::{fmt::Write, fs};

const BOARD: &str = r#"
id = "small"
name = "A small board"
target = "aarch64-unknown-linux-gnu"
[cpu]
cores = 1
clock_mhz = 1000
vector_bits = 128
int8_dot = true
[memory]
ram_bytes = 67108864
flash_bytes = 67108864
[limits]
weight_bytes_max = 200000
activation_bytes_max = 100000
macs_max = 5000000
latency_us_max = 10000
[runtime]
allowed = ["tract"]
threads = 1
"#;

/// Sines and square waves of random phase.
fn write_waves(folder: &Path) {
    let mut rng = seeds::stream(11, Purpose::Samples, 0);
    for part in ["TRAIN", "TEST"] {
        let mut text = String::new();
        for sample in 0..24 {
            let phase: f32 = rng.random_range(0.0..6.0);
            write!(text, "{}", sample % 2).unwrap();
            for t in 0..24 {
                let wave = (t as f32 * 0.5 + phase).sin();
                let value = if sample % 2 == 0 { wave } else { wave.signum() };
                write!(text, "\t{value}").unwrap();
            }
            text.push('\n');
        }
        fs::write(folder.join(format!("Waves_{part}.tsv")), text).unwrap();
    }
}

fn spec(data: &Path) -> JobSpec {
    JobSpec {
        id: "0198c0de-0000-7000-8000-000000000001".parse().unwrap(),
        seed: 5,
        threads: 1,
        dataset: DatasetRef {
            path: data.to_owned(),
            format: DataFormat::UcrTsv,
            digest: None,
            reading: Reading::default(),
        },
        board: shared::board::Board::from_toml(BOARD, "small.toml").unwrap(),
        kind: JobKind::Search { method: SearchMethod::Darts },
        budget: Budget {
            search_steps: 6,
            search_batch: 6,
            train_epochs: 5,
            channels: 4,
            cells: 2,
            nodes: 2,
            ..Budget::quick(Task::SeriesClassification)
        },
        space: None,
    }
}

fn write_spec(dir: &Path, spec: &JobSpec) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(job::SPEC_FILE), serde_json::to_vec(spec).unwrap()).unwrap();
}

/// Runs the job, "killing" it after `steps` steps if given; all progress that was reported.
fn drive(dir: &Path, steps: Option<usize>) -> (Result<(), Error>, Vec<Progress>) {
    drive_within(dir, steps, None)
}

/// The same with so many bytes of memory for the data set.
fn drive_within(
    dir: &Path,
    steps: Option<usize>,
    data_bytes: Option<u64>,
) -> (Result<(), Error>, Vec<Progress>) {
    let (mut said, mut done) = (Vec::new(), 0);
    let mut progress = |line: &Progress| said.push(line.clone());
    let mut stop = || {
        done += 1;
        steps == Some(done)
    };
    let checkpoint_every = Duration::ZERO;
    let hooks = Hooks { progress: &mut progress, stop: &mut stop, checkpoint_every, data_bytes };
    let result = run(dir, hooks);
    (result, said)
}

fn result_dir(dir: &Path) -> PathBuf {
    dir.join(job::RESULT_DIR)
}

fn report(dir: &Path) -> JobReport {
    serde_json::from_slice(&fs::read(result_dir(dir).join(job::REPORT_FILE)).unwrap()).unwrap()
}

#[test]
fn a_job_killed_again_and_again_ends_like_one_that_was_not_and_the_seed_repeats() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let [whole, killed, other] = ["whole", "killed", "other"].map(|name| folder.path().join(name));
    for dir in [&whole, &killed] {
        write_spec(dir, &spec(folder.path()));
    }
    write_spec(&other, &JobSpec { seed: 6, ..spec(folder.path()) });
    drive(&whole, None).0.unwrap();
    let mut kills = 0;
    let mut resumed = Vec::new();
    loop {
        let (result, said) = drive(&killed, Some(3));
        resumed.extend(said.iter().filter_map(|line| line.resumed_from.map(|step| (line.stage, step))));
        match result {
            Ok(()) => break,
            Err(Error::Stopped) => kills += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(!result_dir(&killed).exists());
    }
    assert!(kills >= 6, "{kills} kills");
    assert!(resumed.contains(&(Stage::Search, 3)) && resumed.iter().any(|(stage, _)| *stage == Stage::Train));
    for file in [
        "arch.json",
        "cell.txt",
        "weights.safetensors",
        "model.onnx",
        "model-fp32.onnx",
        "golden.safetensors",
        "history.json",
        "loss.svg",
        "alpha.svg",
        "pareto.json",
        "pareto.svg",
    ] {
        let read = |dir: &Path| fs::read(result_dir(dir).join(file)).unwrap();
        assert_eq!(read(&whole), read(&killed), "{file} differs");
    }
    assert!(!killed.join(job::CHECKPOINT_DIR).exists());
    drive(&other, None).0.unwrap();
    let weights = |dir: &Path| fs::read(result_dir(dir).join(job::WEIGHTS_FILE)).unwrap();
    assert_ne!(weights(&whole), weights(&other));
    // A worker that ended between its result and the removal of its checkpoint.
    fs::create_dir_all(whole.join(job::CHECKPOINT_DIR)).unwrap();
    let (result, said) = drive(&whole, None);
    result.unwrap();
    assert_eq!(said.last().unwrap().stage, Stage::Done);
    assert!(!whole.join(job::CHECKPOINT_DIR).exists());

    let found = report(&whole);
    assert_eq!(found.search.as_ref().unwrap().arch_steps, 6);
    front_names_what_was_trained(&whole);
    assert!(
        found.model.tensors.len() > 4 && found.model.tensors.iter().all(|tensor| tensor.high > tensor.low)
    );
    assert!(found.model.macs <= 5_000_000 && found.model.activation_bytes <= 100_000);
    finish::check(&result_dir(&whole), None).unwrap();
    trains_what_it_is_given(folder.path(), &whole);
    retrains(folder.path(), &whole);
}

/// The report's front is the file's, one point of it was trained, and any other can be.
fn front_names_what_was_trained(dir: &Path) {
    let found = report(dir).search.unwrap();
    let read = |name: &str| fs::read_to_string(result_dir(dir).join(name)).unwrap();
    let file: job::FrontFile = serde_json::from_str(&read(job::FRONT_FILE)).unwrap();
    assert_eq!(found.space.as_deref(), Some("series"));
    let points: Vec<_> = file.points.iter().map(|entry| entry.point.clone()).collect();
    assert!(
        found.front.iter().all(|point| points.contains(point))
            && found.front.iter().any(|point| point.on_front)
    );
    let chosen: Vec<_> = file.points.iter().filter(|entry| entry.point.chosen).collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!(chosen[0].point.cell, found.cell);
    let trained = Architecture::from_json(&read(job::ARCH_FILE)).unwrap();
    for entry in &file.points {
        let one = Architecture::from_json(&entry.architecture.to_string()).unwrap();
        assert_eq!(one == trained, entry.point.chosen);
        assert!(entry.point.weight_bytes <= 200_000 && entry.point.latency_us <= 10_000);
    }
    let history: History = serde_json::from_str(&read(job::HISTORY_FILE)).unwrap();
    let alpha = history.alpha.unwrap();
    assert_eq!((alpha.edges.len(), alpha.operations.len()), (5, 6));
    assert!(alpha.points.len() > 4);
}

/// From the architecture file of `parent` alone; wider where more weights are asked for; refuses one of another shape.
fn trains_what_it_is_given(data: &Path, parent: &Path) {
    let file = data.join("given.json");
    let arch = |dir: &Path| fs::read_to_string(dir.join(job::ARCH_FILE)).unwrap();
    let given = arch(&result_dir(parent));
    fs::write(&file, &given).unwrap();
    let train = |name: &str, weights| {
        let dir = data.join(name);
        let kind = JobKind::Train { architecture: file.clone(), weights };
        write_spec(&dir, &JobSpec { kind, ..spec(data) });
        (drive(&dir, None).0, dir)
    };
    let (result, dir) = train("given", None);
    result.unwrap();
    assert_eq!(arch(&result_dir(&dir)), given);
    assert_eq!(report(&dir).search, None);
    let (result, dir) = train("wider", Some(3 * Architecture::from_json(&given).unwrap().weights()));
    result.unwrap();
    let wider = Architecture::from_json(&arch(&result_dir(&dir))).unwrap();
    assert!(wider.channels > Architecture::from_json(&given).unwrap().channels);
    fs::write(&file, given.replace("\"classes\": 2", "\"classes\": 3")).unwrap();
    let (result, dir) = train("misfit", None);
    let error = result.unwrap_err();
    assert!(error.is_input() && error.to_string().contains("given.json: the model takes"), "{error}");
    assert!(!result_dir(&dir).exists());
}

#[test]
fn a_job_of_any_method_that_is_killed_ends_alike_and_its_report_names_the_method() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    for method in SearchMethod::ALL.into_iter().filter(|method| *method != SearchMethod::Darts) {
        let budget = Budget { search_steps: 10, train_epochs: 1, ..spec(folder.path()).budget };
        let spec = JobSpec { kind: JobKind::Search { method }, budget, ..spec(folder.path()) };
        let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(format!("{method}-{name}")));
        for dir in [&whole, &killed] {
            write_spec(dir, &spec);
        }
        drive(&whole, None).0.unwrap();
        let mut kills = 0;
        while let Err(error) = drive(&killed, Some(4)).0 {
            assert!(matches!(error, Error::Stopped), "{method}: {error}");
            kills += 1;
        }
        assert!(kills >= 3, "{method}: {kills} kills");
        for file in [job::ARCH_FILE, job::WEIGHTS_FILE] {
            let read = |dir: &Path| fs::read(result_dir(dir).join(file)).unwrap();
            assert_eq!(read(&whole), read(&killed), "{method}: {file} differs");
        }
        let found = report(&killed).search.unwrap();
        assert_eq!(found.method, method);
        let by_alpha = search::Form::of(method).is_some();
        assert_eq!((found.arch_steps > 0, found.cells_judged > 0), (by_alpha, !by_alpha), "{method}");
    }
}

/// Goes on from the weights of `parent` on the same data; refuses a parent of another shape.
fn retrains(data: &Path, parent: &Path) {
    let dir = data.join("again");
    let from = result_dir(parent);
    let kind = JobKind::Retrain {
        from: from.clone(),
        parent: "0198c0de-0000-7000-8000-000000000002".parse().unwrap(),
    };
    let budget = Budget { train_epochs: 20, ..spec(data).budget };
    write_spec(&dir, &JobSpec { kind, budget, ..spec(data) });
    drive(&dir, None).0.unwrap();
    let arch = |dir: &Path| fs::read_to_string(dir.join(job::ARCH_FILE)).unwrap();
    assert_eq!(arch(&from), arch(&result_dir(&dir)));
    assert_eq!(report(&dir).search, None);
    fs::remove_dir_all(result_dir(&dir)).unwrap();
    let report_file = from.join(job::REPORT_FILE);
    let kept = fs::read_to_string(&report_file).unwrap();
    let mut other = report(parent);
    other.dataset.labels.reverse();
    fs::write(&report_file, serde_json::to_vec(&other).unwrap()).unwrap();
    let error = drive(&dir, None).0.unwrap_err();
    assert!(error.is_input());
    assert!(error.to_string().contains("the model knows the classes 1, 0, the data set has 0, 1"), "{error}");
    fs::write(&report_file, kept).unwrap();
    fs::write(from.join(job::ARCH_FILE), arch(&from).replace("\"classes\": 2", "\"classes\": 3")).unwrap();
    let error = drive(&dir, None).0.unwrap_err();
    assert!(
        error.is_input() && error.to_string().contains("knows 3 classes, the data set has [1, 24] and 2")
    );
}

#[test]
fn a_job_with_teachers_that_is_killed_again_and_again_ends_like_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let [whole, killed, alone] = ["whole", "killed", "alone"].map(|name| folder.path().join(name));
    let taught = Budget { teachers: 2, ..spec(folder.path()).budget };
    for (dir, budget) in [(&whole, taught), (&killed, taught), (&alone, spec(folder.path()).budget)] {
        write_spec(dir, &JobSpec { budget, ..spec(folder.path()) });
    }
    drive(&whole, None).0.unwrap();
    drive(&alone, None).0.unwrap();
    let mut kills = 0;
    while let Err(error) = drive(&killed, Some(7)).0 {
        assert!(matches!(error, Error::Stopped), "{error}");
        kills += 1;
    }
    assert!(kills >= 8, "{kills} kills");
    let weights = |dir: &Path| fs::read(result_dir(dir).join(job::WEIGHTS_FILE)).unwrap();
    assert_eq!(weights(&whole), weights(&killed));
    assert_ne!(weights(&whole), weights(&alone), "the teachers taught nothing");
    let found = report(&whole);
    let teachers = found.teachers.unwrap();
    assert_eq!(teachers.count, 2);
    assert!(teachers.parameters > 2 * found.model.parameters, "{teachers:?}");
    assert_eq!(report(&alone).teachers, None);
}

#[test]
fn a_job_that_begins_without_labels_ends_alike_when_killed_and_says_what_it_learned() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let plain = spec(folder.path()).budget;
    let budget = Budget {
        pretext: Some(Pretext::Masked),
        pretext_epochs: Some(4),
        labelled_percent: Some(50),
        teachers: 1,
        ..plain
    };
    let [whole, killed, random] = ["whole", "killed", "random"].map(|name| folder.path().join(name));
    let random_budget = Budget { pretext: None, pretext_epochs: None, ..budget };
    for (dir, budget) in [(&whole, budget), (&killed, budget), (&random, random_budget)] {
        write_spec(dir, &JobSpec { budget, ..spec(folder.path()) });
    }
    drive(&whole, None).0.unwrap();
    drive(&random, None).0.unwrap();
    let (mut kills, mut resumed) = (0, 0);
    loop {
        let (result, said) = drive(&killed, Some(3));
        let began = |line: &&Progress| {
            line.resumed_from.is_some() && line.message.as_deref() == Some("without labels")
        };
        resumed += said.iter().filter(began).count();
        match result {
            Ok(()) => break,
            Err(Error::Stopped) => kills += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(kills >= 8 && resumed >= 2, "{kills} kills, {resumed} in the pretext");
    for file in [job::WEIGHTS_FILE, job::HISTORY_FILE] {
        let read = |dir: &Path| fs::read(result_dir(dir).join(file)).unwrap();
        assert_eq!(read(&whole), read(&killed), "{file} differs");
    }
    let weights = |dir: &Path| fs::read(result_dir(dir).join(job::WEIGHTS_FILE)).unwrap();
    assert_ne!(weights(&whole), weights(&random), "the pretext taught nothing");
    let found = report(&whole);
    assert_eq!(found.labelled, Some(12));
    let found = found.pretext.unwrap();
    assert_eq!((found.pretext, found.samples), (Pretext::Masked, 24));
    assert!(found.steps > 0 && found.loss.is_finite());
    assert_eq!(report(&random).pretext, None);
}

#[test]
fn a_job_with_a_time_limit_does_what_it_has_time_for_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let dir = folder.path().join("limited");
    let budget = Budget { train_epochs: 100_000, seconds: Some(10), ..spec(folder.path()).budget };
    write_spec(&dir, &JobSpec { budget, ..spec(folder.path()) });
    let (result, said) = drive(&dir, Some(40));
    assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
    let (result, again) = drive(&dir, None);
    result.unwrap();
    let total = |said: &[Progress]| said.iter().rfind(|line| line.stage == Stage::Train).unwrap().total;
    assert_eq!(total(&said), total(&again), "the time was measured anew");
    let remarks = report(&dir).model.remarks;
    let remark = remarks.iter().find(|remark| remark.starts_with("10 s hold 6 search steps of 6 and "));
    assert!(remark.is_some_and(|remark| remark.contains(" of 100000; it took ")), "{remarks:?}");
    let told = again.last().unwrap();
    assert_eq!((told.stage, told.message.as_ref()), (Stage::Done, remark), "it is not said at the end");
}

#[test]
fn a_space_of_ones_own_says_what_is_found_and_how_the_network_looks() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let text = r#"
name = "gates"
dim = "series"
operations = ["conv7", "glu3", "se", "attend5", "skip"]
[cell]
nodes = 3
reads = 3
fan_in = 3
[network]
stem_kernel = 5
stem_stride = 1
stages = [{ width = 1, cells = 1 }, { width = 3, cells = 1 }]
[regularise]
operation_dropout = 0.2
[hypernetwork]
sharing = [1.0, 0.5]
"#;
    let space = shared::space::SearchSpace::from_toml(text, "gates.toml").unwrap();
    for method in [SearchMethod::PartialChannels, SearchMethod::Hypernetwork] {
        let spec = JobSpec {
            kind: JobKind::Search { method },
            space: Some(space.clone()),
            budget: Budget { train_epochs: 2, ..spec(folder.path()).budget },
            ..spec(folder.path())
        };
        let dir = folder.path().join(method.name());
        write_spec(&dir, &spec);
        drive(&dir, None).0.unwrap();
        let found = result::read_architecture(&result_dir(&dir).join(job::ARCH_FILE), "").unwrap();
        assert_eq!((found.genotype.nodes.len(), found.cells), (3, 2), "{method}");
        let layout = found.layout.as_ref().unwrap();
        assert_eq!((layout.stem_kernel, layout.stem_stride, layout.stages[1].width), (5, 1, 3));
        let known = |edge: &genotype::Edge| space.operations.contains(&edge.op);
        assert!(found.genotype.nodes.iter().flatten().all(known), "{:?}", found.genotype);
        assert_eq!(report(&dir).search.unwrap().space.as_deref(), Some("gates"));
        finish::check(&result_dir(&dir), None).unwrap();
    }
    let dir = folder.path().join("images");
    let other = shared::space::SearchSpace::usual(Dim::Image);
    write_spec(&dir, &JobSpec { space: Some(other), ..spec(folder.path()) });
    let error = drive(&dir, None).0.unwrap_err();
    assert!(error.is_input() && error.to_string().contains("name a space for \"series\""), "{error}");
}

#[test]
fn the_derived_network_is_made_narrower_until_it_fits_and_refused_if_it_cannot() {
    let heavy = Architecture {
        dim: Dim::Image,
        input: vec![1, 28, 28],
        classes: 10,
        channels: 64,
        cells: 3,
        answer: Default::default(),
        genotype: genotype::Genotype {
            nodes: vec![
                vec![
                    genotype::Edge { from: 0, op: genotype::Operation::CONV3 },
                    genotype::Edge { from: 1, op: genotype::Operation::CONV3 },
                ];
                2
            ],
        },
        layout: None,
    };
    let board = spec(Path::new("/")).board;
    let fitted = heavy.clone().fit(&board).unwrap();
    assert!(fitted.channels < 64);
    let graph =
        Network::new(fitted, &mut seeds::stream(1, Purpose::NetworkWeights, 0)).unwrap().to_graph().unwrap();
    assert_eq!(broken_limit(&graph, &board), None);
    let mut tiny = board;
    tiny.limits.weight_bytes_max = 1024;
    let message = heavy.fit(&tiny).unwrap_err().to_string();
    assert!(message.starts_with("board small allows limits.weight_bytes_max = 1024"), "{message}");
}

#[test]
fn a_slower_board_gets_a_narrower_network() {
    let edge = |from| genotype::Edge { from, op: genotype::Operation::CONV3 };
    let heavy = Architecture {
        dim: Dim::Series,
        input: vec![1, 128],
        classes: 2,
        channels: 32,
        cells: 2,
        answer: Default::default(),
        genotype: genotype::Genotype { nodes: vec![vec![edge(0), edge(1)]; 2] },
        layout: None,
    };
    let mut board = spec(Path::new("/")).board;
    let at_ease = heavy.clone().fit(&board).unwrap();
    board.limits.latency_us_max /= 10;
    let pressed = heavy.clone().fit(&board).unwrap();
    assert!(pressed.channels < at_ease.channels, "{} and {}", pressed.channels, at_ease.channels);
    board.limits.latency_us_max = 1;
    let message = heavy.fit(&board).unwrap_err().to_string();
    assert!(message.starts_with("board small allows limits.latency_us_max = 1"), "{message}");
}

#[test]
fn the_accuracy_of_a_search_is_reported_at_every_multiple_of_its_interval() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let dir = folder.path().join("job");
    let budget = Budget { search_steps: 40, train_epochs: 1, ..spec(folder.path()).budget };
    write_spec(&dir, &JobSpec { budget, ..spec(folder.path()) });
    let (result, said) = drive(&dir, Some(52));
    assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
    let looks: Vec<u64> = said.iter().filter(|line| line.accuracy.is_some()).map(|line| line.step).collect();
    assert_eq!(looks, [20, 40, 52]);
}

#[test]
fn a_job_that_changed_since_its_checkpoint_says_that_it_starts_afresh() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let dir = folder.path().join("job");
    write_spec(&dir, &spec(folder.path()));
    assert!(matches!(drive(&dir, Some(2)).0, Err(Error::Stopped)));
    let (_, said) = drive(&dir, Some(1));
    assert!(
        said.iter().any(|line| line.resumed_from == Some(2))
            && said.iter().all(|line| line.message.is_none())
    );
    write_spec(&dir, &JobSpec { seed: 9, ..spec(folder.path()) });
    let (_, said) = drive(&dir, Some(1));
    let messages: Vec<&str> = said.iter().filter_map(|line| line.message.as_deref()).collect();
    assert_eq!(messages, ["job.json changed since the checkpoint: the job starts afresh"]);
    assert!(said.iter().all(|line| line.resumed_from.is_none()));
}

#[test]
fn a_job_that_began_on_another_device_goes_on_on_this_one_and_its_report_says_so() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let [whole, moved] = ["whole", "moved"].map(|name| folder.path().join(name));
    for dir in [&whole, &moved] {
        write_spec(dir, &spec(folder.path()));
    }
    drive(&whole, None).0.unwrap();
    assert!(matches!(drive(&moved, Some(3)).0, Err(Error::Stopped)));
    let checkpoint = Checkpoint::open(&moved.join(job::CHECKPOINT_DIR)).unwrap();
    let (mut state, named) = checkpoint.load::<State>().unwrap().unwrap();
    assert_eq!(state.device.replace("cuda:1".to_owned()).as_deref(), Some("cpu"));
    let tensors: Vec<(&str, Tensor)> =
        named.keys().map(|name| (name.as_str(), tensor(&named, name).unwrap())).collect();
    checkpoint.save(&state, &tensors).unwrap();
    drive(&moved, None).0.unwrap();
    let read = |dir: &Path| fs::read(result_dir(dir).join("weights.safetensors")).unwrap();
    assert!(read(&whole) == read(&moved));
    let [whole, moved] = [whole, moved].map(|dir| report(&dir));
    for report in [&whole, &moved] {
        assert_eq!((report.device.as_deref(), report.precision.as_deref()), (Some("cpu"), Some("f32")));
    }
    let told = "computed on cuda:1 until it was ended, then on cpu".to_owned();
    assert!(moved.model.remarks.contains(&told) && !whole.model.remarks.contains(&told));
}

#[test]
fn a_data_set_of_wild_values_diverges_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let wild = "0\t1e38\t-1e38\t3e38\t1\n1\t3e38\t1e38\t-3e38\t2\n".repeat(6);
    for part in ["TRAIN", "TEST"] {
        fs::write(folder.path().join(format!("Wild_{part}.tsv")), &wild).unwrap();
    }
    let dir = folder.path().join("job");
    write_spec(&dir, &spec(folder.path()));
    let error = drive(&dir, None).0.unwrap_err();
    assert!(matches!(error, Error::Diverged { stage: "search", .. }), "{error}");
    assert!(error.to_string().contains("look for wild values in the data set"));
}

#[test]
fn a_bad_job_is_an_input_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    let message = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    assert!(message(drive(&dir, None).0).contains("job.json: cannot be read"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(job::SPEC_FILE), "{").unwrap();
    assert!(message(drive(&dir, None).0).contains("job.json: no job"));
    let mut bad = spec(folder.path());
    bad.budget.cells = 0;
    write_spec(&dir, &bad);
    assert!(message(drive(&dir, None).0).contains("budget.cells is 0, allowed are 1 to 32"));
    let mut bad =
        JobSpec { kind: JobKind::Search { method: SearchMethod::PartialChannels }, ..spec(folder.path()) };
    bad.budget.channels = 5;
    write_spec(&dir, &bad);
    assert!(
        message(drive(&dir, None).0).contains("budget.channels is 5, partial-channels needs an even number")
    );
    let text = fs::read_to_string(dir.join(job::SPEC_FILE)).unwrap().replace("partial-channels", "dart");
    fs::write(dir.join(job::SPEC_FILE), text).unwrap();
    assert!(message(drive(&dir, None).0).contains("no job: unknown variant `dart`, expected one of `darts`"));
    write_spec(&dir, &spec(folder.path()));
    assert!(message(drive(&dir, None).0).contains("no data set found: expected NAME_TRAIN.tsv"));
}

mod anomalies;
mod limits;
mod text;

/// A budget that compresses by all means, and a network that training makes good enough for it.
fn compressing(data: &Path) -> JobSpec {
    let budget = Budget { train_epochs: 25, channels: 16, compress: Compression::Auto, ..spec(data).budget };
    JobSpec { budget, ..spec(data) }
}

#[test]
fn a_compression_that_is_killed_again_and_again_ends_like_one_that_was_not_and_says_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    for dir in [&whole, &killed] {
        write_spec(dir, &compressing(folder.path()));
    }
    let (result, said) = drive(&whole, None);
    result.unwrap();
    let steps: Vec<u64> =
        said.iter().filter(|line| line.stage == Stage::Compress).map(|line| line.step).collect();
    assert!(steps.len() > 4 && steps.is_sorted(), "{steps:?}");
    let mut resumed = Vec::new();
    loop {
        let (result, said) = drive(&killed, Some(17));
        resumed.extend(said.iter().filter_map(|line| line.resumed_from.map(|_| line.stage)));
        match result {
            Ok(()) => break,
            Err(Error::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(resumed.iter().filter(|stage| **stage == Stage::Compress).count() >= 3, "{resumed:?}");
    for file in ["weights.safetensors", "model.onnx", "model-fp32.onnx", "golden.safetensors"] {
        let read = |dir: &Path| fs::read(result_dir(dir).join(file)).unwrap();
        assert_eq!(read(&whole), read(&killed), "{file} differs");
    }
    let (found, again) = (report(&whole), report(&killed));
    let compression = found.compression.unwrap();
    assert_eq!(compression.tried, again.compression.unwrap().tried);
    assert_eq!(compression.tried.len(), 6);
    assert_eq!(compression.tried.iter().filter(|tried| tried.refused.is_none()).count(), 1);
    let [first, .., plain, last] = compression.steps.as_slice() else { panic!("{:?}", compression.steps) };
    assert_eq!(first.step, "FP32 as trained");
    assert!(first.kernels.integer == 0 && first.kernels.float > 4, "{first:?}");
    assert!(plain.step.starts_with("plain INT8, calibrated by "), "{}", plain.step);
    assert!(last.kernels.integer > last.kernels.float, "{last:?}");
    assert_eq!((last.bytes, last.macs), (found.model.bytes_int8_onnx, found.model.macs));
    assert!(last.macs < first.macs, "nothing was pruned: {:#?}", compression.tried);
    finish::check(&result_dir(&whole), None).unwrap();
}

#[test]
fn every_way_to_compress_can_be_asked_for_by_name_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let base = compressing(folder.path());
    let mut found = std::collections::HashMap::new();
    for (way, told) in [
        (Compression::AdaptiveRounding, "rounding learned"),
        (Compression::QuantisationAware, "trained with rounding"),
        (Compression::LowRank, ""),
        (Compression::Fp16, "weights as 16-bit floats"),
    ] {
        let budget =
            Budget { compress: way, accuracy_loss_permille: Some(500), train_epochs: 12, ..base.budget };
        let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(format!("{way}-{name}")));
        for dir in [&whole, &killed] {
            write_spec(dir, &JobSpec { budget, ..base.clone() });
        }
        drive(&whole, None).0.unwrap();
        // The other two do nothing that these and the one above do not.
        if [Compression::AdaptiveRounding, Compression::QuantisationAware].contains(&way) {
            while let Err(error) = drive(&killed, Some(31)).0 {
                assert!(matches!(error, Error::Stopped), "{way}: {error}");
            }
            let model = |dir: &Path| fs::read(result_dir(dir).join("model.onnx")).unwrap();
            assert_eq!(model(&whole), model(&killed), "{way}");
        }
        let report = report(&whole);
        assert!(report.model.remarks[0].contains(told), "{way}: {:?}", report.model.remarks);
        finish::check(&result_dir(&whole), None).unwrap();
        found.insert(way, report);
    }
    let half = &found[&Compression::Fp16].model;
    assert_eq!(half.form, shared::job::ModelForm::Fp16);
    assert_eq!(
        found[&Compression::Fp16].compression.as_ref().unwrap().steps.last().unwrap().kernels.integer,
        0
    );
    assert!(half.bytes_int8_onnx < half.bytes_fp32_onnx);
    let aware = &found[&Compression::QuantisationAware].model;
    assert!(aware.accuracy_int8.unwrap() >= aware.accuracy_fp32.unwrap() - 0.1, "{aware:?}");
    let rounded = found[&Compression::AdaptiveRounding].compression.as_ref().unwrap();
    assert!(rounded.steps.last().unwrap().kernels.integer > 2);
}
