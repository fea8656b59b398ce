//! The page on policies says what is so.

use super::*;
use std::{collections::BTreeSet, fs};

fn page() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rollout-policy.md")).unwrap()
}

#[test]
fn every_example_is_a_policy_and_every_kind_has_one() {
    let page = page();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let mut signals = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for example in &examples {
        let policy: Policy = toml::from_str(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
        policy.validate(&TrialPolicy::default()).unwrap_or_else(|error| panic!("{error}\n{example}"));
        signals.extend(policy.gates.iter().map(|gate| gate.signal));
        kinds.extend(policy.waves.iter().map(|wave| match wave.size {
            WaveSize::Count(_) => "count",
            WaveSize::Percent(_) => "percent",
            WaveSize::Label(_) => "label",
        }));
        kinds.extend(policy.waves.iter().any(|wave| wave.approval).then_some("approval"));
        kinds.extend(policy.rate.map(|rate| match rate {
            Rate::Constant(_) => "constant",
            Rate::Exponential(_) => "exponential",
        }));
        kinds.extend((!policy.windows.is_empty()).then_some("windows"));
        kinds.extend(policy.disruption.map(|_| "disruption"));
        kinds.extend((policy.membership == Membership::Follow).then_some("follow"));
    }
    assert_eq!(signals.len(), 8, "{signals:?}");
    assert_eq!(kinds.len(), 9, "{kinds:?}");
}

#[test]
fn every_field_is_on_the_page_and_its_default_is_true() {
    let page = page();
    let gate = Gate {
        min: Some(0.1),
        worse_by_max: Some(0.1),
        p99_us_max: Some(1),
        after_ms: Some(1),
        restarts_max: Some(1),
        settle_ms: Some(1),
        before_ms: Some(1),
        ..Gate::new(Signal::ErrorRate, 0.1)
    };
    let window: Window = toml::from_str("from = '00:00'\nto = '01:00'\nzone_label = 'tz'").unwrap();
    let amount = Amount::Count(1);
    let policy = Policy {
        membership: Membership::Follow,
        rate: Some(Rate::Constant(Constant { devices: 1, period_ms: 1000 })),
        windows: vec![window],
        disruption: Some(Disruption { group_by: Some("site".to_owned()), unavailable_max: amount }),
        gates: vec![gate],
        ..Policy::default()
    };
    let json = serde_json::to_value(&policy).unwrap();
    let parts =
        [&json, &json["gates"][0], &json["windows"][0], &json["disruption"], &json["rate"]["constant"]];
    for name in parts.iter().flat_map(|part| part.as_object().unwrap().keys()) {
        assert!(page.contains(&format!("`{name}`")), "{name} is not on the page");
    }
    let row = |name: &str| {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap();
        row.trim_end_matches(" |").rsplit("| ").next().unwrap().to_owned()
    };
    let (policy, gate) = (Policy::default(), Gate::new(Signal::ErrorRate, 0.1));
    for (name, value) in [
        ("pause_ms", policy.pause_ms),
        ("failed_permille_max", policy.failed_permille_max.into()),
        ("device_timeout_ms", policy.device_timeout_ms),
        ("before_ms", gate.before_ms()),
        ("from_wave", gate.from_wave.into()),
        ("wave_min", gate.wave_min),
        ("wait_ms", gate.wait_ms),
    ] {
        assert_eq!(row(name), value.to_string(), "{name}");
    }
    assert_eq!(row("false_stop"), gate.false_stop.to_string());
    assert_eq!(row("false_open"), gate.false_open.to_string());
    assert!(page.contains(&format!("failed requests takes {}", Gate::new(Signal::ErrorRate, 0.02).needed())));
    for (signal, says) in [(Signal::Ctr, "`settle_ms` 60000"), (Signal::Conversion, "`settle_ms` 300000")] {
        let ms = Gate::new(signal, 0.1).settle_ms();
        assert!(says.ends_with(&ms.to_string()) && row(&signal.to_string()) == says, "{signal}");
    }
}
