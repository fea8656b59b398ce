//! Jobs through a script in place of the worker.

use super::*;
use crate::app::testing::{self, wait_for};

/// Counts its starts, tells a step, and does as the line of `plan` with that number says; with no line left it leaves
/// a result.
const WORKER: &str = r#"
case "$1" in
inspect) cat "$(dirname "$0")/schema.json"; exit 0 ;;
check) exit 0 ;;
esac
job="$3"
echo start >> "$job/starts"
count=$(wc -l < "$job/starts")
echo '{"stage":"search","step":'"$count"',"total":9,"loss":null,"accuracy":null,"resumed_from":null,"message":null}'
plan=$(sed -n "${count}p" "$(dirname "$0")/plan" 2>/dev/null)
case "$plan" in
kill) kill -9 $$ ;;
wait) read forever ;;
esac
mkdir "$job/partial"
for file in model.onnx golden.safetensors arch.json weights.safetensors model-fp32.onnx; do echo "$file of $job" > "$job/partial/$file"; done
cp "$(dirname "$0")/report.json" "$job/partial/report.json"
mv "$job/partial" "$job/result"
"#;

struct World {
    folder: tempfile::TempDir,
    app: Arc<App>,
}

impl World {
    /// `plan` is what the worker does at its first start, its second, and so on.
    async fn new(plan: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), WORKER).await;
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("plan", plan.to_owned());
        write("schema.json", testing::schema().to_string());
        write("report.json", report().to_string());
        let new = crate::app::datasets::NewDataset {
            id: "tiny".parse().unwrap(),
            path: folder.path().to_path_buf(),
            format: None,
            reading: shared::job::Reading::default(),
        };
        app.add_dataset(new).await.unwrap();
        Self { folder, app }
    }

    async fn search(&self) -> JobId {
        let new = NewSearch {
            dataset: "tiny".parse().unwrap(),
            board: "x86-64".parse().unwrap(),
            model: "m".parse().unwrap(),
            method: SearchMethod::Gdas,
            space: None,
            effort: Effort::default(),
        };
        self.app.start_search(new).await.unwrap().id
    }

    fn starts(&self, job: JobId) -> usize {
        let starts = std::fs::read_to_string(self.app.job_folder(job).join("starts"));
        starts.unwrap_or_default().lines().count()
    }

    async fn ended(&self, job: JobId) -> Job {
        wait_for(|| async { Some(self.app.job(job).await.unwrap()).filter(|job| job.state.is_final()) }).await
    }
}

fn report() -> serde_json::Value {
    serde_json::json!({
        "job": JobId(Uuid::nil()),
        "seed": 1,
        "dataset": testing::schema(),
        "search": null,
        "train_seconds": 1.0,
        "train_epochs": 1,
        "quantise_seconds": 1.0,
        "model": {
            "parameters": 1, "macs": 1, "activation_bytes": 1,
            "accuracy_fp32": 1.0, "accuracy_int8": 1.0, "accuracy_int8_tract": 1.0,
            "bytes_fp32_onnx": 1, "bytes_int8_onnx": 1,
            "us_per_inference": { "tract_fp32": 1.0, "tract_int8": 1.0, "ort_fp32": 1.0, "ort_int8": 1.0 },
            "golden_difference_max": 0.0, "golden_tolerance": 0.02, "remarks": [],
        },
    })
}

#[tokio::test]
async fn a_job_whose_worker_is_killed_goes_on_and_gives_its_version() {
    let world = World::new("kill\nkill\n").await;
    let job = world.search().await;
    let runner = tokio::spawn(Arc::clone(&world.app).run_jobs());
    let ended = world.ended(job).await;
    assert_eq!((ended.state, ended.error), (JobState::Done, None));
    assert_eq!(ended.version.as_deref(), Some("m@v1.0"));
    assert_eq!(world.starts(job), 3);
    let spec = std::fs::read(world.app.job_folder(job).join(shared::job::SPEC_FILE)).unwrap();
    let spec: JobSpec = serde_json::from_slice(&spec).unwrap();
    assert_eq!(spec.kind, JobKind::Search { method: SearchMethod::Gdas });
    world.app.stop();
    runner.await.unwrap();
}

#[tokio::test]
async fn a_job_that_waits_for_its_next_start_is_cancelled_at_once() {
    let world = World::new("kill\nkill\nkill\n").await;
    let job = world.search().await;
    let runner = tokio::spawn(Arc::clone(&world.app).run_jobs());
    wait_for(|| async { (world.starts(job) == 1).then_some(()) }).await;
    let samples = world.app.job_folder(job).join(shared::job::DATA_FILE);
    std::fs::write(&samples, "samples").unwrap();
    world.app.cancel_job(job).await.unwrap();
    wait_for(|| async { world.app.running.lock().await.is_empty().then_some(()) }).await;
    assert!(!samples.exists(), "what memory had no room for stays on the disk");
    assert!(world.starts(job) <= 2);
    assert!(world.app.versions(None, &Page::default()).await.unwrap().is_empty());
    world.app.stop();
    runner.await.unwrap();
}

#[tokio::test]
async fn a_job_that_ended_after_it_was_looked_up_is_not_run() {
    let world = World::new("").await;
    let id = world.search().await;
    let seen = world.app.job(id).await.unwrap();
    world.app.cancel_job(id).await.unwrap();
    let (_keep, cancelled) = watch::channel(false);
    world.app.run_job(seen, cancelled).await;
    assert_eq!(world.app.job(id).await.unwrap().state, JobState::Cancelled);
    assert_eq!(world.starts(id), 0);
}

#[tokio::test]
async fn a_job_that_was_cancelled_while_its_worker_ended_gives_no_version() {
    let world = World::new("").await;
    let id = world.search().await;
    let seen = world.app.job(id).await.unwrap();
    std::fs::create_dir_all(world.app.result_folder(id)).unwrap();
    std::fs::copy(world.folder.path().join("report.json"), world.app.result_folder(id).join("report.json"))
        .unwrap();
    let (_keep, cancelled) = watch::channel(false);
    world.app.cancel_job(id).await.unwrap();
    world.app.run_job(seen, cancelled).await;
    assert!(world.app.versions(None, &Page::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_job_that_ran_when_the_server_was_killed_goes_on_and_its_worker_that_was_left_behind_is_ended() {
    let world = World::new("wait\n").await;
    let id = world.search().await;
    world.app.store.set_job_running(id, None, now()).await.unwrap();
    let folder = world.app.job_folder(id);
    std::fs::create_dir_all(&folder).unwrap();
    // Its number was never noted.
    let mut orphan = tokio::process::Command::new(world.folder.path().join("worker.sh"))
        .args(["run", "--job"])
        .arg(&folder)
        .stdin(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_for(|| async { (world.starts(id) == 1).then_some(()) }).await;
    let runner = tokio::spawn(Arc::clone(&world.app).run_jobs());
    assert!(!orphan.wait().await.unwrap().success());
    assert_eq!(world.ended(id).await.state, JobState::Done);
    assert_eq!(world.starts(id), 2);
    world.app.stop();
    runner.await.unwrap();
}

#[tokio::test]
async fn a_version_says_how_it_came_to_be_and_a_retrained_one_what_it_went_on_from() {
    let world = World::new("").await;
    let runner = tokio::spawn(Arc::clone(&world.app).run_jobs());
    let searched = world.ended(world.search().await).await;
    assert_eq!(searched.error, None);
    let version: VersionName = searched.version.unwrap().parse().unwrap();
    let retrain = NewRetrain { version, dataset: "tiny".parse().unwrap(), effort: Effort::default() };
    let retrained = world.ended(world.app.start_retrain(retrain).await.unwrap().id).await;
    assert_eq!(retrained.version.as_deref(), Some("m@v1.1"));
    assert_eq!((searched.method, retrained.method), (Some(SearchMethod::Gdas), None));
    let shown = world.app.lineage(&"m@v1.1".parse().unwrap()).await.unwrap();
    let words = |index: usize| -> Vec<String> {
        shown[index].steps.iter().map(|step| step.step.to_string()).collect()
    };
    assert_eq!(shown.iter().map(|one| one.version.as_str()).collect::<Vec<_>>(), ["m@v1.1", "m@v1.0"]);
    assert_eq!(words(0), ["data", "training", "compression", "signing"]);
    assert_eq!(words(1), ["data", "search", "training", "compression", "signing"]);
    let parent = shown[0].steps[1].parent.as_ref().unwrap();
    assert_eq!((parent.version.as_str(), parent.id), ("m@v1.0", shown[1].id));
    let weights = |index: usize, step: usize| {
        let named = |artefact: &&trust::lineage::Artefact| artefact.name == shared::job::WEIGHTS_FILE;
        shown[index].steps[step].subjects.iter().find(named).unwrap().digest()
    };
    assert!(shown[0].steps[1].materials.iter().any(|taken| taken.digest() == weights(1, 2)));
    assert_ne!(weights(0, 1), weights(1, 2));
    world.app.stop();
    runner.await.unwrap();
}

#[tokio::test]
async fn a_lineage_whose_file_was_changed_is_not_shown() {
    let world = World::new("").await;
    let runner = tokio::spawn(Arc::clone(&world.app).run_jobs());
    assert_eq!(world.ended(world.search().await).await.error, None);
    let name: VersionName = "m@v1.0".parse().unwrap();
    let path = world.app.version_file(&name, shared::manifest::LINEAGE_FILE).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let without_search: Vec<&str> =
        text.lines().enumerate().filter(|(at, _)| *at != 1).map(|(_, line)| line).collect();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, without_search.join("\n")).unwrap();
    let error = world.app.lineage(&name).await.unwrap_err().to_string();
    assert!(error.contains("the lineage of m@v1.0 does not hold") && error.contains("arch.json"), "{error}");
    world.app.stop();
    runner.await.unwrap();
}

#[tokio::test]
async fn a_search_carries_its_space_and_any_network_that_it_judged_can_be_trained() {
    let world = World::new("").await;
    let space =
        SearchSpace::from_toml(SearchSpace::built_in_text("image-rich").unwrap(), "image-rich").unwrap();
    let new = NewSearch {
        dataset: "tiny".parse().unwrap(),
        board: "x86-64".parse().unwrap(),
        model: "m".parse().unwrap(),
        method: SearchMethod::Hypernetwork,
        space: Some(space.clone()),
        effort: Effort { seed: Some(7), ..Effort::default() },
    };
    let search = world.app.start_search(new).await.unwrap();
    assert_eq!(world.app.job(search.id).await.unwrap().space, Some(space.clone()));
    let training = |index| NewTraining {
        point: FrontRef { search: search.id, index },
        model: Some("small".parse().unwrap()),
        effort: Effort::default(),
    };
    let error = world.app.start_training(training(1)).await.unwrap_err().to_string();
    assert!(error.contains("has no judged network 1, it has 0"), "{error}");
    let runner = tokio::spawn(Arc::clone(&world.app).run_jobs());
    assert_eq!(world.ended(search.id).await.state, JobState::Done);
    let read = |job| -> JobSpec {
        let text = std::fs::read(world.app.job_folder(job).join(shared::job::SPEC_FILE)).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    assert_eq!(read(search.id).space, Some(space));
    let entry = |index: u32| {
        serde_json::json!({
            "index": index, "cell": "0->2 se", "channels": 8, "accuracy": 0.5, "weight_bytes": 9, "latency_us": 9,
            "on_front": true, "chosen": index == 0, "architecture": { "number": index },
        })
    };
    let front = serde_json::json!({ "points": [entry(0), entry(1)] });
    let result = world.app.result_folder(search.id);
    std::fs::write(result.join(shared::job::FRONT_FILE), front.to_string()).unwrap();
    let job = world.app.start_training(training(1)).await.unwrap();
    assert_eq!((job.task, job.seed, job.board.as_str()), (JobTask::Train, 7, "x86-64"));
    let ended = world.ended(job.id).await;
    assert_eq!((ended.error, ended.version.as_deref()), (None, Some("small@v1.0")));
    assert_eq!(ended.point.map(|point| point.index), Some(1));
    let JobKind::Train { architecture, weights: None } = read(job.id).kind else { panic!("no training") };
    assert_eq!(std::fs::read_to_string(architecture).unwrap(), r#"{"number":1}"#);
    let error = world.app.plot(search.id, "beta.svg").await.unwrap_err().to_string();
    assert!(error.contains("there are loss.svg, alpha.svg, pareto.svg"), "{error}");
    world.app.stop();
    runner.await.unwrap();
}
