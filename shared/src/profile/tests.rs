use super::*;
use crate::{
    Signed, Verified,
    signing::{Keyring, Role, SigningKey, TrustedKey},
    wire,
};

fn workload(channels: u32) -> Workload {
    let conv = Step::Conv { channels, kernel: 3, stride: 1, groups: 1, relu: true };
    Workload { input: vec![8, 14, 14], steps: vec![conv] }
}

fn request(workloads: Vec<Workload>) -> ProfileRequest {
    ProfileRequest {
        device: "cam-01".parse().unwrap(),
        generation: 3,
        issued_at: Timestamp(1),
        duration_ms_max: 60_000,
        workloads,
    }
}

fn report() -> ProfileReport {
    let took = Timing::Took { median_ns: 20_000, low_ns: 19_000, high_ns: 22_000, runs: 100 };
    let measured = |form, result| Measured { workload: 0, runtime: RuntimeName::Tract, form, result };
    ProfileReport {
        device: "cam-01".parse().unwrap(),
        board: "x86-64".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
        generation: 3,
        at: Timestamp(2),
        complete: true,
        cut_short: None,
        processor: Processor {
            architecture: "x86_64".to_owned(),
            cores: 2,
            load_permille: Some(700),
            name: None,
        },
        measured: vec![
            measured(Form::Fp32, took),
            measured(Form::Int8, Timing::Failed { reason: "not here".to_owned() }),
        ],
    }
}

fn sealed(request: &ProfileRequest, role: Role) -> Result<Verified<ProfileRequest>, String> {
    let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
    let ring = Keyring::new([TrustedKey { role, key: key.public().clone() }]);
    let bytes = Signed::sign(request, &[&key]).map_err(|error| error.to_string())?;
    let signed = Signed::<ProfileRequest>::parse(&bytes).map_err(|error| error.to_string())?;
    signed.verify(&ring).map_err(|error| error.to_string())
}

#[test]
fn a_request_is_taken_from_the_director_alone() {
    let wanted = request(vec![workload(16)]);
    assert_eq!(*sealed(&wanted, Role::Director).unwrap(), wanted);
    assert!(sealed(&wanted, Role::Release).unwrap_err().contains("no valid signature"));
}

#[test]
fn a_request_beyond_the_limits_is_refused_even_under_a_good_signature() {
    let huge = Workload { input: vec![8, 14, 14], steps: vec![workload(2_000_000_000).steps[0]] };
    for (broken, said) in [
        (request(Vec::new()), "0 workloads"),
        (request(vec![workload(8); limits::PROFILE_WORKLOADS_MAX + 1]), "129 workloads"),
        (request(vec![workload(8), huge]), "workload 1: step 0: channels is 2000000000"),
        (ProfileRequest { duration_ms_max: u64::MAX, ..request(vec![workload(8)]) }, "duration_ms_max"),
    ] {
        let reason = sealed(&broken, Role::Director).unwrap_err();
        assert!(reason.contains(said), "{reason:?} does not say {said:?}");
    }
    let heavy = Workload { input: vec![64, 28, 28], steps: vec![workload(128).steps[0]] };
    let reason = sealed(&request(vec![heavy; 64]), Role::Director).unwrap_err();
    assert!(reason.contains("in all, at most"), "{reason}");
}

#[test]
fn the_largest_report_fits_a_message() {
    let mut full = report();
    let took = Timing::Took {
        median_ns: 59_000_000_001,
        low_ns: 58_000_000_001,
        high_ns: 59_900_000_001,
        runs: 201,
    };
    full.measured.clear();
    for workload in 0..limits::PROFILE_WORKLOADS_MAX as u16 {
        for runtime in [RuntimeName::Tract, RuntimeName::OnnxRuntime] {
            for form in [Form::Fp32, Form::Int8] {
                full.measured.push(Measured { workload, runtime, form, result: took.clone() });
            }
        }
    }
    full.validate().unwrap();
    let bytes = wire::encode_json("profile", &full).unwrap();
    assert_eq!(wire::decode_json::<ProfileReport>("profile", &bytes).unwrap(), full);
}

#[test]
fn a_report_that_no_device_can_mean_is_refused() {
    report().validate().unwrap();
    type Spoil = fn(&mut ProfileReport);
    let cases: [(Spoil, &str); 6] = [
        (|report| report.measured[0].workload = 128, "workload 128"),
        (|report| report.measured[1].form = Form::Fp32, "twice"),
        (|report| report.measured = vec![report.measured[0].clone(); 600], "600 measurements"),
        (|report| report.processor.name = Some("x".repeat(200)), "processor is over"),
        (
            |report| {
                report.measured[0].result =
                    Timing::Took { median_ns: 0, low_ns: 0, high_ns: u64::MAX, runs: 1 };
            },
            "no times",
        ),
        (|report| report.measured[1].result = Timing::Failed { reason: "x".repeat(1000) }, "reason is over"),
    ];
    for (spoil, said) in cases {
        let mut spoilt = report();
        spoil(&mut spoilt);
        let reason = spoilt.validate().unwrap_err();
        assert!(reason.contains(said), "{reason:?} does not say {said:?}");
    }
}
