//! The board in the loop: a real agent measures over the real broker, and a search reckons with what it found.

use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{
    Agent, AgentOptions, ControlPlane, ServeOptions, cache,
    control::{count_of, list_of, number_of, text_of},
    wait_for,
};
use std::time::Duration;

const BOARD: &str = "x86-64";
/// For what a device measures in half a minute, on a machine that has other work too.
const MEASURED_LIMIT: Duration = Duration::from_secs(300);

/// Profiles that are asked for until one is good enough.
const PROFILES_MAX: u64 = 6;

pub(crate) fn what_a_device_measures_is_what_a_search_reckons_with() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
    let (code, said) = control.cli_refused(&["board", "profile", BOARD])?;
    ensure!(
        code == 2 && said.contains("no device of board x86-64 is online"),
        "it ended with {code}: {said}"
    );

    let devices = folder.path().join("devices");
    let mut agent = Agent::enrol(&control, "device-1", &devices, AgentOptions::default())?;
    control.cli(&["board", "profile", BOARD])?;
    // A power cut while it measures: the request is still there when the device is back.
    wait_for("the device to measure", MEASURED_LIMIT, || {
        let shown = control.cli(&["board", "show", BOARD])?;
        Ok((count_of(&shown, "/devices/0/measured")? > 0).then_some(()))
    })?;
    agent.kill()?;
    let shown = control.cli(&["board", "show", BOARD])?;
    ensure!(shown["devices"][0]["complete"] == false, "it was killed after it had ended: {shown}");
    agent.start()?;
    let shown = wait_for("the device to have measured", MEASURED_LIMIT, || {
        let shown = control.cli(&["board", "show", BOARD])?;
        Ok((shown["devices"][0]["complete"] == true).then_some(shown))
    })?;
    let (asked, measured) = (count_of(&shown, "/devices/0/asked")?, count_of(&shown, "/devices/0/measured")?);
    ensure!(asked > 100 && measured == asked, "{measured} of {asked} were measured");
    // Each workload on both runtimes in both forms, and none of them failed.
    let rows = list_of(&shown, "/rows")?;
    ensure!(rows.len() as u64 == 4 * asked, "{} rows for {asked} workloads", rows.len());
    ensure!(rows.iter().all(|row| row["us"].as_f64() > Some(0.0)), "a workload does not run");
    for model in list_of(&shown, "/latency/models")? {
        println!(
            "{} {} over {} axes: operations {} (worst {}), networks {} (worst {}) permille",
            text_of(model, "/runtime")?,
            text_of(model, "/form")?,
            count_of(model, "/spatial_axes")?,
            count_of(model, "/operations/median_permille")?,
            count_of(model, "/operations/worst_permille")?,
            count_of(model, "/networks/median_permille")?,
            count_of(model, "/networks/worst_permille")?,
        );
        ensure!(count_of(model, "/networks/points")? >= 4, "{model}");
    }

    // Asked again, the device answers a newer request; the command waits for that. What else the machine does shows in what
    // is measured, and a profile that is too far off is refused: the device is asked until one is not.
    for generation in 2..2 + PROFILES_MAX {
        let again = control.cli(&["board", "profile", BOARD, "--device", "device-1", "--wait"])?;
        let answered = count_of(&again, "/devices/0/generation")?;
        ensure!(answered == generation && again["devices"][0]["complete"] == true, "{again}");
        if control.cli(&["board", "show", BOARD])?["refused"].is_null() {
            break;
        }
    }
    let shown = control.cli(&["board", "show", BOARD])?;
    ensure!(shown["refused"].is_null(), "the profile is not used: {} {}", shown["refused"], shown["latency"]);
    agent.stop()?;

    let italy = cache()?.join("data/aeon/ItalyPowerDemand/ItalyPowerDemand");
    control.add_dataset("italy", &italy)?;
    let job = control.search("italy", BOARD, &["--search-steps", "10", "--epochs", "20"])?;
    let by = job.pointer("/report/estimate/by").context("the report says nothing of latency")?;
    ensure!(text_of(by, "/name")? == "profile" && count_of(by, "/devices")? == 1, "it reckoned by {by}");
    let (us, here) = (number_of(&job, "/report/estimate/us")?, number_of(&job, "/report/estimate/here_us")?);
    println!("reckoned {us} us, measured {here} us, by {by}");
    ensure!(us > 0.0 && here > 0.0);
    Ok(())
}
