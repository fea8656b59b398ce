mod operations;

use super::*;
use clap::CommandFactory;
use control_core::rollout::WaveSize;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("edgewright").chain(line.split_whitespace()))
}

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn global_options_may_stand_on_either_side() {
    for line in ["--json --context c.json status", "status --json --context c.json"] {
        let cli = parse(line).unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.context.unwrap().to_str(), Some("c.json"));
    }
}

#[test]
fn waves_are_counts_or_per_cent() {
    assert_eq!(rollouts::wave("3"), Ok(WaveSize::Count(3)));
    assert_eq!(rollouts::wave("25%"), Ok(WaveSize::Percent(25)));
    for bad in ["", "%", "-1", "1.5", "ten", "5 %"] {
        assert!(rollouts::wave(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn ids_are_checked_before_anything_is_sent() {
    for line in [
        "rollout create --version mnist",
        "rollout create --version mnist@1.0",
        "rollout show 12",
        "device show ../x",
        "board show ../x",
        "board profile",
        "board profile x86-64 --device ../x",
        "dataset add A --path p",
        "search start --dataset d --board b --model m --seed -1",
        "search start --dataset d --board b --model m --compress zip",
        "search start --dataset d --board b --model m --accuracy-loss 60",
        "model verify folder",
        "model lineage",
        "model lineage m@v1.0 --dir folder --keyring k",
        "model lineage --dir folder",
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    for line in [
        "board profile x86-64 --device a --device b --wait",
        "board show x86-64",
        "search start --dataset d --board b --model m --compress adaptive-rounding --accuracy-loss 0.5",
        "auto --data d --board b --compress prune --accuracy-loss 2%",
        "model verify folder --public-key k",
        "model lineage m@v1.0",
        "model lineage --dir folder --keyring k",
        "model export m@v1.0 --out folder",
        "model download m@v1.0 --out folder",
        "model import m.onnx --model m --board b --calibrate d --output y --freeze h --freeze c=1 --sqnr-min 25",
    ] {
        parse(line).unwrap();
    }
    parse("rollout create --version mnist@v1.0 --wave 1 --wave 100% --device a --label ring=1").unwrap();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for line in [
        "rollout plan --version m@v1.0 --policy p.toml --label ring=1".to_owned(),
        "rollout create --version m@v1.0 --policy p.toml --trial-duration-ms 5 --allow-retired".to_owned(),
        format!("rollout approve {id} --wave 2"),
        format!("rollout waive {id}"),
        format!("rollout why {id} cam-01"),
    ] {
        parse(&line).unwrap();
    }
    for line in [
        "rollout create --version m@v1.0 --policy p.toml --wave 1".to_owned(),
        "rollout create --version m@v1.0 --policy p.toml --pause-s 1".to_owned(),
        format!("rollout approve {id} --wave 0"),
        format!("rollout why {id} ../x"),
    ] {
        assert_eq!(parse(&line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn the_rest_of_the_api_has_its_commands() {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for line in [
        "device list --search cam --board x86-64 --offline --label a=b --label c=d --version m@v1.0 --group g --state behind".to_owned(),
        "device events".to_owned(),
        "device events cam-01 --limit 5".to_owned(),
        "device refused".to_owned(),
        "board describe x86-64".to_owned(),
        "group add pilots --label ring=1 --device cam-01".to_owned(),
        "group change pilots --label ring=2".to_owned(),
        "rollout create --version m@v1.0 --group pilots".to_owned(),
        format!("incident acknowledge {id}"),
        "incident list --open".to_owned(),
        "telemetry query latency_p99_us --aggregation p95 --group-by label:ring --from 24h --step 5m --csv".to_owned(),
        "feedback windows --kind dwell --from 2026-01-01 --to now".to_owned(),
        "retention set --raw-days 7".to_owned(),
        "user add anna --role operator --password-file -".to_owned(),
        "user change anna --disable".to_owned(),
        "token create ci --role viewer --days 30".to_owned(),
        format!("token revoke {id}"),
        "audit list --user anna --operation create_rollout --since 24h --until 2026-01-01".to_owned(),
        "context add home --file c.json".to_owned(),
        "context add home --server https://h:1 --ca ca.pem --token-file t".to_owned(),
        "login --user anna".to_owned(),
        "completion bash".to_owned(),
    ] {
        parse(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for line in [
        "device list --online --offline",
        "device list --state away",
        "group add pilots",
        "rollout create --version m@v1.0 --group g --label a=b",
        "incident show 12",
        "telemetry query x --aggregation median",
        "telemetry query x --group-by ring",
        "telemetry query x --step 1w",
        "telemetry query x --from yesterday",
        "feedback windows --kind clicks",
        "retention set",
        "retention set --raw-days 0",
        "user add anna --role root",
        "user add anna",
        "user change anna",
        "user change anna --disable --enable",
        "token create ci --role viewer --days 0",
        "context use a/b",
        "context add home --file f --token-file t",
        "completion tcsh",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn watching_is_for_commands_that_only_look() {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for line in [
        "overview --watch".to_owned(),
        "device list --watch 5 --json".to_owned(),
        "device show cam-01 --watch".to_owned(),
        format!("rollout show {id} --watch"),
        format!("search show {id} --watch 1"),
        "audit list --watch".to_owned(),
        "telemetry query requests --watch".to_owned(),
    ] {
        let cli = parse(&line).unwrap();
        assert!(cli.global.watch.is_some() && cli.command.looks().is_some(), "{line}");
    }
    for line in
        ["rollout create --version m@v1.0 --watch", "device revoke cam-01 --watch", "ca rotate --watch"]
    {
        let cli = parse(line).unwrap();
        let Err(Failure::Usage(said)) = watched(&cli.command, &cli.global) else {
            panic!("{line} was repeated")
        };
        assert!(said.contains("done once"), "{said}");
    }
    let error = parse("device show --watch cam-01").unwrap_err().to_string();
    assert!(error.contains("--watch stands last"), "{error}");
}

/// Calls `look` with every command and its names, parents first.
fn each_command(
    command: &mut clap::Command,
    names: &[String],
    look: &mut impl FnMut(&[String], &mut clap::Command),
) {
    look(names, command);
    for child in command.get_subcommands_mut().filter(|child| child.get_name() != "help") {
        let names = [names, &[child.get_name().to_owned()]].concat();
        each_command(child, &names, look);
    }
}

#[test]
fn the_help_of_every_command_says_what_it_does() {
    let mut command = Cli::command();
    command.build();
    let mut seen = 0;
    each_command(&mut command, &[], &mut |names, command| {
        seen += 1;
        let help = command.render_long_help().to_string();
        assert!(help.contains("Usage:") && help.contains("--json"), "{names:?}: {help}");
        assert!(command.get_about().is_some(), "{names:?} says nothing");
        for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
            assert!(argument.get_help().is_some(), "--{} of {names:?} says nothing", argument.get_id());
        }
    });
    assert!(seen > 60, "only {seen} commands");
}

#[test]
fn examples_in_the_help_are_commands() {
    let mut command = Cli::command();
    command.build();
    let mut seen = 0;
    each_command(&mut command, &[], &mut |names, command| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in
            help.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| line.contains("edgewright"))
        {
            let begin = line.find("edgewright").unwrap();
            let line = line[begin..].split(['#', '>', '|', '&']).next().unwrap();
            let words = line.replace("ID", "01890a5d-ac96-774b-bcce-b302099a8057");
            let parsed = Cli::try_parse_from(words.split_whitespace());
            assert!(parsed.is_ok(), "{names:?}: {line}: {}", parsed.unwrap_err());
            seen += 1;
        }
    });
    assert!(seen > 20, "only {seen} examples");
}

#[test]
fn a_list_is_a_page_or_all_of_it() {
    parse("device list --limit 5 --cursor YQ").unwrap();
    parse("rollout list --all").unwrap();
    for line in ["device list --all --limit 5", "device list --all --cursor YQ", "device list --offset 5"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}
