//! End to end: real binaries, real broker, real TLS, real tools of others.
//!
//! Most tests share one control plane and its models, and all run one after another: a machine with two cores has
//! no room for two trainings. This program has a `main` of its own so that the world ends with it: what a
//! `static` holds is never dropped, and its processes would go on.

#[path = "e2e/api.rs"]
mod api;
#[path = "e2e/bad_input.rs"]
mod bad_input;
#[path = "e2e/board.rs"]
mod board;
#[path = "e2e/broker.rs"]
mod broker;
#[path = "e2e/cli.rs"]
mod cli;
#[path = "e2e/dashboard.rs"]
mod dashboard;
#[path = "e2e/database.rs"]
mod database;
#[path = "e2e/est.rs"]
mod est;
#[path = "e2e/fleet.rs"]
mod fleet;
#[path = "e2e/forge.rs"]
mod forge;
#[path = "e2e/hostile.rs"]
mod hostile;
#[path = "e2e/isolation.rs"]
mod isolation;
#[path = "e2e/kill.rs"]
mod kill;
#[path = "e2e/life.rs"]
mod life;
#[path = "e2e/policy.rs"]
mod policy;
#[path = "e2e/presence.rs"]
mod presence;
#[path = "e2e/tools.rs"]
mod tools;
#[path = "e2e/tuf.rs"]
mod tuf;
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
/// Brings all that it needs.
type Alone = fn() -> Result<()>;

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
        "cli::a_rollout_and_its_device_are_watched_to_the_end",
        cli::a_rollout_and_its_device_are_watched_to_the_end,
    ),
    (
        "forge::a_data_set_becomes_a_model_in_the_time_that_it_is_given",
        forge::a_data_set_becomes_a_model_in_the_time_that_it_is_given,
    ),
    (
        "forge::a_model_from_elsewhere_is_taken_in_and_runs_on_devices",
        forge::a_model_from_elsewhere_is_taken_in_and_runs_on_devices,
    ),
    (
        "forge::a_table_of_what_is_normal_becomes_a_model_that_reports_what_is_not",
        forge::a_table_of_what_is_normal_becomes_a_model_that_reports_what_is_not,
    ),
    (
        "hostile::a_stolen_control_plane_makes_no_device_run_what_the_offline_keys_did_not_sign",
        hostile::a_stolen_control_plane_makes_no_device_run_what_the_offline_keys_did_not_sign,
    ),
    ("isolation::a_device_reads_what_it_shall_run", isolation::a_device_reads_what_it_shall_run),
    (
        "isolation::a_revoked_device_does_not_connect_again",
        isolation::a_revoked_device_does_not_connect_again,
    ),
    (
        "kill::a_device_comes_back_from_power_cuts_and_full_disks_in_an_update",
        kill::a_device_comes_back_from_power_cuts_and_full_disks_in_an_update,
    ),
    ("life::a_series_model_lives_its_whole_life", life::a_series_model_lives_its_whole_life),
    (
        "tools::onnx_checker_and_python_onnxruntime_agree_on_the_real_test_sets",
        tools::onnx_checker_and_python_onnxruntime_agree_on_the_real_test_sets,
    ),
    (
        "tools::model_signing_and_we_accept_each_others_signatures_and_no_changed_model",
        tools::model_signing_and_we_accept_each_others_signatures_and_no_changed_model,
    ),
    ("tools::an_exported_version_says_how_it_came_to_be", tools::an_exported_version_says_how_it_came_to_be),
    ("tools::tritonclient_lists_describes_and_infers", tools::tritonclient_lists_describes_and_infers),
    // The next two are last: they leave versions, devices, users and tokens behind.
    (
        "dashboard::a_rollout_is_watched_and_a_lineage_followed",
        dashboard::a_rollout_is_watched_and_a_lineage_followed,
    ),
    (
        "api::nothing_is_answered_that_the_document_does_not_say",
        api::nothing_is_answered_that_the_document_does_not_say,
    ),
];

/// Tests that bring all they need.
const ALONE: &[(&str, Alone)] = &[
    ("api::the_document_needs_no_server_and_no_token", api::the_document_needs_no_server_and_no_token),
    (
        "board::what_a_device_measures_is_what_a_search_reckons_with",
        board::what_a_device_measures_is_what_a_search_reckons_with,
    ),
    (
        "broker::a_fleet_lives_on_a_mosquitto_that_comes_and_goes",
        broker::a_fleet_lives_on_a_mosquitto_that_comes_and_goes,
    ),
    (
        "broker::a_revoked_device_is_put_out_of_a_mosquitto",
        broker::a_revoked_device_is_put_out_of_a_mosquitto,
    ),
    ("broker::a_mosquitto_moves_to_another_ca", broker::a_mosquitto_moves_to_another_ca),
    ("cli::a_viewer_sees_and_changes_nothing", cli::a_viewer_sees_and_changes_nothing),
    ("cli::a_program_has_a_token_until_it_is_revoked", cli::a_program_has_a_token_until_it_is_revoked),
    (
        "cli::contexts_are_kept_and_what_damages_them_is_named",
        cli::contexts_are_kept_and_what_damages_them_is_named,
    ),
    ("cli::bash_takes_the_completion", cli::bash_takes_the_completion),
    ("dashboard::a_device_is_found_among_ten_thousand", dashboard::a_device_is_found_among_ten_thousand),
    ("dashboard::its_types_are_those_of_the_server", dashboard::its_types_are_those_of_the_server),
    (
        "database::of_two_servers_the_one_acts_and_the_other_goes_on_when_it_is_killed",
        database::of_two_servers_the_one_acts_and_the_other_goes_on_when_it_is_killed,
    ),
    (
        "database::a_database_that_goes_away_and_comes_back_loses_nothing",
        database::a_database_that_goes_away_and_comes_back_loses_nothing,
    ),
    (
        "database::two_servers_with_brokers_of_their_own_are_refused",
        database::two_servers_with_brokers_of_their_own_are_refused,
    ),
    ("est::openssl_and_curl_alone_enrol_and_renew", est::openssl_and_curl_alone_enrol_and_renew),
    (
        "est::an_agent_renews_while_it_runs_and_a_kill_leaves_it_connected",
        est::an_agent_renews_while_it_runs_and_a_kill_leaves_it_connected,
    ),
    ("est::a_running_fleet_moves_to_another_ca", est::a_running_fleet_moves_to_another_ca),
    (
        "est::a_connected_device_that_is_revoked_is_put_out_and_kept_out",
        est::a_connected_device_that_is_revoked_is_put_out_and_kept_out,
    ),
    (
        "fleet::a_fleet_with_faults_converges_and_nothing_is_lost_or_done_twice",
        fleet::a_fleet_with_faults_converges_and_nothing_is_lost_or_done_twice,
    ),
    (
        "isolation::the_embedded_broker_keeps_devices_apart",
        isolation::the_embedded_broker_keeps_devices_apart,
    ),
    ("isolation::mosquitto_keeps_devices_apart", isolation::mosquitto_keeps_devices_apart),
    (
        "policy::a_bad_version_stops_at_a_gate_and_that_is_an_incident_until_a_good_one_takes_its_place",
        policy::a_bad_version_stops_at_a_gate_and_that_is_an_incident_until_a_good_one_takes_its_place,
    ),
    (
        "presence::a_device_that_goes_without_a_goodbye_is_shown_offline",
        presence::a_device_that_goes_without_a_goodbye_is_shown_offline,
    ),
    (
        "tuf::python_tuf_verifies_what_init_and_each_rotation_write",
        tuf::python_tuf_verifies_what_init_and_each_rotation_write,
    ),
    ("tuf::python_tuf_refuses_metadata_that_was_changed", tuf::python_tuf_refuses_metadata_that_was_changed),
    (
        "tuf::python_tuf_verifies_a_team_and_what_a_server_exports",
        tuf::python_tuf_verifies_a_team_and_what_a_server_exports,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let world = Arc::new(Mutex::new(None));
    let trials = TESTS.iter().map(|&(name, test)| {
        let world = Arc::clone(&world);
        Trial::test(name, move || run(test, &mut world.lock().unwrap_or_else(PoisonError::into_inner)))
    });
    let alone = ALONE.iter().map(|&(name, test)| {
        Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:?}"))))
    });
    let conclusion = libtest_mimic::run(&arguments, alone.chain(trials).collect());
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
