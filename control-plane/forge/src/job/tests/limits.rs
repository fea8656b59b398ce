//! Jobs on data that memory has no room for, that cannot be read, and that there is no time for.

use super::*;
use crate::data;

/// A job that uses the samples in every way: a start without labels, a share of the labels, teachers, compression.
fn thorough(folder: &Path) -> JobSpec {
    let spec = spec(folder);
    let budget = Budget {
        pretext: Some(Pretext::Masked),
        pretext_epochs: Some(2),
        labelled_percent: Some(75),
        teachers: 1,
        compress: Compression::Auto,
        ..spec.budget
    };
    let digest = Some(data::inspect(folder, None, &Default::default()).unwrap().digest);
    JobSpec { budget, dataset: DatasetRef { digest, ..spec.dataset }, ..spec }
}

fn samples_file(dir: &Path) -> PathBuf {
    dir.join(job::DATA_FILE)
}

#[test]
fn a_job_on_samples_in_a_file_ends_bit_for_bit_like_one_in_memory_and_needs_nothing_else_once_it_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("set");
    fs::create_dir(&sources).unwrap();
    write_waves(&sources);
    let [whole, stored] = ["whole", "stored"].map(|name| folder.path().join(name));
    for dir in [&whole, &stored] {
        write_spec(dir, &thorough(&sources));
    }
    let (result, said) = drive_within(&whole, None, Some(u64::MAX));
    result.unwrap();
    assert!(said.iter().all(|line| line.stage != Stage::Load || line.message.is_none()));
    let mut kills = 0;
    loop {
        let (result, said) = drive_within(&stored, Some(17), Some(0));
        let from_a_file =
            "memory has room for 0 MiB of samples: they are read from samples.bin as they are needed";
        assert!(said.iter().any(|line| line.message.as_deref() == Some(from_a_file)), "{said:?}");
        match result {
            Ok(()) => break,
            Err(Error::Stopped) => kills += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(samples_file(&stored).is_file());
        // From here on the registered files are not there any more.
        let _ = fs::remove_dir_all(&sources);
    }
    assert!(kills >= 3, "{kills} kills");
    assert!(!samples_file(&stored).exists(), "the samples stay when the job is done");
    for file in [
        "arch.json",
        "weights.safetensors",
        "model.onnx",
        "model-fp32.onnx",
        "golden.safetensors",
        "history.json",
    ] {
        let read = |dir: &Path| fs::read(result_dir(dir).join(file)).unwrap();
        assert_eq!(read(&whole), read(&stored), "{file} differs");
    }
    let [found, again] = [&whole, &stored].map(|dir| report(dir));
    assert_eq!(found.dataset, again.dataset);
    assert_eq!(found.model.accuracy_int8, again.model.accuracy_int8);
}

#[test]
fn samples_that_cannot_be_read_any_more_end_the_job_and_are_not_learned_from() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    let dir = folder.path().join("job");
    write_spec(&dir, &spec(folder.path()));
    let mut done = 0;
    let mut stop = || {
        done += 1;
        if done == 4 {
            let file = fs::OpenOptions::new().write(true).open(samples_file(&dir)).unwrap();
            file.set_len(4096).unwrap();
        }
        false
    };
    let hooks = Hooks {
        progress: &mut |_| (),
        stop: &mut stop,
        checkpoint_every: Duration::ZERO,
        data_bytes: Some(0),
    };
    let error = run(&dir, hooks).unwrap_err();
    assert!(matches!(error, Error::Data(data::Error::Io { .. })), "{error}");
    assert!(error.to_string().ends_with("samples.bin: cannot be read"), "{error}");
    assert!(!result_dir(&dir).exists());
    // The checkpoint is from before, and the damaged file is made anew.
    let (result, said) = drive_within(&dir, None, Some(0));
    result.unwrap();
    assert!(said.iter().any(|line| line.resumed_from == Some(4)), "{said:?}");
}

#[test]
fn what_is_to_be_known_of_the_data_stands_in_the_report_beside_the_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    write_waves(folder.path());
    // One test sample is a training sample too, and of the second class all but two samples go.
    let train = fs::read_to_string(folder.path().join("Waves_TRAIN.tsv")).unwrap();
    let test = fs::read_to_string(folder.path().join("Waves_TEST.tsv")).unwrap();
    let mut seen = 0;
    let rare = |line: &&str| {
        seen += usize::from(line.starts_with('1'));
        line.starts_with('0') || seen <= 2
    };
    let kept: Vec<&str> = train.lines().filter(rare).collect();
    fs::write(folder.path().join("Waves_TRAIN.tsv"), kept.join("\n")).unwrap();
    fs::write(folder.path().join("Waves_TEST.tsv"), format!("{}\n{test}", kept[0])).unwrap();
    let dir = folder.path().join("job");
    write_spec(&dir, &spec(folder.path()));
    drive(&dir, None).0.unwrap();
    let found = report(&dir);
    let remarks = &found.dataset.remarks;
    // A square wave of about the same phase is the same series.
    assert!(remarks[0].contains(" of 25 test samples are training samples too"), "{remarks:?}");
    assert!(remarks[1].starts_with("unbalanced classes: 85.7 % of the training samples"), "{remarks:?}");
    let [metric] = found.model.metrics.as_slice() else { panic!("{:?}", found.model.metrics) };
    assert_eq!(metric.metric, job::Metric::BalancedAccuracy);
    assert!((0.0..=1.0).contains(&metric.int8) && found.quality().contains("; balanced accuracy "));
}

#[test]
fn a_budget_too_small_leaves_out_what_it_cannot_hold_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = seeds::stream(3, Purpose::Samples, 0);
    for (part, count) in [("TRAIN", 20_000), ("TEST", 40)] {
        let mut text = String::new();
        for sample in 0..count {
            write!(text, "{}", sample % 2).unwrap();
            for t in 0..64 {
                let wave = (t as f32 * (0.3 + 0.2 * (sample % 2) as f32)).sin();
                write!(text, "\t{:.3}", wave + rng.random_range(-0.5..0.5f32)).unwrap();
            }
            text.push('\n');
        }
        fs::write(folder.path().join(format!("Waves_{part}.tsv")), text).unwrap();
    }
    let dir = folder.path().join("job");
    let mut spec = spec(folder.path());
    spec.board = shared::board::Board::from_toml(
        include_str!("../../../../../firmware-configs/generic-arm64.toml"),
        "generic-arm64.toml",
    )
    .unwrap();
    spec.budget = Budget {
        search_steps: 1000,
        train_epochs: 1000,
        channels: 48,
        cells: 3,
        teachers: 8,
        pretext: Some(Pretext::Masked),
        seconds: Some(10),
        compress: Compression::Auto,
        ..spec.budget
    };
    write_spec(&dir, &spec);
    let (result, said) = drive(&dir, None);
    result.unwrap();
    let found = report(&dir);
    assert_eq!((found.teachers, found.pretext), (None, None));
    let remarks = &found.model.remarks;
    let told = remarks.iter().find(|remark| remark.starts_with("10 s hold ")).unwrap();
    assert!(told.contains("; left out for want of time: the 8 teachers, the pretext"), "{told}");
    assert!(
        told.contains("; not even one pass: give it more time, or expect little of the model; it took "),
        "{told}"
    );
    assert_eq!(said.last().unwrap().message.as_ref(), Some(told));
    finish::check(&result_dir(&dir), None).unwrap();
}
