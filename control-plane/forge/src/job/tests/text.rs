use super::*;
use shared::{
    job::Metric,
    manifest::Task,
    space::{NetworkSpace, SearchSpace},
};

/// A board with room for what these tests train.
fn roomy(format: DataFormat, data: &Path) -> JobSpec {
    let mut spec = spec(data);
    spec.dataset.format = format;
    spec.board.limits.macs_max *= 10;
    spec.board.limits.activation_bytes_max *= 10;
    spec.budget =
        Budget { search_steps: 4, search_batch: 4, train_epochs: 8, channels: 6, cells: 1, ..spec.budget };
    spec
}

fn write_prose(folder: &Path) -> PathBuf {
    let lines = ["the cat sat on the mat.", "a dog ran to the cat!", "the mat is red, the dog is not."];
    let text: String = (0..320).map(|line| format!("{}\n", lines[line * line % 3])).collect();
    let file = folder.join("prose.txt");
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_small_text_is_learned_to_be_written_and_a_killed_job_ends_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_prose(folder.path());
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    for dir in [&whole, &killed] {
        write_spec(dir, &roomy(DataFormat::Text, &data));
    }
    drive(&whole, None).0.unwrap();
    let found = report(&whole);
    assert_eq!((found.dataset.task, found.dataset.shape[1]), (Task::TextGeneration, 64));
    let metric = found.model.metrics[0];
    assert_eq!(metric.metric, Metric::BitsPerCharacter);
    // A guess by frequency takes about four bits.
    assert!(metric.fp32 < 2.0 && metric.int8 < 2.1, "{metric:?}");
    assert!(found.quality().contains("bits per character"), "{}", found.quality());
    finish::check(&result_dir(&whole), None).unwrap();
    let kills = (0..100).take_while(|_| matches!(drive(&killed, Some(9)).0, Err(Error::Stopped))).count();
    assert!(kills > 2, "{kills}");
    for file in ["arch.json", "weights.safetensors", "model.onnx", "golden.safetensors"] {
        let read = |dir: &Path| fs::read(result_dir(dir).join(file)).unwrap();
        assert_eq!(read(&whole), read(&killed), "{file} differs");
    }
}

#[test]
fn sentences_are_learned_to_be_understood_with_their_slots() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("home.json");
    let text = r#"{"intents": {
        "On": {"data": [{"sentences": ["turn on the {area} light", "the {area} light on [now]", "{area} light on",
            "please light up the {area}", "light in {area}"]}]},
        "Play": {"data": [{"sentences": ["play music in the {area}", "music for the {area} [now]", "music in {area}",
            "please play music in {area}", "some music {area}"]}]}
    }}"#;
    fs::write(&data, text).unwrap();
    let dir = folder.path().join("job");
    let mut spec = roomy(DataFormat::IntentJson, &data);
    spec.budget.train_epochs = 30;
    spec.budget.teachers = 1;
    write_spec(&dir, &spec);
    drive(&dir, None).0.unwrap();
    let found = report(&dir);
    assert_eq!(
        (found.dataset.task, found.dataset.labels.as_slice()),
        (Task::IntentSlots, &["On", "Play"].map(String::from)[..])
    );
    assert_eq!(found.dataset.heads[0].labels, ["O", "B-area", "I-area"]);
    let (accuracy, metric) = (found.model.accuracy_int8.unwrap(), found.model.metrics[0]);
    assert_eq!(metric.metric, Metric::SlotF1);
    assert!(accuracy > 0.9 && metric.int8 > 0.5, "{accuracy} and {metric:?}");
    finish::check(&result_dir(&dir), None).unwrap();
}

#[test]
fn a_space_of_every_operation_loses_what_sees_all_positions_and_one_that_drops_positions_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_prose(folder.path());
    let rich =
        SearchSpace::from_toml(SearchSpace::built_in_text("series-rich").unwrap(), "series-rich").unwrap();
    let mut spec = roomy(DataFormat::Text, &data);
    spec.budget.train_epochs = 1;
    spec.budget.search_steps = 2;
    let [dir, halved, hidden] = ["rich", "halved", "hidden"].map(|name| folder.path().join(name));
    write_spec(&dir, &JobSpec { space: Some(rich.clone()), ..spec.clone() });
    let (done, said) = drive(&dir, None);
    done.unwrap();
    let told = |line: &Progress| {
        line.message.as_deref().is_some_and(|message| message.starts_with("se is left out"))
    };
    assert!(said.iter().any(told));
    finish::check(&result_dir(&dir), None).unwrap();
    let network = NetworkSpace { stem_stride: Some(2), ..rich.network.clone() };
    write_spec(&halved, &JobSpec { space: Some(SearchSpace { network, ..rich }), ..spec.clone() });
    let error = drive(&halved, None).0.unwrap_err();
    assert!(error.is_input() && error.to_string().contains("the stem has a stride of 1"), "{error}");
    spec.budget.pretext = Some(Pretext::Masked);
    write_spec(&hidden, &spec);
    let error = drive(&hidden, None).0.unwrap_err();
    assert!(error.is_input() && error.to_string().starts_with("budget.pretext is for images"), "{error}");
}
