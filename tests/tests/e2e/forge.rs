//! The forge by itself: one command from a data set, or from a model made elsewhere, to a version.

use super::world::World;
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{
    cache,
    control::{list_of, number_of, text_of},
    oip::argmax,
};
use shared::job::MODEL_FP32_FILE;
use std::path::Path;

pub(crate) fn a_data_set_becomes_a_model_in_the_time_that_it_is_given(world: &mut World) -> Result<()> {
    let control = &world.control;
    let path = cache()?.join("data/aeon/GunPoint/GunPoint");
    let data = path.to_str().context("the cache's path is not UTF-8")?;
    let auto = ["auto", "--data", data, "--board", "x86-64", "--budget", "20s", "--teachers", "1"];
    let job = control.cli_shown(&auto)?;
    ensure!(text_of(&job, "/version")? == "gunpoint@v1.0", "it gave {job}");
    let remarks = list_of(&job, "/report/model/remarks")?;
    let kept =
        remarks.iter().filter_map(|remark| remark.as_str()).any(|remark| remark.starts_with("20 s hold "));
    ensure!(kept, "what became of the time is not among {remarks:?}");
    ensure!(number_of(&job, "/report/teachers/parameters")? > number_of(&job, "/report/model/parameters")?);
    let accuracy = number_of(&job, "/report/model/accuracy_int8")?;
    ensure!(accuracy > 0.7, "the INT8 model answers {accuracy} of GunPoint right");

    let plot = world.folder.path().join("loss.svg");
    control.cli(&["search", "plot", text_of(&job, "/id")?, "--out", plot.to_str().context("a path")?])?;
    let svg = std::fs::read_to_string(&plot)?;
    ensure!(svg.starts_with("<svg") && svg.contains("teacher 1"), "the plot shows no teacher");
    for (kind, shown) in [("alpha", "sep15"), ("pareto", "INT8 weights in KiB")] {
        let plot = world.folder.path().join(format!("{kind}.svg"));
        let id = text_of(&job, "/id")?;
        control.cli(&["search", "plot", id, "--kind", kind, "--out", plot.to_str().context("a path")?])?;
        ensure!(std::fs::read_to_string(&plot)?.contains(shown), "the plot {kind} does not say {shown}");
    }
    // Any network that it judged can take the place of the one that it chose.
    let front = list_of(&job, "/report/search/front")?;
    ensure!(front.iter().any(|point| point["chosen"] == true), "nothing in {front:?} was trained");
    let other =
        front.last().map(|point| format!("{}:{}", job["id"].as_str().unwrap_or_default(), point["index"]));
    let other = other.context("the front is empty")?;
    let trained = control.cli_shown(&["search", "train", &other, "--epochs", "20", "--wait"])?;
    ensure!(text_of(&trained, "/version")? == "gunpoint@v1.1", "it gave {trained}");

    for (arguments, said) in [
        (
            ["auto", "--data", data, "--board", "x86-64", "--budget", "5s"],
            "budget.seconds is 5, allowed are 10",
        ),
        (["auto", "--data", data, "--board", "x86-64", "--budget", "soon"], "is no time such as 90s"),
        (["auto", "--data", "/nowhere", "--board", "x86-64", "--budget", "20s"], "/nowhere"),
        (["auto", "--data", data, "--board", "moon", "--budget", "20s"], "board \"moon\" is not known"),
    ] {
        let (code, text) = control.cli_refused(&arguments)?;
        ensure!(code == 2 && text.contains(said), "{arguments:?} ended with {code}: {text}");
    }
    // Asked for again and again, the same files stay one data set.
    let sets = control.cli(&["dataset", "list"])?;
    let same = list_of(&sets, "/items")?.iter().filter(|set| set["path"] == data).count();
    ensure!(same == 1, "{same} data sets lie at {data}");
    Ok(())
}

pub(crate) fn a_model_from_elsewhere_is_taken_in_and_runs_on_devices(world: &mut World) -> Result<()> {
    let control = &world.control;
    // As any trainer leaves it: plain f32, without a word of the forge beside it.
    let file = world.folder.path().join("foreign.onnx");
    std::fs::copy(world.image.result.join(MODEL_FP32_FILE), &file)?;
    let (file, mnist) = (text(&file)?, cache()?.join("data/mnist"));
    let import =
        ["model", "import", file, "--model", "foreign", "--board", "x86-64", "--calibrate", text(&mnist)?];
    let version = control.cli(&import)?;
    ensure!(text_of(&version, "/name")? == "foreign@v1.0", "it gave {version}");
    let agreement = number_of(&version, "/report/import/closeness/agreement")?;
    ensure!(agreement >= 0.97, "INT8 gives the answer of FP32 for {agreement} of the samples");

    // The world may hold devices of other tests, which nobody starts again.
    let policy = ["--wave", "100%", "--device", "device-1", "--trial-duration-ms", "500"];
    let ended = control.wait_rollout(&control.start_rollout("foreign@v1.0", "foreign", &policy)?)?;
    ensure!(text_of(&ended, "/state")? == "completed", "the rollout ended as {ended}");
    let test = &world.image.test;
    let shape: Vec<usize> = std::iter::once(1).chain(test.shape.iter().copied()).collect();
    let client = world.agents[0].client();
    let mut right = 0;
    for (input, label) in test.inputs.iter().zip(&test.labels).take(IMAGES) {
        right += usize::from(argmax(&client.infer("foreign", &shape, input)?).to_string() == *label);
    }
    ensure!(right * 10 >= IMAGES * 9, "{right} of {IMAGES} images are classified right");

    let none = world.folder.path().join("none.onnx");
    std::fs::write(&none, "not a model")?;
    let refused =
        ["model", "import", text(&none)?, "--model", "m", "--board", "x86-64", "--calibrate", text(&mnist)?];
    let (code, said) = control.cli_refused(&refused)?;
    ensure!(code == 2 && said.contains("not an ONNX model"), "it ended with {code}: {said}");
    Ok(())
}

pub(crate) fn a_table_of_what_is_normal_becomes_a_model_that_reports_what_is_not(
    world: &mut World,
) -> Result<()> {
    let control = &world.control;
    let file = world.folder.path().join("machine.csv");
    std::fs::write(&file, machine())?;
    let add =
        |normal| ["dataset", "add", "machine", "--path", text(&file).unwrap_or_default(), "--normal", normal];
    let (code, said) = control.cli_refused(&add("fine"))?;
    ensure!(code == 2 && said.contains("no sample has the label \"fine\""), "it ended with {code}: {said}");
    let set = control.cli(&add("good"))?;
    ensure!(text_of(&set, "/schema/task")? == "anomaly_detection", "it is {set}");
    let options = ["--search-steps", "6", "--epochs", "60", "--seed", "3"];
    let job = control.search("machine", "x86-64", &options)?;
    let auroc = number_of(&job, "/report/model/metrics/0/int8")?;
    ensure!(auroc > 0.85, "broken rows are told from good ones with an AUROC of {auroc}");
    ensure!(number_of(&job, "/report/alarm/false_alarms_permille")? == 10.0);

    let policy = ["--wave", "100%", "--device", "device-1", "--trial-duration-ms", "500"];
    let ended = control.wait_rollout(&control.start_rollout("machine@v1.0", "machine", &policy)?)?;
    ensure!(text_of(&ended, "/state")? == "completed", "the rollout ended as {ended}");
    let client = world.agents[0].client();
    let metadata = client.get_json("/v2/models/machine")?;
    ensure!(text_of(&metadata, "/inputs/0/parameters/columns/1")? == "heat", "the device says {metadata}");
    // As a person reads them from the machine: one that is as warm as it turns, and one that is cold.
    for (row, label) in [([2000.0, 60.0], 0), ([1500.0, 50.0], 0), ([2900.0, 22.0], 1)] {
        let found = client.infer("machine", &[1, 2], &row)?;
        ensure!(argmax(&found) == label, "{row:?} gets {found:?}");
    }
    Ok(())
}

/// Readings of a machine that warms up as it turns faster; where it is broken, one row of six, it does not.
fn machine() -> String {
    let row = |row: u32| {
        let turns = 1000 + row * 37 % 2000;
        let broken = row.is_multiple_of(6);
        let heat = if broken { 20 + row * 53 % 70 } else { 20 + turns / 50 + row % 3 };
        format!("{turns},{heat},{}\n", if broken { "broken" } else { "good" })
    };
    std::iter::once("turns,heat,state\n".to_owned()).chain((0..900).map(row)).collect()
}

/// Images that a device classifies.
const IMAGES: usize = 100;

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}
