use super::*;
use crate::{clock::wall, engine::Engine};
use shared::{
    board::RuntimeName,
    manifest::{Lineage, Preprocess, Task, TensorSpec},
};
use uuid::Uuid;

fn loaded(number: u128) -> Arc<Loaded> {
    let model = include_bytes!("../../assets/selftest.onnx");
    let golden = Golden::read(include_bytes!("../../assets/selftest.safetensors")).unwrap();
    let engine = Engine::open(&[RuntimeName::Tract], None).unwrap();
    let chosen = engine.choose(model, &golden, 0.05).0.unwrap();
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
    let version_id = ModelVersionId(Uuid::from_u128(number));
    let manifest = Manifest {
        format: 1,
        model: "shapes".parse().unwrap(),
        version: format!("v1.{number}").parse().unwrap(),
        version_id,
        task: Task::ImageClassification,
        board: "x86-64".parse().unwrap(),
        created_at: Timestamp(0),
        input: spec("input", &[1, 8, 8]),
        output: spec("probabilities", &[3]),
        preprocess: Preprocess { scale: 1.0, offset: 0.0 },
        labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
        golden_tolerance: 0.05,
        files: Vec::new(),
        lineage: Lineage { dataset: Digest::of(b"d"), job: None, seed: 0, parent: None },
    };
    let version = VersionRef {
        model: manifest.model.clone(),
        version: manifest.version,
        version_id,
        bundle: Digest::of(&number.to_le_bytes()),
    };
    Arc::new(Loaded { version, manifest, runnable: chosen.runnable, golden, measured_us: chosen.measured_us })
}

fn name() -> SlotName {
    "default".parse().unwrap()
}

fn counts(closed: &[window::Closed]) -> Vec<(u128, u64)> {
    closed.iter().map(|closed| (closed.version_id.0.as_u128(), closed.requests)).collect()
}

#[test]
fn a_request_counts_for_the_version_that_answered_it_also_when_it_ends_after_a_swap() {
    let models = Models::default();
    let serving = models.slot(&name(), wall());
    let (old, new) = (loaded(1), loaded(2));
    assert!(serving.swap(Some(old.clone()), wall()).is_empty());
    let took = Some(Duration::from_micros(5));
    serving.record(&old, 1, took, wall());
    assert_eq!(counts(&serving.swap(Some(new.clone()), wall())), [(1, 1)]);
    serving.record(&old, 1, took, wall());
    serving.record(&new, 1, took, wall());
    serving.record(&old, 1, None, wall());
    assert_eq!(counts(&serving.roll_window(wall())), [(1, 2), (2, 1)]);
    assert!(serving.roll_window(wall()).is_empty());
}

#[test]
fn a_slot_that_is_taken_away_gives_its_last_window() {
    let models = Models::default();
    let serving = models.slot(&name(), wall());
    let version = loaded(1);
    serving.swap(Some(version.clone()), wall());
    serving.record(&version, 1, None, wall());
    assert_eq!(counts(&models.remove(&name(), wall())), [(1, 1)]);
    assert!(models.all().is_empty());
    assert!(models.remove(&name(), wall()).is_empty());
}

#[test]
fn threads_that_make_slots_at_once_lose_none() {
    let models = Models::default();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let models = &models;
            scope.spawn(move || {
                for index in 0..50 {
                    let name = format!("s{}", (index + thread) % 50).parse().unwrap();
                    let made = models.slot(&name, wall());
                    assert!(Arc::ptr_eq(&made, &models.slot(&name, wall())));
                }
            });
        }
    });
    let names: Vec<_> = models.all().iter().map(|serving| serving.slot.clone()).collect();
    assert_eq!(names.len(), 50);
    assert!(names.is_sorted());
}
