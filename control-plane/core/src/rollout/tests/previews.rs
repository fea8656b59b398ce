//! What is said of a rollout before it runs.

use super::*;

fn labelled(pairs: &[(usize, &str, &str)]) -> Vec<(DeviceId, Labels)> {
    let label = |(number, key, value): &(usize, &str, &str)| {
        (id(*number), [((*key).to_owned(), (*value).to_owned())].into())
    };
    pairs.iter().map(label).collect()
}

struct Asked {
    policy: Policy,
    devices: Vec<Candidate>,
    fleet: Fleet,
    now: Timestamp,
}

impl Asked {
    fn new(toml: &str, devices: impl IntoIterator<Item = (DeviceId, Labels)>) -> Self {
        let policy: Policy = toml::from_str(toml).unwrap();
        policy.validate(&TrialPolicy::default()).unwrap();
        let devices: Vec<_> =
            devices.into_iter().map(|(device, labels)| Candidate { device, labels }).collect();
        let seen = |candidate: &Candidate| {
            (candidate.device.clone(), Observed { labels: candidate.labels.clone(), ..Observed::default() })
        };
        Self { policy, fleet: devices.iter().map(seen).collect(), devices, now: Timestamp(1_700_000_000_000) }
    }

    fn plain(toml: &str, count: usize) -> Self {
        Self::new(toml, (0..count).map(|number| (id(number), Labels::new())))
    }

    fn preview(&self) -> Preview {
        preview(Proposal {
            policy: &self.policy,
            trial: &TrialPolicy::default(),
            devices: &self.devices,
            fleet: &self.fleet,
            now: self.now,
        })
    }

    fn said(&self, severity: Severity) -> Vec<String> {
        let problems = self.preview().problems.into_iter();
        problems.filter(|problem| problem.severity == severity).map(|problem| problem.text).collect()
    }
}

/// Seconds from now at which each device would be asked.
fn starts(asked: &Asked) -> Vec<Option<u64>> {
    let preview = asked.preview();
    let devices = preview.waves.iter().flat_map(|wave| &wave.devices);
    devices.map(|device| device.starts_at.map(|at| at.since_ms(asked.now) / 1000)).collect()
}

#[test]
fn waves_start_after_the_trials_and_pauses_before_them() {
    let asked =
        Asked::plain("waves = [{ count = 1 }, { percent = 100, approval = true }]\npause_ms = 60_000", 3);
    // A trial takes 30 s.
    assert_eq!(starts(&asked), [Some(0), Some(90), Some(90)]);
    let preview = asked.preview();
    assert_eq!(preview.ends_at, Some(asked.now.plus_ms(120_000)));
    assert!(preview.problems.is_empty(), "{:?}", preview.problems);
    assert_eq!((preview.waves[1].takes.as_str(), preview.waves[1].approval), ("100 %", true));
}

#[test]
fn rates_budgets_and_windows_show_in_the_times() {
    let rate = "waves = [{ percent = 100 }]\nrate = { constant = { devices = 2, period_ms = 600_000 } }";
    assert_eq!(starts(&Asked::plain(rate, 5)), [Some(0), Some(0), Some(600), Some(600), Some(1200)]);
    let budget =
        "waves = [{ percent = 100 }]\ndisruption = { group_by = 'site', unavailable_max = { count = 1 } }";
    let sites = labelled(&[(0, "site", "a"), (1, "site", "a"), (2, "site", "b")]);
    assert_eq!(starts(&Asked::new(budget, sites)), [Some(0), Some(30), Some(0)]);
    // 2023-11-14 22:13:20 UTC.
    let window = "waves = [{ percent = 100 }]\nwindows = [{ from = '23:00', to = '23:30' }]";
    assert_eq!(starts(&Asked::plain(window, 1)), [Some(2800)]);
}

#[test]
fn whoever_is_offline_is_named_and_what_that_holds_up_too() {
    let mut asked = Asked::plain("waves = [{ percent = 100 }]", 2);
    asked.fleet.get_mut(&id(1)).unwrap().online = false;
    assert_eq!(starts(&asked), [Some(0), None]);
    assert_eq!(asked.said(Severity::Warning), ["1 devices are offline and get it when they are seen: d001"]);
    asked.policy.disruption = Some(Disruption { group_by: None, unavailable_max: Amount::Count(1) });
    assert_eq!(starts(&asked), [None, None]);
    let said = asked.said(Severity::Warning);
    assert!(
        said[0].starts_with("as the fleet is, it comes to a halt: ") && said[0].contains("d001"),
        "{said:?}"
    );
}

#[test]
fn waves_that_match_nothing_and_devices_in_no_wave_are_named() {
    let rings = "waves = { label = 'ring', order = ['canary', 'broad'] }";
    let asked = Asked::new(rings, labelled(&[(0, "ring", "canary"), (1, "ring", "late")]));
    let errors = asked.said(Severity::Error);
    assert!(
        errors[0].starts_with("wave 2 matches nothing: no device left has the label ring=broad"),
        "{errors:?}"
    );
    assert_eq!(asked.preview().left_out, [id(1)]);
    let warnings = asked.said(Severity::Warning);
    assert_eq!(warnings, ["1 devices are in no wave, as d001: end with a wave of 100 % for the rest"]);
    let follow = format!("{rings}\nmembership = 'follow'");
    let asked = Asked::new(&follow, labelled(&[(0, "ring", "canary")]));
    assert!(asked.said(Severity::Error).is_empty() && asked.said(Severity::Warning).len() == 1);
    let counts = Asked::plain("waves = [{ count = 5 }, { percent = 100 }]", 3);
    assert_eq!(counts.said(Severity::Warning), ["wave 2 is empty: the waves before take all 3 devices"]);
}

#[test]
fn a_gate_that_can_never_open_is_an_error() {
    let gate = |more: &str| {
        let gate = format!("gates = [{{ signal = 'install_success', min = 0.8{more} }}]");
        Asked::plain(&format!("waves = [{{ count = 10 }}, {{ percent = 100 }}]\npause_ms = 0\n{gate}"), 40)
    };
    let asked = gate("");
    let errors = asked.said(Severity::Error);
    assert_eq!(
        errors,
        [
            "policy.gates[0], install_success: can never open behind wave 1: it needs 33 devices without a failure, \
          and there are 10; set from_wave, a looser limit or then = \"open\""
        ]
    );
    let said = asked.said(Severity::Warning);
    assert!(
        said.iter().any(|said| said.contains("comes to a halt: paused: after 3600 s the gate")),
        "{said:?}"
    );
    for more in [", from_wave = 2", ", then = 'open'"] {
        let asked = gate(more);
        assert!(asked.preview().problems.is_empty(), "{more}");
        assert!(asked.preview().ends_at.is_some());
    }
    let preview = gate(", from_wave = 2, false_stop = 0.01").preview();
    assert_eq!((preview.gates[0].needed, preview.false_stop), (33, 0.01));
    let alone = gate(", from_wave = 2, scope = 'wave'").said(Severity::Error);
    assert!(alone[0].contains("there are 30"), "{alone:?}");
}

#[test]
fn zones_and_groups_that_labels_do_not_name_are_warned_of() {
    let toml = "waves = [{ percent = 100 }]\nwindows = [{ from = '00:00', to = '24:00', zone_label = 'tz' }]\n\
                disruption = { group_by = 'site', unavailable_max = { count = 1 } }";
    let said = Asked::new(toml, labelled(&[(0, "tz", "Mars/Base")])).said(Severity::Warning);
    assert_eq!(
        said,
        [
            "label tz=Mars/Base of d000 names no time zone: UTC holds for it in policy.windows[0]",
            "no device has a label site: the disruption budget takes them as one group"
        ]
    );
}

#[test]
fn a_large_fleet_is_told_in_part() {
    let rate = "waves = [{ percent = 100 }]\nrate = { constant = { devices = 1, period_ms = 1_000 } }";
    let asked = Asked::plain(rate, 2_000);
    let policy = Policy { device_timeout_ms: 41_000, ..asked.policy.clone() };
    let asked = Asked { policy, ..asked };
    let preview = asked.preview();
    assert_eq!(preview.waves[0].devices.len(), 2_000);
    assert!(preview.waves[0].starts_at.is_some());
}
