//! From files to a model that answers: reads a bundle, runs its golden inputs on each runtime, and keeps the
//! fastest that is right.

use crate::{
    blobs::{self, Blobs},
    models::Loaded,
};
use runtime::{Golden, LoadOptions, Ort, Runtime, Tract, Verdict, golden};
use shared::{
    Digest, Signed, Verified,
    board::RuntimeName,
    limits,
    manifest::{GOLDEN_FILE, MODEL_FILE, Manifest},
    signing::Keyring,
    wire::{Refusal, VersionRef},
};
use std::{path::Path, sync::Arc, time::Instant};

/// Runtimes that this process may use.
pub struct Engine {
    runtimes: Vec<Box<dyn Runtime>>,
    options: LoadOptions,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.runtimes.iter().map(|runtime| runtime.name())).finish()
    }
}

/// Why a bundle does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the bundle is missing or damaged.
    #[error(transparent)]
    Blob(#[from] blobs::Error),
    /// The manifest is not signed by a trusted key, or breaks a rule.
    #[error("the manifest is refused")]
    Manifest(#[from] shared::signing::Error),
    /// No runtime is right.
    #[error("{detail}")]
    Refused { reason: Refusal, detail: String },
    /// None of the runtimes that may be used is there.
    #[error("none of the allowed runtimes is there: {0}")]
    NoRuntime(String),
}

impl Error {
    /// Nothing is wrong with the bundle: trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Blob(error) if error.is_transient())
    }

    /// How the wire names it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Blob(_) => Refusal::DigestMismatch,
            Self::Manifest(_) => Refusal::BadManifest,
            Self::Refused { reason, .. } => *reason,
            Self::NoRuntime(_) => Refusal::NotLoadable,
        }
    }
}

impl Engine {
    /// The runtimes of `allowed` that are there. ONNX Runtime's library may be missing while tract is allowed;
    /// that is logged once.
    pub fn open(allowed: &[RuntimeName], ort: Option<&Path>) -> Result<Self, Error> {
        let mut runtimes: Vec<Box<dyn Runtime>> = Vec::new();
        let mut missing = String::new();
        for name in allowed {
            match name {
                RuntimeName::Tract => runtimes.push(Box::new(Tract)),
                RuntimeName::OnnxRuntime => match Ort::open(ort) {
                    Ok(ort) => runtimes.push(Box::new(ort)),
                    Err(error) => missing = error.to_string(),
                },
            }
        }
        if runtimes.is_empty() {
            return Err(Error::NoRuntime(missing));
        }
        if !missing.is_empty() {
            tracing::info!("{missing}; using tract alone");
        }
        Ok(Self { runtimes, options: LoadOptions::default() })
    }

    /// The same, loading models with `options`.
    pub fn with(self, options: LoadOptions) -> Self {
        Self { options, ..self }
    }

    /// The runtimes' names.
    pub fn names(&self) -> Vec<&'static str> {
        self.runtimes.iter().map(|runtime| runtime.name()).collect()
    }

    /// The runtimes.
    pub fn runtimes(&self) -> impl Iterator<Item = &dyn Runtime> {
        self.runtimes.iter().map(AsRef::as_ref)
    }

    /// Threads of one inference.
    pub fn threads(&self) -> usize {
        self.options.threads
    }

    /// Runs the golden inputs on each runtime: the model of the fastest that is right, with its microseconds, and
    /// how each did.
    pub fn choose(&self, model: &[u8], golden: &Golden, tolerance: f32) -> (Option<Chosen>, Vec<Verdict>) {
        let candidates: Vec<_> = self.runtimes.iter().map(AsRef::as_ref).collect();
        let choice = runtime::choose(&candidates, model, golden, tolerance, &self.options);
        let chosen = choice.model.map(|runnable| {
            let verdict = choice.verdicts.iter().find(|verdict| verdict.runtime == runnable.runtime());
            let measured_us = verdict.and_then(|verdict| verdict.result.clone().ok()).unwrap_or(0.0);
            Chosen { runnable, measured_us }
        });
        (chosen, choice.verdicts)
    }

    /// Tests the files of a bundle and loads it. `prefer` is the runtime that was chosen when it was installed:
    /// where that one still gives the golden outputs, it is taken without measuring again.
    pub fn load(
        &self,
        blobs: &Blobs,
        version: &VersionRef,
        manifest: &Manifest,
        prefer: Option<&str>,
    ) -> Result<Loaded, Error> {
        let file = |name: &str, limit_bytes: u64| match manifest.file(name) {
            Some(entry) => Ok(blobs.read(entry.digest, entry.size_bytes.min(limit_bytes))?),
            None => Err(Error::Refused {
                reason: Refusal::BadManifest,
                detail: format!("the bundle has no {name}"),
            }),
        };
        let golden = Golden::read(&file(GOLDEN_FILE, golden::GOLDEN_BYTES_MAX as u64)?)
            .map_err(|error| Error::Refused { reason: Refusal::GoldenMismatch, detail: error.to_string() })?;
        let model = file(MODEL_FILE, blobs::READ_BYTES_MAX)?;
        let preferred = prefer.and_then(|name| self.runtimes.iter().find(|runtime| runtime.name() == name));
        if let Some(runnable) = preferred.and_then(|runtime| runtime.load(&model, &self.options).ok()) {
            let start = Instant::now();
            if golden.check(runnable.as_ref(), manifest.golden_tolerance).is_ok() {
                let measured_us = start.elapsed().as_secs_f64() * 1e6 / golden.samples() as f64;
                fits(runnable.as_ref(), manifest)?;
                let (version, manifest) = (version.clone(), manifest.clone());
                return Ok(Loaded { version, manifest, runnable, golden, measured_us });
            }
        }
        let (chosen, verdicts) = self.choose(&model, &golden, manifest.golden_tolerance);
        let Some(Chosen { runnable, measured_us }) = chosen else {
            let loaded = verdicts.iter().any(|verdict| verdict.loaded);
            let reason = if loaded { Refusal::GoldenMismatch } else { Refusal::NotLoadable };
            return Err(Error::Refused { reason, detail: table(&verdicts) });
        };
        tracing::info!(model = %version.model, version = %version.version, "tested: {}", table(&verdicts));
        fits(runnable.as_ref(), manifest)?;
        Ok(Loaded { version: version.clone(), manifest: manifest.clone(), runnable, golden, measured_us })
    }
}

/// A model that is right.
#[derive(Debug)]
pub struct Chosen {
    pub runnable: Arc<dyn runtime::Runnable>,
    pub measured_us: f64,
}

/// Reads the envelope of `bundle` and verifies it.
pub fn read_manifest(blobs: &Blobs, bundle: Digest, keyring: &Keyring) -> Result<Verified<Manifest>, Error> {
    let envelope = blobs.read(bundle, limits::ENVELOPE_BYTES_MAX as u64)?;
    Ok(Signed::<Manifest>::parse(&envelope)?.verify(keyring)?)
}

/// The model has the shapes that its manifest promises.
fn fits(runnable: &dyn runtime::Runnable, manifest: &Manifest) -> Result<(), Error> {
    for (what, has, promised) in
        [("input", runnable.input(), &manifest.input), ("output", runnable.output(), &manifest.output)]
    {
        if has.shape != promised.shape {
            return Err(Error::Refused {
                reason: Refusal::BadManifest,
                detail: format!(
                    "the model's {what} is {:?}, the manifest says {:?}",
                    has.shape, promised.shape
                ),
            });
        }
    }
    Ok(())
}

/// How each runtime did, on one line.
pub fn table(verdicts: &[Verdict]) -> String {
    let parts: Vec<_> = verdicts
        .iter()
        .map(|verdict| match &verdict.result {
            Ok(us) => format!("{} {us:.0} us", verdict.runtime),
            Err(error) => format!("{}: {error}", verdict.runtime),
        })
        .collect();
    parts.join("; ")
}
