//! The program that cuts another's power: what the power-cut bench and tests start agents with.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match edgewright_tests::powercut::run(&edgewright_tests::powercut::Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
