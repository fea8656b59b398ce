//! The control plane's API, as an administrator.

use anyhow::{Context, Result, bail, ensure};
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Deserialize;
use serde_json::Value;
use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use ureq::{
    Body,
    http::{Response, header::RETRY_AFTER},
    tls::{Certificate, RootCerts, TlsConfig},
};

const TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A server that limits the rate of requests is waited for this long in all.
const PATIENCE: Duration = Duration::from_secs(300);
/// Where it does not say for how long.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
const TOO_MANY_REQUESTS: u16 = 429;

/// Where one-time tokens of devices are made.
pub const DEVICE_TOKENS: &str = "/enrolment-tokens";

/// What `edgewright serve` writes into `context.json`.
#[derive(Deserialize)]
struct ContextFile {
    server: String,
    ca_pem: String,
    token: String,
}

/// Connections to one server; they are kept.
#[derive(Clone)]
pub struct Api {
    agent: ureq::Agent,
    server: String,
    ca_pem: String,
    bearer: String,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Api({})", self.server)
    }
}

impl Api {
    /// With address, CA and token from a context file.
    pub fn open(context: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(context)
            .with_context(|| format!("reading the context file {}", context.display()))?;
        let ContextFile { server, ca_pem, token } = serde_json::from_str(&text)
            .with_context(|| format!("{} is no context file", context.display()))?;
        let roots = CertificateDer::pem_slice_iter(ca_pem.as_bytes())
            .map(|der| der.map(|der| Certificate::from_der(&der).to_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| anyhow::anyhow!("the CA in {}: {error:?}", context.display()))?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .build();
        let server = server.trim_end_matches('/').to_owned();
        Ok(Self { agent: config.into(), server, ca_pem, bearer: format!("Bearer {token}") })
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The CAs that its certificate is of.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// `GET` below `/api/v1`.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.patiently(path, || self.agent.get(self.url(path)).header("authorization", &self.bearer).call())
    }

    /// `POST`, JSON both ways.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.patiently(path, || {
            self.agent.post(self.url(path)).header("authorization", &self.bearer).send_json(body)
        })
    }

    /// `PUT`, JSON both ways.
    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.patiently(path, || {
            self.agent.put(self.url(path)).header("authorization", &self.bearer).send_json(body)
        })
    }

    /// One `GET` as a browser would make it, answered with whatever status: the status, and the bytes of the body.
    pub fn fetch(&self, path: &str) -> Result<(u16, usize)> {
        let answer = self.agent.get(self.url(path)).header("authorization", &self.bearer).call();
        let mut answer = answer.with_context(|| format!("GET {path}"))?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok((answer.status().as_u16(), body.with_context(|| format!("GET {path}"))?.len()))
    }

    /// The metrics for Prometheus, as text.
    pub fn metrics(&self) -> Result<String> {
        let url = format!("{}/metrics", self.server);
        let mut answer =
            self.agent.get(url).header("authorization", &self.bearer).call().context("GET /metrics")?;
        ensure!(answer.status().is_success(), "/metrics answered {}", answer.status());
        answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().context("reading /metrics")
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.server)
    }

    /// Asks again where the server limits the rate.
    fn patiently(&self, path: &str, ask: impl Fn() -> Result<Response<Body>, ureq::Error>) -> Result<Value> {
        let began = Instant::now();
        loop {
            let mut answer = ask().with_context(|| format!("asking {} for {path}", self.server))?;
            let status = answer.status();
            if status.as_u16() == TOO_MANY_REQUESTS && began.elapsed() < PATIENCE {
                let seconds =
                    answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                std::thread::sleep(seconds.map_or(RETRY, Duration::from_secs).clamp(RETRY, RETRY_MAX));
                continue;
            }
            let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
            let body = body.with_context(|| format!("reading the answer to {path}"))?;
            if status.is_success() {
                return serde_json::from_slice(&body)
                    .with_context(|| format!("the answer to {path} is no JSON"));
            }
            let said = serde_json::from_slice::<Value>(&body).unwrap_or_default();
            let detail = said["detail"].as_str().or(said["title"].as_str()).unwrap_or_default();
            bail!("{path} answered {status}: {detail}");
        }
    }
}
