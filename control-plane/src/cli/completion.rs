//! `edgewright completion`: scripts that have a shell complete commands and options.

use super::{Cli, Outcome, output::put};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs) -> Outcome {
    put(&script(args.shell)).map(drop)
}

fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "edgewright", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_gets_all_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["rollout", "telemetry", "acknowledge", "completion", "watch"] {
                assert!(script.contains(word), "{word} is not in the script for {shell}");
            }
        }
    }
}
