//! `edgewright openapi`: the API's document, without a server.

use super::{Failure, Outcome};
use crate::api::openapi;
use clap::Args;
use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

/// Where the document goes.
#[derive(Debug, Args)]
pub struct OpenapiArgs {
    /// File for it; without one it is printed
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &OpenapiArgs) -> Outcome {
    let Some(out) = &args.out else {
        return match io::stdout().write_all(openapi().as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Failed(error.to_string()))
            }
            Ok(()) | Err(_) => Ok(()),
        };
    };
    fs::write(out, openapi())
        .map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", out.display())))
}
