//! Models, their versions, and uploads from which versions are published.

use super::{
    operation::{Routes, get, post, put},
    paging::{List, Paging},
    problem::{Body, Path, Problem, Query},
};
use crate::app::{
    App,
    versions::{NewImport, NewVersion, VersionLineage, VersionName},
};
use axum::{
    Json,
    body::Body as Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use control_core::entity::Version;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use shared::{ModelName, limits, signing::Keyring};
use std::{path::PathBuf, sync::Arc};
use tokio::{fs::File, io::AsyncWriteExt};
use uuid::Uuid;

pub(super) fn routes() -> Routes {
    let made = [StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY];
    Routes::of("Models")
        .add(
            get("/versions", "list_versions", "Versions of models, the newest first")
                .paged()
                .query::<ModelName>("model", "Only of this model")
                .gives::<List<Version>>(),
            list,
        )
        .add(get("/versions/{version}", "show_version", "One version").gives::<Version>(), show)
        .add(
            get("/versions/{version}/files/{file}", "download_version_file", "A file of a version's bundle")
                .gives_other("application/octet-stream"),
            download,
        )
        .add(
            get(
                "/versions/{version}/lineage",
                "show_lineage",
                "How a version and those before it came to be",
            )
            .gives::<Vec<VersionLineage>>(),
            lineage,
        )
        .add(
            get("/keys", "list_keys", "The public keys with which bundles are checked").gives::<Keys>(),
            keys,
        )
        .add(
            post("/models/{model}/versions", "publish_version", "Signs what was uploaded as a version")
                .creates()
                .takes::<NewVersion>()
                .gives::<Version>()
                .may(&made),
            publish,
        )
        .add(
            post(
                "/models/{model}/imports",
                "import_version",
                "Quantises a model from elsewhere and signs it as a version",
            )
            .creates()
            .takes::<NewImport>()
            .gives::<Version>()
            .may(&made),
            import,
        )
        .add(post("/uploads", "begin_upload", "Begins an upload").creates().gives::<Upload>(), begin_upload)
        .add_limited(
            put("/uploads/{upload}/{file}", "upload_file", "Uploads a file")
                .takes_other("application/octet-stream")
                .empty(),
            upload_file,
            // The handler counts.
            DefaultBodyLimit::disable(),
        )
}

#[derive(Debug, Deserialize)]
struct Filter {
    model: Option<ModelName>,
}

/// An upload that has begun.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct Upload {
    upload: Uuid,
}

async fn list(
    State(app): State<Arc<App>>,
    Query(filter): Query<Filter>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<Version>>, Problem> {
    let page = paging.page()?;
    Ok(Json(List::new(app.versions(filter.model.as_ref(), &page).await?, &page)))
}

async fn show(State(app): State<Arc<App>>, Path(name): Path<VersionName>) -> Result<Json<Version>, Problem> {
    Ok(Json(app.version(&name).await?))
}

async fn lineage(
    State(app): State<Arc<App>>,
    Path(name): Path<VersionName>,
) -> Result<Json<Vec<VersionLineage>>, Problem> {
    Ok(Json(app.lineage(&name).await?))
}

/// The public keys with which bundles are checked.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Keys {
    /// Of manifests, lineages and desired states.
    pub keyring: Keyring,
    /// Of models' signatures, in PEM.
    pub model_key_pem: String,
}

async fn keys(State(app): State<Arc<App>>) -> Json<Keys> {
    let signer = app.signer();
    Json(Keys { keyring: signer.keyring_to_read(), model_key_pem: signer.model_key_pem() })
}

async fn download(
    State(app): State<Arc<App>>,
    Path((name, file)): Path<(VersionName, String)>,
) -> Result<Response, Problem> {
    let path = app.version_file(&name, &file).await?;
    let gone = |error: std::io::Error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{} cannot be read: {error}", path.display()))
    };
    let file = File::open(&path).await.map_err(gone)?;
    let length = file.metadata().await.map_err(gone)?.len();
    let chunks = futures::stream::unfold(file, |mut file| async move {
        use tokio::io::AsyncReadExt;
        let mut buffer = vec![0; 64 * 1024];
        match file.read(&mut buffer).await {
            Ok(0) => None,
            Ok(count) => {
                buffer.truncate(count);
                Some((Ok(buffer), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, Bytes::from_stream(chunks)).into_response())
}

async fn publish(
    State(app): State<Arc<App>>,
    Path(model): Path<ModelName>,
    Body(new): Body<NewVersion>,
) -> Result<(StatusCode, Json<Version>), Problem> {
    Ok((StatusCode::CREATED, Json(app.publish_version(model, new).await?)))
}

async fn import(
    State(app): State<Arc<App>>,
    Path(model): Path<ModelName>,
    Body(new): Body<NewImport>,
) -> Result<(StatusCode, Json<Version>), Problem> {
    Ok((StatusCode::CREATED, Json(app.import_version(model, new).await?)))
}

async fn begin_upload(State(app): State<Arc<App>>) -> Result<(StatusCode, Json<Upload>), Problem> {
    Ok((StatusCode::CREATED, Json(Upload { upload: app.begin_upload()? })))
}

async fn upload_file(
    State(app): State<Arc<App>>,
    Path((upload, name)): Path<(Uuid, String)>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let path = app.upload_path(upload, &name)?;
    let written = receive(&path, &name, body).await;
    if written.is_err() {
        // The error that matters is the first one.
        let _ = tokio::fs::remove_file(&path).await;
    }
    written.map(|()| StatusCode::NO_CONTENT)
}

async fn receive(path: &PathBuf, name: &str, body: Bytes) -> Result<(), Problem> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => crate::app::Error::Full.into(),
        _ => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{name} was not written: {error}")),
    };
    let mut file = File::create(path).await.map_err(failed)?;
    let mut size = 0u64;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("{name} broke off: {error}")))?;
        size += chunk.len() as u64;
        if size > limits::BUNDLE_FILE_BYTES_MAX {
            let detail = format!("{name} is over {} bytes", limits::BUNDLE_FILE_BYTES_MAX);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}
