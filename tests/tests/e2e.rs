//! End to end: real binaries, real broker, real TLS, real tools of others.
//!
//! The tests share one control plane and its models, and run one after another: a machine with two cores has
//! no room for two trainings. This program has a `main` of its own so that the world ends with it: what a
//! `static` holds is never dropped, and its processes would go on.

#[path = "e2e/bad_input.rs"]
mod bad_input;
#[path = "e2e/isolation.rs"]
mod isolation;
#[path = "e2e/life.rs"]
mod life;
#[path = "e2e/tools.rs"]
mod tools;
#[path = "e2e/world.rs"]
mod world;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};
use world::World;

type Test = fn(&mut World) -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("bad_input::damaged_data_sets_are_refused_by_name", bad_input::damaged_data_sets_are_refused_by_name),
    (
        "bad_input::the_control_plane_refuses_what_it_does_not_know",
        bad_input::the_control_plane_refuses_what_it_does_not_know,
    ),
    ("bad_input::a_token_opens_once", bad_input::a_token_opens_once),
    ("bad_input::a_port_in_use_is_named", bad_input::a_port_in_use_is_named),
    (
        "bad_input::a_full_disk_while_staging_leaves_the_working_model",
        bad_input::a_full_disk_while_staging_leaves_the_working_model,
    ),
    (
        "isolation::a_device_reads_its_own_topics_and_no_others",
        isolation::a_device_reads_its_own_topics_and_no_others,
    ),
    (
        "isolation::a_device_writes_its_own_topics_and_no_others",
        isolation::a_device_writes_its_own_topics_and_no_others,
    ),
    (
        "isolation::a_foreign_will_a_foreign_client_id_and_no_certificate_do_not_connect",
        isolation::a_foreign_will_a_foreign_client_id_and_no_certificate_do_not_connect,
    ),
    (
        "isolation::a_revoked_device_does_not_connect_again",
        isolation::a_revoked_device_does_not_connect_again,
    ),
    ("life::a_series_model_lives_its_whole_life", life::a_series_model_lives_its_whole_life),
    (
        "tools::onnx_checker_and_python_onnxruntime_agree_on_the_real_test_sets",
        tools::onnx_checker_and_python_onnxruntime_agree_on_the_real_test_sets,
    ),
    ("tools::tritonclient_lists_describes_and_infers", tools::tritonclient_lists_describes_and_infers),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let world = Arc::new(Mutex::new(None));
    let trials = TESTS.iter().map(|&(name, test)| {
        let world = Arc::clone(&world);
        Trial::test(name, move || run(test, &mut world.lock().unwrap_or_else(PoisonError::into_inner)))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(world);
    conclusion.exit_code()
}

/// Gives the test the world, which the first one builds. Where that failed once it is not tried again.
fn run(test: Test, world: &mut Option<Result<World, String>>) -> Result<(), Failed> {
    let build = || World::build().map_err(|error| format!("building the world: {error:?}"));
    match world.get_or_insert_with(build) {
        Ok(world) => test(world).map_err(|error| format!("{error:?}").into()),
        Err(error) => Err(error.as_str().into()),
    }
}
