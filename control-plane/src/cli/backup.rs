//! `edgewright backup` and `edgewright restore`.

use super::{
    Failure, Outcome,
    database::DatabaseArgs,
    output::{bytes, show},
};
use crate::backup;
use clap::Args;
use std::path::PathBuf;

/// What goes into a backup.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The server's data folder; the server may run
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The backup, as in backup.tar.zst
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Keys too: whoever has the file can then sign for this server
    #[arg(long)]
    with_keys: bool,
}

/// What a backup becomes.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Data folder to make; empty or not there
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) fn back_up(args: &BackupArgs, json: bool) -> Outcome {
    private();
    let database = args.database.chosen()?;
    let made = run(backup::write(&args.data, &database, args.with_keys, &args.out))?;
    show(json, &made, |made| {
        let size: u64 = made.files.values().map(|facts| facts.size_bytes).sum();
        let keys =
            if made.keys { "with the keys" } else { "without the keys, which have to be kept elsewhere" };
        format!(
            "{}: {} files of {} before packing, {keys}",
            args.out.display(),
            made.files.len(),
            bytes(size)
        )
    })
}

pub(super) fn restore(args: &RestoreArgs, json: bool) -> Outcome {
    private();
    let database = args.database.chosen()?;
    let made = run(backup::restore(&args.from, &args.data, &database))?;
    show(json, &made, |made| {
        let data = args.data.display();
        let keys = if made.keys {
            String::new()
        } else {
            format!("; the keys are not in it: put them into {data}/keys before a server starts on it")
        };
        format!("{data} is as it was at {}{keys}", super::output::moment(made.made_at))
    })
}

/// What is written is for nobody else's eyes.
fn private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime cannot start: {error}")))?;
    runtime.block_on(work).map_err(|error| {
        let text = format!("{error:#}");
        Failure::Failed(text.lines().collect::<Vec<_>>().join(" "))
    })
}
