//! An application on a folder of its own with a script in place of the worker, for tests.

use super::{
    App, Parts, Settings,
    enrol::{Credentials, NewToken, Registration},
    now,
    rollouts::NewRollout,
    trust::Trust,
    versions::VersionName,
};
use crate::{
    jobs::Forge,
    signer::{
        self, Signer,
        testing::{Key, csr},
    },
    store::Store,
};
use control_core::{
    entity::{Selector, Version},
    rollout::Policy,
};
use shared::{DeviceId, board::Board, wire::TrialPolicy};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

const BOARD: &str = include_str!("../../../firmware-configs/x86-64.toml");

/// A rollout of `version` to every device, into the slot `default`.
pub(crate) fn rollout_of(version: &Version, policy: Policy) -> NewRollout {
    NewRollout {
        version: VersionName::Id(version.id),
        slot: "default".to_owned(),
        selector: Selector::default(),
        policy,
        trial: TrialPolicy::default(),
        allow_retired: false,
    }
}

/// What the stand-in for the worker answers to `inspect`.
pub(crate) fn schema() -> serde_json::Value {
    serde_json::json!({
        "format": "idx",
        "task": "image_classification",
        "digest": shared::Digest::of(b"data"),
        "shape": [1, 2, 2],
        "labels": ["a", "b"],
        "train_count": 8,
        "test_count": 4,
    })
}

/// What the stand-in for the worker leaves as the report of an import.
pub(crate) fn imported(not_for_devices: Option<&str>) -> serde_json::Value {
    let mut schema = schema();
    schema["format"] = "npy".into();
    let closeness = serde_json::json!({ "sqnr_db": 31.0, "agreement": 1.0, "difference_max": 0.01 });
    serde_json::json!({
        "job": null, "seed": 0, "dataset": schema, "search": null, "train_seconds": 0.0, "train_epochs": 0,
        "quantise_seconds": 1.0,
        "model": {
            "parameters": 9, "macs": 9, "activation_bytes": 9, "accuracy_fp32": null, "accuracy_int8": null,
            "accuracy_int8_tract": null, "bytes_fp32_onnx": 9, "bytes_int8_onnx": 5,
            "us_per_inference": { "tract_fp32": null, "tract_int8": null, "ort_fp32": 2.0, "ort_int8": 1.0 },
            "golden_difference_max": 0.01, "golden_tolerance": 0.05, "remarks": [],
        },
        "import": {
            "source": "source.onnx", "source_digest": shared::Digest::of(b"source"), "way": "min-max",
            "closeness": closeness, "tried": [], "integer_nodes": 3, "kept_f32": [],
            "not_for_devices": not_for_devices,
        },
    })
}

/// Chunks of this size go to everybody.
pub(crate) const CHUNK_BYTES: u32 = 65_536;

/// The application on `folder`; `worker` is the body of the shell script that stands in for `edgewright-forge`.
pub(crate) async fn app(folder: &Path, worker: &str) -> Arc<App> {
    let program = folder.join("worker.sh");
    fs::write(&program, format!("#!/bin/sh\n{worker}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let board = Board::from_toml(BOARD, "x86-64.toml").unwrap();
    let signer = Signer::open(&folder.join("keys"), &[], now()).unwrap();
    let parts = Parts {
        store: Store::open(folder).await.unwrap(),
        trust: Trust::open(folder, &signer, now()).unwrap(),
        signer,
        forge: Forge::new(program),
        boards: [(board.id.clone(), board)].into(),
    };
    let settings = Settings {
        data: folder.to_path_buf(),
        chunk_bytes: CHUNK_BYTES,
        blob_bytes_per_s: 0,
        jobs: 1,
        mqtt_host: "127.0.0.1".to_owned(),
        mqtt_port: 8883,
        certificate_days: 7,
        public_api: "https://127.0.0.1:8443".to_owned(),
        broker_crl: None,
    };
    App::new(settings, parts)
}

/// A device with a certificate, as it has it.
pub(crate) struct Enrolled {
    pub(crate) device: DeviceId,
    pub(crate) key: Key,
    pub(crate) certificate_pem: String,
}

/// Enrols `device` with a token of its own and tells its board.
pub(crate) async fn enrol(app: &App, device: &str, board: &str) -> Enrolled {
    let id: DeviceId = device.parse().unwrap();
    let token = app.create_token(NewToken { device: Some(id.clone()), ttl_s: None }).await.unwrap().secret;
    let key = signer::testing::key();
    let peer = [127, 0, 0, 1].into();
    let credentials = Credentials { device: device.to_owned(), token };
    let certificate_pem = app.enrol(&credentials, &csr(device, &key), peer).await.unwrap();
    let registration = Registration { board: board.parse().unwrap(), agent_version: "0.1.0".to_owned() };
    let der = trust::est::from_pem(&certificate_pem).unwrap().swap_remove(0);
    app.register(&der, &registration, peer).await.unwrap();
    Enrolled { device: id, key, certificate_pem }
}

/// Waits until `condition` gives something.
pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(mut condition: impl FnMut() -> F) -> T {
    let look = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.unwrap()
}
