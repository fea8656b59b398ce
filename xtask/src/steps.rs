//! The steps of `cargo xtask test`, and the builds that the other commands share.

use crate::{cache::Cache, dashboard};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::{ffi::OsString, os::unix::process::CommandExt, process::Command, time::Instant};

/// A step of `cargo xtask test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// `cargo fmt --check`
    Fmt,
    /// clippy over everything, warnings denied
    Clippy,
    /// rustdoc, warnings denied
    Docs,
    /// the dashboard's own tests
    Dashboard,
    /// the programs that end-to-end tests start
    Build,
    /// all tests
    Test,
}

impl Step {
    fn command(self, cache: &Cache) -> Command {
        let mut cargo = cache.cargo();
        match self {
            Self::Fmt => cargo.args(["fmt", "--all", "--check"]),
            Self::Clippy => {
                cargo.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])
            }
            Self::Docs => cargo.env("RUSTDOCFLAGS", "--deny warnings").args([
                "doc",
                "--workspace",
                "--no-deps",
                "--locked",
            ]),
            Self::Dashboard => {
                let mut npm = dashboard::npm(&dashboard::folder(cache));
                npm.args(["run", "--silent", "test"]);
                return npm;
            }
            Self::Build => return build_command(cache, Profile::Dev),
            Self::Test => cargo.args(["test", "--workspace", "--locked"]),
        };
        cargo
    }
}

/// Runs the steps; the first failure ends it unless `keep_going`.
pub(crate) fn test(cache: &Cache, only: &[Step], keep_going: bool) -> Result<()> {
    let mut failed = Vec::new();
    for step in Step::value_variants() {
        if !only.is_empty() && !only.contains(step) {
            continue;
        }
        let name = format!("{step:?}").to_lowercase();
        eprintln!("== {name}");
        let started = Instant::now();
        let status = step.command(cache).status().with_context(|| format!("running the step {name}"))?;
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("== {name}: {} in {seconds:.0} s", if status.success() { "passed" } else { "FAILED" });
        if !status.success() {
            failed.push(name);
            if !keep_going {
                break;
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// How our programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For tests and the demo.
    Dev,
    /// For benches.
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

fn build_command(cache: &Cache, profile: Profile) -> Command {
    let mut cargo = cache.cargo();
    cargo.args(["build", "--workspace", "--bins", "--locked"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cargo
}

/// Builds every program.
pub(crate) fn build(cache: &Cache, profile: Profile) -> Result<()> {
    let status = build_command(cache, profile).status().context("running cargo build")?;
    if status.success() { Ok(()) } else { bail!("the build failed") }
}

/// Becomes the program `name`.
pub(crate) fn run_binary(cache: &Cache, profile: Profile, name: &str, arguments: &[OsString]) -> Result<()> {
    let folder = cache.target().join(profile.folder());
    let path = folder.join(name);
    // The caller's own folder: relative paths in the arguments are meant from there.
    let here = std::env::current_dir().context("finding the current folder")?;
    let error = cache.command(&path).current_dir(here).env("EDGEWRIGHT_BIN", folder).args(arguments).exec();
    Err(error).with_context(|| format!("starting {}", path.display()))
}
