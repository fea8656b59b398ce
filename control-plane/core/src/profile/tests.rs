use super::*;
use shared::{
    latency::Feature,
    profile::{Measured, ProfileRequest},
    signing::Payload,
};

/// A device whose times are exactly what its features cost, but for what `disturb` makes of them.
fn device(name: &str, disturb: impl Fn(usize, f64) -> f64) -> DeviceProfile {
    let workloads = workloads();
    let mut measured = Vec::new();
    for (index, workload) in workloads.iter().enumerate() {
        let us = disturb(index, true_us(workload));
        let ns = (us * 1000.0) as u64;
        let result = Timing::Took { median_ns: ns, low_ns: ns * 9 / 10, high_ns: ns * 11 / 10, runs: 50 };
        measured.push(Measured {
            workload: index as u16,
            runtime: RuntimeName::Tract,
            form: Form::Int8,
            result,
        });
    }
    let report = ProfileReport {
        device: name.parse().unwrap(),
        board: "x86-64".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
        generation: 1,
        at: Timestamp(5),
        complete: true,
        cut_short: None,
        processor: shared::profile::Processor::default(),
        measured,
    };
    DeviceProfile {
        device: name.parse().unwrap(),
        generation: 1,
        asked_at: Timestamp(4),
        workloads,
        report: Some(report),
        received_at: Some(Timestamp(6)),
    }
}

fn true_us(workload: &Workload) -> f64 {
    let cost = |feature| match feature {
        Feature::Inference => 8.0,
        Feature::Node => 1.5,
        Feature::MovedElement => 4e-4,
        Feature::DenseMac => 3e-5,
        Feature::PointwiseMac => 2e-5,
        Feature::DepthwiseMac => 2e-4,
        Feature::MaxPoolTap => 1e-4,
        Feature::AveragePoolTap => 3e-4,
        Feature::DepthwiseChannel => 0.2,
        Feature::BoundaryElement | Feature::PatchElement | Feature::LinearMac | Feature::NarrowElement => {
            1e-4
        }
    };
    let counts = workload.features().unwrap().counts();
    Feature::ALL.into_iter().zip(counts).map(|(feature, count)| cost(feature) * count as f64).sum()
}

fn profile(devices: &[DeviceProfile]) -> BoardProfile {
    BoardProfile::of("x86-64".parse().unwrap(), devices)
}

#[test]
fn what_devices_are_asked_is_within_what_they_accept_and_covers_networks() {
    let workloads = workloads();
    assert!(workloads.iter().filter(|workload| workload.is_network()).count() >= 8);
    let distinct: BTreeSet<_> = workloads.iter().collect();
    assert_eq!(distinct.len(), workloads.len());
    let request = ProfileRequest {
        device: "cam-01".parse().unwrap(),
        generation: 1,
        issued_at: Timestamp(0),
        duration_ms_max: 60_000,
        workloads,
    };
    request.validate().unwrap();
    assert!(serde_json::to_vec(&request).unwrap().len() < shared::limits::CONTROL_BYTES_MAX / 2);
}

#[test]
fn the_fit_finds_what_features_cost_and_predicts_networks_that_it_has_not_seen() {
    let found = profile(&[device("a", |_, us| us)]);
    let latency = found.latency.unwrap();
    assert_eq!((found.refused, latency.devices, latency.measured_at), (None, 1, Timestamp(6)));
    let over: Vec<&str> = latency.models.iter().map(shared::latency::LatencyModel::subject).collect();
    assert_eq!(over, ["series", "images"]);
    let model = &latency.models[0];
    assert!(model.networks.points >= 4 && model.operations.points >= 10, "{model:?}");
    assert!(model.networks.worst_permille <= 20, "{:?}", model.networks);
    assert!(found.rows.iter().all(|row| !row.workload.is_network() || row.held_out));
    let one = found.rows.iter().find(|row| row.held_out).unwrap();
    let (us, predicted) = (one.us.unwrap(), one.predicted_us.unwrap());
    assert!((predicted / us - 1.0).abs() < 0.05, "{predicted} for {us}");
}

#[test]
fn measurements_that_nothing_explains_do_not_carry_the_fit_away() {
    // Every ninth was measured while something else ran.
    let found = profile(&[device("a", |index, us| if index % 9 == 0 { us * 6.0 } else { us })]);
    let model = &found.latency.unwrap().models[0];
    assert!(model.networks.median_permille <= 100, "{:?}", model.networks);
    assert!(model.networks.worst_permille > 500, "the worst is told too: {:?}", model.networks);
}

#[test]
fn of_several_devices_the_median_counts() {
    let found =
        profile(&[device("a", |_, us| us), device("b", |_, us| us * 40.0), device("c", |_, us| us * 1.01)]);
    assert_eq!(found.latency.as_ref().unwrap().devices, 3);
    assert!(found.rows.iter().all(|row| row.devices == 3));
    assert!(found.latency.unwrap().models[0].networks.median_permille < 50);
}

#[test]
fn noise_and_too_few_measurements_are_not_used_and_it_says_why() {
    let noise = |index: usize, us: f64| us * [0.2, 9.0, 0.5, 3.0, 1.0, 25.0, 0.1][index % 7];
    let found = profile(&[device("a", noise)]);
    assert!(found.refused.unwrap().contains("median error"));
    let mut few = device("a", |_, us| us);
    few.report.as_mut().unwrap().measured.truncate(20);
    let found = profile(&[few]);
    assert!(found.refused.unwrap().contains("measurements, at least"));
    assert_eq!((found.devices[0].measured, found.devices[0].complete), (20, true));
    let mut none = device("a", |_, us| us);
    none.report = None;
    let found = profile(&[none]);
    assert_eq!((found.latency, found.rows.len(), found.devices[0].complete), (None, 0, false));
}
