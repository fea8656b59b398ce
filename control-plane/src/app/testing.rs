//! An application on a folder of its own with a script in place of the worker, for tests.

use super::{App, Parts, Settings, now};
use crate::{jobs::Forge, signer::Signer, store::Store};
use shared::board::Board;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

const BOARD: &str = include_str!("../../../firmware-configs/x86-64.toml");

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

/// Chunks of this size go to everybody.
pub(crate) const CHUNK_BYTES: u32 = 65_536;

/// The application on `folder`; `worker` is the body of the shell script that stands in for `edgewright-forge`.
pub(crate) async fn app(folder: &Path, worker: &str) -> Arc<App> {
    let program = folder.join("worker.sh");
    fs::write(&program, format!("#!/bin/sh\n{worker}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let board = Board::from_toml(BOARD, "x86-64.toml").unwrap();
    let parts = Parts {
        store: Store::open(folder).await.unwrap(),
        signer: Signer::open(&folder.join("keys"), &[], now()).unwrap(),
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
        public_api: "https://127.0.0.1:8443".to_owned(),
    };
    App::new(settings, parts)
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
