//! The client that the public TUF conformance suite tests.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match edgewright_tests::tuf::run(&edgewright_tests::tuf::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
