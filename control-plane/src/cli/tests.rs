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
fn without_a_server_the_error_says_how_to_name_one() {
    let global = Global { context: None, server: None, ca: None, token: None, json: false };
    let Failure::Usage(text) = Client::new(&global).unwrap_err() else { panic!("not a usage error") };
    assert!(text.contains("--context FILE"), "{text}");
}
