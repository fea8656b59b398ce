use super::*;
use shared::{
    job::Metric,
    manifest::{ANOMALY_LABELS, Alarm, Task},
};

/// Readings of a machine that warms up as it turns faster; where it is broken, it does not. One row of six is broken.
fn write_machine(folder: &Path) -> PathBuf {
    let mut rng = seeds::stream(21, Purpose::Samples, 0);
    let mut text = "turns,heat,noise,state\n".to_owned();
    for row in 0..600 {
        let turns: f32 = rng.random_range(1000.0..3000.0);
        let broken = row % 6 == 0;
        let heat = if broken { rng.random_range(20.0..90.0) } else { 20.0 + turns * 0.02 };
        let heat: f32 = heat + rng.random_range(-1.0..1.0);
        let noise: f32 = rng.random_range(0.0..1.0);
        writeln!(text, "{turns},{heat},{noise},{}", if broken { "broken" } else { "good" }).unwrap();
    }
    let file = folder.join("machine.csv");
    fs::write(&file, text).unwrap();
    file
}

fn detecting(data: &Path, format: DataFormat, normal: &str) -> JobSpec {
    let mut spec = spec(data);
    spec.dataset.format = format;
    spec.dataset.reading.normal = Some(normal.to_owned());
    spec.budget = Budget { search_steps: 4, search_batch: 32, train_epochs: 60, channels: 8, ..spec.budget };
    spec
}

#[test]
fn what_is_not_normal_in_a_table_is_found_without_ever_having_been_seen_and_a_killed_job_ends_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_machine(folder.path());
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    for dir in [&whole, &killed] {
        write_spec(dir, &detecting(&data, DataFormat::Csv, "good"));
    }
    drive(&whole, None).0.unwrap();
    let found = report(&whole);
    assert_eq!((found.dataset.task, &found.dataset.shape[..]), (Task::AnomalyDetection, &[3, 1][..]));
    assert_eq!(found.dataset.labels, ANOMALY_LABELS);
    assert_eq!(found.dataset.columns[1].name, "heat");
    assert_eq!(found.search.as_ref().unwrap().space.as_deref(), Some("table"));
    // A fifth of the 400 normal rows that are there to train.
    assert_eq!(found.alarm, Some(Alarm { false_alarms_permille: 10, normal_samples: 80 }));
    let metric = |wanted| *found.model.metrics.iter().find(|report| report.metric == wanted).unwrap();
    let auroc = metric(Metric::Auroc);
    assert_eq!(found.model.metrics[0], auroc);
    assert!(auroc.fp32 > 0.9 && auroc.int8 > 0.88, "{auroc:?}");
    let (detected, alarms) = (metric(Metric::DetectionRate), metric(Metric::FalseAlarmRate));
    assert!(detected.int8 > 0.4 && alarms.int8 < 0.1, "{detected:?} and {alarms:?}");
    assert!(found.quality().contains("AUROC"), "{}", found.quality());
    finish::check(&result_dir(&whole), None).unwrap();
    let kills = (0..200).take_while(|_| matches!(drive(&killed, Some(60)).0, Err(Error::Stopped))).count();
    assert!(kills > 2, "{kills}");
    for file in ["arch.json", "weights.safetensors", "model.onnx", "golden.safetensors"] {
        let read = |dir: &Path| fs::read(result_dir(dir).join(file)).unwrap();
        assert_eq!(read(&whole), read(&killed), "{file} differs");
    }
}

/// Sixty sines for training and twenty for testing, and none that is anything else.
fn write_sines(folder: &Path) {
    let mut rng = seeds::stream(22, Purpose::Samples, 0);
    for (part, count) in [("TRAIN", 60), ("TEST", 20)] {
        let mut text = String::new();
        for _ in 0..count {
            let phase: f32 = rng.random_range(0.0..6.0);
            let values: Vec<String> = (0..24).map(|t| (t as f32 * 0.5 + phase).sin().to_string()).collect();
            writeln!(text, "fine\t{}", values.join("\t")).unwrap();
        }
        fs::write(folder.join(format!("Sines_{part}.tsv")), text).unwrap();
    }
}

#[test]
fn a_set_without_anomalies_is_measured_on_made_ones_and_its_report_says_so() {
    let folder = tempfile::tempdir().unwrap();
    write_sines(folder.path());
    let dir = folder.path().join("job");
    let mut spec = detecting(&folder.path().join("Sines"), DataFormat::UcrTsv, "fine");
    spec.budget.compress = Compression::Prune;
    spec.budget.accuracy_loss_permille = Some(200);
    write_spec(&dir, &spec);
    drive(&dir, None).0.unwrap();
    let found = report(&dir);
    assert_eq!(found.dataset.train_count, 60);
    let auroc = found.model.metrics[0];
    assert_eq!(auroc.metric, Metric::Auroc);
    assert!(auroc.int8 > 0.7, "{auroc:?}");
    let told =
        "the set holds no anomaly: AUROC and what is found are measured on 20 anomalies made of test samples";
    assert!(found.model.remarks.iter().any(|remark| remark == told), "{:?}", found.model.remarks);
    finish::check(&result_dir(&dir), None).unwrap();
}

#[test]
fn too_few_labels_and_a_pretext_that_rows_cannot_have_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_machine(folder.path());
    let refused = |name: &str, change: fn(&mut Budget), said: &str| {
        let dir = folder.path().join(name);
        let mut spec = detecting(&data, DataFormat::Csv, "good");
        change(&mut spec.budget);
        write_spec(&dir, &spec);
        let error = drive(&dir, None).0.unwrap_err();
        assert!(error.is_input() && error.to_string().starts_with(said), "{error}");
    };
    refused(
        "few",
        |budget| budget.labelled_percent = Some(10),
        "budget.labelled_percent leaves 40 normal samples, at least 50 are needed: raise it",
    );
    refused(
        "hidden",
        |budget| budget.pretext = Some(Pretext::Masked),
        "budget.pretext masked hides stretches",
    );
}
