//! A few points of `cargo xtask bench kill`: the real agent, and faults at file operations of an update.

use super::world::World;
use anyhow::{Result, ensure};
use edgewright_tests::{
    bench::kill::{
        self,
        plan::{self, Point},
        stage::Stage,
    },
    powercut::{self, Fault},
};
use indicatif::ProgressBar;

pub(crate) fn a_device_comes_back_from_power_cuts_and_full_disks_in_an_update(_: &mut World) -> Result<()> {
    if let Err(error) = powercut::check() {
        println!("skipped: {error:#}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::set(folder.path(), 1)?;
    let life = &stage.lives[0];
    let first = |call: &str, path: &str| {
        let mut operations = life.operations.iter();
        let found = operations.position(|operation| operation.call == call && operation.path.ends_with(path));
        found.map_or(1, |index| index as u64 + 1)
    };
    let count = life.operations.len() as u64;
    let points = [
        // As the wish is written down, in mid-transfer, as a file gets its name, and near the end.
        Point { fault: Fault::Kill, at: first("rename", "store.state.json.new") },
        Point { fault: Fault::Kill, at: count / 2 },
        Point { fault: Fault::Torn, at: first("pwrite64", ".partial") + 100 },
        Point { fault: Fault::Kill, at: first("rename", ".partial") },
        Point { fault: Fault::Kill, at: count - count / 20 },
        Point { fault: Fault::FullOn, at: count / 2 },
    ];
    ensure!(
        points.iter().all(|point| plan::operation(life, point.at).is_some()),
        "an update is {count} operations"
    );
    let played = kill::play(&mut stage, &points, &ProgressBar::hidden())?;
    for (point, played) in points.iter().zip(&played) {
        let wrong: Vec<&str> = played.faults().collect();
        ensure!(wrong.is_empty(), "{} at operation {}: {wrong:?}", point.fault.name(), point.at);
    }
    ensure!(played.iter().filter(|played| played.hit.is_some()).count() >= 5, "too few points were reached");
    Ok(())
}
