//! Every operation of the API has a command.

use super::{Cli, each_command, parse};
use clap::CommandFactory;
use std::collections::BTreeSet;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Each operation by its id in the API's document, and a command that uses it.
const COMMANDS: &[(&str, &str)] = &[
    ("openapi", "openapi"),
    ("login", "login --user anna"),
    ("logout", "logout"),
    ("acting_user", "whoami"),
    ("stream_changes", "overview --watch"),
    ("show_status", "status"),
    ("show_overview", "overview"),
    ("list_boards", "board list"),
    ("show_board", "board describe x86-64"),
    ("show_board_profile", "board show x86-64"),
    ("profile_board", "board profile x86-64"),
    ("list_datasets", "dataset list"),
    ("show_dataset", "dataset show mnist"),
    ("add_dataset", "dataset add mnist --path data"),
    ("list_jobs", "search list"),
    ("show_job", "search show ID"),
    ("show_job_plot", "search plot ID --out plot.svg"),
    ("start_search", "search start --dataset d --board b --model m"),
    ("start_retraining", "model retrain m@v1.0 --dataset d"),
    ("start_training", "search train ID:2"),
    ("cancel_job", "search cancel ID"),
    ("list_versions", "model list"),
    ("show_version", "model show m@v1.0"),
    ("show_lineage", "model lineage m@v1.0"),
    ("download_version_file", "model export m@v1.0 --out folder"),
    ("list_keys", "model export m@v1.0 --out folder"),
    ("begin_upload", "model publish folder --model m --board b"),
    ("upload_file", "model publish folder --model m --board b"),
    ("publish_version", "model publish folder --model m --board b"),
    ("import_version", "model import m.onnx --model m --board b --calibrate d"),
    ("list_devices", "device list"),
    ("show_device", "device show cam-01"),
    ("list_device_events", "device events cam-01"),
    ("list_events", "device events"),
    ("list_security_events", "device refused"),
    ("label_device", "device label cam-01 a=b"),
    ("revoke_device", "device revoke cam-01"),
    ("list_enrolment_tokens", "device token list"),
    ("create_enrolment_token", "device token create"),
    ("list_groups", "group list"),
    ("show_group", "group show pilots"),
    ("create_group", "group add pilots --label a=b"),
    ("replace_group", "group change pilots --label a=b"),
    ("delete_group", "group remove pilots"),
    ("list_rollouts", "rollout list"),
    ("show_rollout", "rollout show ID"),
    ("plan_rollout", "rollout plan --version m@v1.0"),
    ("create_rollout", "rollout create --version m@v1.0"),
    ("approve_rollout", "rollout approve ID"),
    ("waive_rollout", "rollout waive ID"),
    ("order_rollout", "rollout pause ID"),
    ("why", "rollout why ID cam-01"),
    ("list_metrics", "telemetry metrics"),
    ("query_telemetry", "telemetry query requests"),
    ("query_feedback", "feedback windows"),
    ("show_retention", "retention show"),
    ("replace_retention", "retention set --raw-days 7"),
    ("list_incidents", "incident list"),
    ("show_incident", "incident show ID"),
    ("acknowledge_incident", "incident acknowledge ID"),
    ("resolve_incident", "incident resolve ID"),
    ("list_authorities", "ca list"),
    ("rotate_authority", "ca rotate"),
    ("retire_authorities", "ca retire"),
    ("show_trust", "trust status"),
    ("show_trust_metadata", "trust export --out folder"),
    ("accept_trust_metadata", "trust send signed.json"),
    ("create_broker_certificate", "broker files --out folder"),
    ("show_revocation_lists", "broker crl --out crl.pem"),
    ("list_users", "user list"),
    ("show_user", "user show anna"),
    ("create_user", "user add anna --role viewer"),
    ("change_user", "user change anna --disable"),
    ("delete_user", "user remove anna"),
    ("list_api_tokens", "token list"),
    ("create_api_token", "token create ci --role viewer"),
    ("delete_api_token", "token revoke ID"),
    ("list_audit", "audit list"),
];

/// What is for others than people at a command line: devices, and programs that watch over servers.
const FOR_OTHERS: &[&str] =
    &["health", "show_metrics", "list_est_authorities", "enrol_device", "renew_device", "register_device"];

#[test]
fn the_command_of_each_operation_is_one() {
    for (operation, line) in COMMANDS {
        let line = line.replace("ID", ID);
        parse(&line).unwrap_or_else(|error| panic!("{operation}: {line}: {error}"));
    }
}

#[test]
fn every_operation_of_the_document_has_a_command_and_there_are_no_others() {
    let document: serde_json::Value = serde_json::from_str(crate::api::openapi()).unwrap();
    let methods =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let documented: BTreeSet<&str> =
        methods.filter_map(|operation| operation["operationId"].as_str()).collect();
    let known: BTreeSet<&str> =
        COMMANDS.iter().map(|(operation, _)| *operation).chain(FOR_OTHERS.iter().copied()).collect();
    let without: Vec<_> = documented.difference(&known).collect();
    assert!(without.is_empty(), "no command is known for {without:?}");
    let gone: Vec<_> = known.difference(&documented).collect();
    assert!(gone.is_empty(), "the document has no {gone:?}");
}

#[test]
fn every_command_that_asks_the_server_is_one_of_an_operation() {
    let mut command = Cli::command();
    command.build();
    let known: BTreeSet<String> = COMMANDS.iter().map(|(_, line)| words(line)).collect();
    each_command(&mut command, &[], &mut |names, command| {
        let leaf = command.get_subcommands().next().is_none();
        let name = names.join(" ");
        let local = LOCAL.iter().any(|prefix| name == *prefix || name.starts_with(&format!("{prefix} ")));
        let same = SAME.contains(&name.as_str());
        assert!(!leaf || local || same || known.contains(&name), "{name} is of no operation");
    });
}

/// What needs no server, or is one.
const LOCAL: &[&str] = &[
    "serve",
    "backup",
    "restore",
    "context",
    "completion",
    "search spaces",
    "model verify",
    "trust init",
    "trust key",
    "trust rotate",
];
/// What uses operations that others are named for.
const SAME: &[&str] =
    &["auto", "search wait", "rollout watch", "rollout resume", "rollout abort", "trust sign"];

/// The names of a command's line, without what it is given.
fn words(line: &str) -> String {
    let mut command = Cli::command();
    let mut names = Vec::new();
    for word in line.split(' ') {
        let Some(child) = command.find_subcommand(word).cloned() else { break };
        names.push(word.to_owned());
        command = child;
    }
    names.join(" ")
}
