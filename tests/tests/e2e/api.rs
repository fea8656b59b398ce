//! The API against its own document, by a tool of others that thinks of what nobody here would.

use super::world::World;
use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{binary, control::text_of, schemathesis_program};
use serde_json::Value;
use std::process::Command;

/// Operations that are left out, each with the reason.
const LEFT_OUT: [(&str, &str); 8] = [
    ("stream_changes", "an answer that does not end"),
    ("add_dataset", "a path such as `/` has the forge read a whole disk"),
    ("rotate_authority", "each call makes a CA, of which there may be few"),
    ("retire_authorities", "it can shut the world's devices out"),
    ("list_est_authorities", "base64 of a message that the tool does not read"),
    ("enrol_device", "it takes a media type that the tool cannot make"),
    ("renew_device", "it takes a media type that the tool cannot make"),
    ("register_device", "it takes a certificate in place of a token"),
];
/// Schemas do not say all that is not allowed: a board that is not known, waves that take nobody.
const CHECKS_LEFT_OUT: &str = "positive_data_acceptance,object_level_authorization";
const EXAMPLES: &str = "25";
const SEED: &str = "5";
/// Below the limit of one user, so that answers say something.
const RATE: &str = "150/s";

pub(crate) fn nothing_is_answered_that_the_document_does_not_say(world: &mut World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, world.control.ca_pem()?)?;
    let context: Value = serde_json::from_slice(&std::fs::read(world.control.context())?)?;
    let mut command = Command::new(schemathesis_program()?);
    command
        .current_dir(folder.path())
        .arg("run")
        .arg(format!("https://127.0.0.1:{}/api/openapi.json", world.control.api))
        .args(["--header", &format!("Authorization: Bearer {}", text_of(&context, "/token")?)])
        .arg("--tls-verify")
        .arg(&ca)
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--checks", "all", "--exclude-checks", CHECKS_LEFT_OUT])
        .args(["--max-examples", EXAMPLES, "--seed", SEED, "--workers", "1", "--rate-limit", RATE])
        .args(["--request-timeout", "60", "--no-shrink", "--suppress-health-check", "all"])
        .args(["--continue-on-failure", "--no-color", "--warnings", "off"]);
    for (operation, _) in LEFT_OUT {
        command.args(["--exclude-operation-id", operation]);
    }
    let output = command.output().context("running schemathesis: `cargo xtask setup` brings it")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "schemathesis: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    // Whatever it sent, the server goes on.
    world.control.cli(&["status"])?;
    Ok(())
}

pub(crate) fn the_document_needs_no_server_and_no_token() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("openapi.json");
    let run = |arguments: &[&str]| {
        Command::new(binary("edgewright")?).args(arguments).output().context("edgewright")
    };
    let printed = run(&["openapi"])?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let written = run(&["openapi", "--out", file.to_str().context("path is not UTF-8")?])?;
    ensure!(written.status.success() && written.stdout.is_empty(), "it was not written");
    ensure!(std::fs::read(&file)? == printed.stdout, "what is printed and what is written differ");
    let document: Value = serde_json::from_slice(&printed.stdout)?;
    ensure!(text_of(&document, "/openapi")? == "3.1.0", "{}", document["openapi"]);
    let refused = run(&["openapi", "--out", "/nowhere/openapi.json"])?;
    ensure!(!refused.status.success(), "a file in a folder that is not there was written");
    Ok(())
}
