//! Requests to the server's API.

use super::{Failure, Global};
use crate::{api::Problem, serve::ContextFile};
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, io::Read, path::Path, time::Duration};
use trust::est;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode},
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
};

/// A connection to one server.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    server: String,
    token: String,
    pub(super) json: bool,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest request is the import of a model.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Client {
    /// Reads the context and what was given in its place.
    pub(super) fn new(global: &Global) -> Result<Self, Failure> {
        let context = match &global.context {
            Some(path) => Some(read_context(path)?),
            None => None,
        };
        let lacking = |what: &str| {
            Failure::Usage(format!(
                "{what} is not known; give --context FILE (context.json in the server's data folder) or set EDGEWRIGHT_CONTEXT"
            ))
        };
        let (server, ca_pem, token) = match context {
            Some(context) => (Some(context.server), Some(context.ca_pem), Some(context.token)),
            None => (None, None, None),
        };
        let server = global.server.clone().or(server).ok_or_else(|| lacking("the server"))?;
        let token = global.token.clone().or(token).ok_or_else(|| lacking("the token"))?;
        let ca_pem = match &global.ca {
            Some(path) => read_text(path)?,
            None => ca_pem.ok_or_else(|| lacking("the server's CA"))?,
        };
        let authorities = est::from_pem(&ca_pem)
            .map_err(|error| Failure::Usage(format!("the CA is no certificate: {error}")))?;
        let authorities: Vec<_> =
            authorities.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&authorities))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .build();
        let server = server.trim_end_matches('/').to_owned();
        Ok(Self { agent: config.into(), server, token, json: global.json })
    }

    /// `GET`, JSON back.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = self.agent.get(self.url(path)).header("Authorization", self.bearer());
        self.read(request.call())
    }

    /// `POST`, JSON both ways.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let request = self.agent.post(self.url(path)).header("Authorization", self.bearer());
        self.read(request.send_json(body))
    }

    /// `PUT`, JSON both ways.
    pub(super) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let request = self.agent.put(self.url(path)).header("Authorization", self.bearer());
        self.read(request.send_json(body))
    }

    /// `PUT` of a file's bytes.
    pub(super) fn upload(&self, path: &str, file: &Path) -> Result<(), Failure> {
        let content = fs::File::open(file)
            .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))?;
        let request = self.agent.put(self.url(path)).header("Authorization", self.bearer());
        self.checked(request.send(&content)).map(drop)
    }

    /// `GET` of bytes.
    pub(super) fn download(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        let request = self.agent.get(self.url(path)).header("Authorization", self.bearer());
        Ok(self.checked(request.call())?.into_body().into_reader())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.server)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn read<T: DeserializeOwned>(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<T, Failure> {
        self.checked(answer)?.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json().map_err(|error| {
            Failure::Failed(format!("{} gave an answer that cannot be read: {error}", self.server))
        })
    }

    fn checked(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Failure> {
        let mut answer = answer.map_err(|error| {
            Failure::Failed(format!("the server {} cannot be reached: {error}; is it running?", self.server))
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = match answer.body_mut().read_json::<Problem>() {
            Ok(problem) => problem.detail,
            Err(_) => format!("{} answered {status}", self.server),
        };
        Err(if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT {
            Failure::Usage(text)
        } else {
            Failure::Failed(text)
        })
    }
}

fn read_text(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))
}

fn read_context(path: &Path) -> Result<ContextFile, Failure> {
    serde_json::from_str(&read_text(path)?)
        .map_err(|error| Failure::Usage(format!("{} is no context file: {error}", path.display())))
}
