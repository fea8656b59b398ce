//! Another program's power cut, or its disk full, at one of its file operations.
//!
//! [`run`] starts a program, unmodified, and stops it by ptrace at each of its system calls, over all its threads.
//! Those that change a file below one folder are its operations; they are counted in one order and written to a
//! record. At one of them the power goes, or the disk is full.

mod calls;
mod record;
mod tracer;

pub use record::{Operation, Record};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use serde::Serialize;
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

/// Cuts a program's power, or fills its disk, at one of its file operations.
#[derive(Clone, Debug, Parser)]
#[command(name = "edgewright-powercut")]
pub struct Options {
    /// The folder whose files count.
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Where the operations are written down.
    #[arg(long, value_name = "FILE")]
    pub record: PathBuf,
    /// The operation at which it happens, counted from 1; 0 is never.
    #[arg(long, default_value_t = 0)]
    pub at: u64,
    /// What happens.
    #[arg(long, value_enum, default_value = "kill")]
    pub fault: Fault,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The power goes before it.
    Kill,
    /// A write gets half of its bytes to the file, then the power goes; before any other operation it just goes.
    Torn,
    /// The first operation from there on that needs space finds the disk full; those after it do not.
    FullOnce,
    /// It and all after it that need space find the disk full.
    FullOn,
}

impl Fault {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Kill, Self::Torn, Self::FullOnce, Self::FullOn];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "power cut",
            Self::Torn => "power cut in a write",
            Self::FullOnce => "disk full once",
            Self::FullOn => "disk full from there on",
        }
    }

    /// The program ends there.
    pub fn ends_it(self) -> bool {
        matches!(self, Self::Kill | Self::Torn)
    }
}

/// Exit status after a power cut, as a shell gives it.
pub const CUT_STATUS: u8 = 137;

/// Runs the program to its end, or to where its power goes; gives its exit status.
///
/// # Errors
/// It cannot be started or traced, or the record cannot be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    tracer::run(options).map(ExitCode::from)
}

/// Whether processes may be traced here; the error says how to allow it.
pub fn check() -> Result<()> {
    tracer::check()
}
