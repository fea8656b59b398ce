//! Requests to the server's API.

mod changes;
mod retry;

pub(super) use changes::Changes;

use super::{Failure, Global, target::Target};
use crate::{
    api::Problem,
    app::access::{Login, Session},
};
use retry::{Effort, Ended, Twice};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{Read, Seek},
    path::Path,
    thread,
    time::{Duration, Instant},
};
use trust::est;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode},
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
};
use uuid::Uuid;

/// A connection to one server.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    server: String,
    token: String,
    pub(super) json: bool,
}

type Answer = Result<Response<Body>, ureq::Error>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest request is the import of a model.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A pause that a person who waits is told of.
const PAUSE_SAID: Duration = Duration::from_secs(1);
/// A key of its own for each order: what is sent again after a lost answer is not done twice.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

impl Client {
    /// Reads which server is meant, and as whom it is asked.
    pub(super) fn new(global: &Global) -> Result<Self, Failure> {
        let target = Target::of(global)?;
        if target.token.is_none() {
            let of = target.context.as_ref().map(|name| format!(" --context {name}")).unwrap_or_default();
            return Err(Failure::Usage(format!(
                "nobody is logged in at {}; use `edgewright{of} login`, or give --token",
                target.server
            )));
        }
        Self::to(&target, global.json)
    }

    /// As `target` says; without a token it can do nothing but log in.
    pub(super) fn to(target: &Target, json: bool) -> Result<Self, Failure> {
        let authorities = est::from_pem(&target.ca_pem)
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
        let token = target.token.clone().unwrap_or_default();
        Ok(Self { agent: config.into(), server: target.server.clone(), token, json })
    }

    /// `GET`, JSON back.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.read(self.send(Twice::AsOnce, || {
            self.agent.get(self.url(path)).header("Authorization", self.bearer()).call()
        })?)
    }

    /// `POST` of an order, JSON both ways. Sent again only where the server has done nothing.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.read(self.send(Twice::Other, || {
            self.agent.post(self.url(path)).header("Authorization", self.bearer()).send_json(body)
        })?)
    }

    /// `POST` of what is to be made, JSON both ways. It is made once, also where an answer is lost.
    pub(super) fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let key = Uuid::new_v4().to_string();
        self.read(self.send(Twice::AsOnce, || {
            let request = self.agent.post(self.url(path)).header("Authorization", self.bearer());
            request.header(IDEMPOTENCY_KEY, &key).send_json(body)
        })?)
    }

    /// Begins a session. What the server refuses is not for somebody who should log in first.
    pub(super) fn log_in(&self, login: &Login) -> Result<Session, Failure> {
        let request = || self.agent.post(self.url("/login")).send_json(login);
        match self.send(Twice::Other, request) {
            Ok(answer) => self.read(answer),
            Err(Failure::Refused(said)) => {
                Err(Failure::Refused(said.strip_suffix(LOG_IN_AGAIN).unwrap_or(&said).to_owned()))
            }
            Err(other) => Err(other),
        }
    }

    /// `POST` of an order that is answered without a body.
    pub(super) fn order(&self, path: &str) -> Result<(), Failure> {
        let request = || {
            let request = self.agent.post(self.url(path)).header("Authorization", self.bearer());
            request.send_json(())
        };
        self.send(Twice::Other, request).map(drop)
    }

    /// `PUT`, JSON both ways.
    pub(super) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.read(self.send(Twice::AsOnce, || {
            self.agent.put(self.url(path)).header("Authorization", self.bearer()).send_json(body)
        })?)
    }

    /// `PATCH`, JSON both ways.
    pub(super) fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.read(self.send(Twice::AsOnce, || {
            self.agent.patch(self.url(path)).header("Authorization", self.bearer()).send_json(body)
        })?)
    }

    /// `DELETE`.
    pub(super) fn delete(&self, path: &str) -> Result<(), Failure> {
        let request = || self.agent.delete(self.url(path)).header("Authorization", self.bearer()).call();
        self.send(Twice::AsOnce, request).map(drop)
    }

    /// `PUT` of a file's bytes.
    pub(super) fn upload(&self, path: &str, file: &Path) -> Result<(), Failure> {
        let content = fs::File::open(file)
            .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))?;
        let request = || {
            (&content).rewind().map_err(ureq::Error::Io)?;
            let request = self.agent.put(self.url(path)).header("Authorization", self.bearer());
            request.send(&content)
        };
        self.send(Twice::AsOnce, request).map(drop)
    }

    /// `GET` of bytes.
    pub(super) fn download(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        let answer = self.send(Twice::AsOnce, || {
            self.agent.get(self.url(path)).header("Authorization", self.bearer()).call()
        })?;
        Ok(answer.into_body().into_reader())
    }

    /// What the server says of changes to things of `kinds`, as in `rollout,job`.
    pub(super) fn changes(&self, kinds: &str) -> Changes {
        Changes::of(self.agent.clone(), self.url(&format!("/stream?kinds={kinds}")), self.bearer())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.server)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// Sends, and sends again while that may help.
    fn send(&self, twice: Twice, request: impl Fn() -> Answer) -> Result<Response<Body>, Failure> {
        let begun = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = request();
            let ended = match &answer {
                Ok(answer) => Ended::by(answer.status(), answer.headers()),
                Err(error) => Ended::without_answer(error),
            };
            let effort = Effort { attempts, taken: begun.elapsed() };
            let Some(pause) = retry::pause(ended, twice, effort, Uuid::new_v4().as_bytes()[0]) else {
                return self.checked(answer);
            };
            if pause >= PAUSE_SAID {
                eprintln!(
                    "{} cannot do it at the moment; it is asked again in {} s",
                    self.server,
                    pause.as_secs()
                );
            }
            thread::sleep(pause);
        }
    }

    fn read<T: DeserializeOwned>(&self, mut answer: Response<Body>) -> Result<T, Failure> {
        answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json().map_err(|error| {
            Failure::Failed(format!("{} gave an answer that cannot be read: {error}", self.server))
        })
    }

    fn checked(&self, answer: Answer) -> Result<Response<Body>, Failure> {
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
        Err(refused(status, text))
    }
}

const LOG_IN_AGAIN: &str = "; `edgewright login` begins a session anew";

/// What an answer without success means to the one who asked, and what to do next.
fn refused(status: StatusCode, detail: String) -> Failure {
    match status {
        StatusCode::UNAUTHORIZED => Failure::Refused(detail + LOG_IN_AGAIN),
        StatusCode::FORBIDDEN => {
            Failure::Refused(format!("{detail}; `edgewright whoami` says whose role it is"))
        }
        StatusCode::TOO_MANY_REQUESTS => Failure::Failed(format!("{detail}; try again later")),
        StatusCode::REQUEST_TIMEOUT => Failure::Failed(detail),
        status if status.is_client_error() => Failure::Usage(detail),
        _ => Failure::Failed(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, collections::VecDeque, io::ErrorKind};

    fn client() -> Client {
        let agent = Agent::config_builder().build().into();
        Client { agent, server: "https://it".to_owned(), token: "t".to_owned(), json: false }
    }

    fn answer(status: u16, retry_after: &str) -> Answer {
        let answer = Response::builder().status(status).header("Retry-After", retry_after);
        Ok(answer.body(Body::builder().data(r#"{"made": 1}"#)).unwrap())
    }

    fn lost() -> Answer {
        Err(ureq::Error::Io(ErrorKind::ConnectionReset.into()))
    }

    /// How it ended, and how often the request was sent.
    fn sent(twice: Twice, answers: Vec<Answer>) -> (Result<u16, Failure>, usize) {
        let all = answers.len();
        let answers = RefCell::new(VecDeque::from(answers));
        let ended = client().send(twice, || answers.borrow_mut().pop_front().unwrap());
        (ended.map(|answer| answer.status().as_u16()), all - answers.borrow().len())
    }

    #[test]
    fn a_lost_answer_is_asked_for_again_only_where_twice_is_as_once() {
        assert_eq!(sent(Twice::AsOnce, vec![lost(), answer(409, ""), answer(201, "")]), (Ok(201), 3));
        let (ended, times) = sent(Twice::Other, vec![lost(), answer(201, "")]);
        assert!(matches!(ended, Err(Failure::Failed(said)) if said.contains("cannot be reached")));
        assert_eq!(times, 1);
    }

    #[test]
    fn a_server_that_has_too_much_to_do_is_asked_again_when_it_says() {
        let answers = vec![answer(429, "0"), answer(429, "0"), answer(200, "")];
        assert_eq!(sent(Twice::Other, answers), (Ok(200), 3));
        let (ended, times) = sent(Twice::AsOnce, vec![answer(503, "86400"), answer(200, "")]);
        assert!(matches!(ended, Err(Failure::Failed(_))));
        assert_eq!(times, 1);
    }

    #[test]
    fn a_conflict_at_the_first_time_is_the_answer() {
        let (ended, times) = sent(Twice::AsOnce, vec![answer(409, ""), answer(201, "")]);
        assert!(matches!(ended, Err(Failure::Usage(_))));
        assert_eq!(times, 1);
    }

    #[test]
    fn what_a_role_may_not_do_is_refused_and_what_is_wrong_is_wrong_usage() {
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            assert!(matches!(refused(status, "x".to_owned()), Failure::Refused(_)), "{status}");
        }
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
            assert!(matches!(refused(status, "x".to_owned()), Failure::Failed(_)), "{status}");
        }
        for status in [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::CONFLICT] {
            assert_eq!(refused(status, "x".to_owned()), Failure::Usage("x".to_owned()), "{status}");
        }
        let Failure::Refused(said) = refused(StatusCode::UNAUTHORIZED, "the session has ended".to_owned())
        else {
            panic!("not refused")
        };
        assert!(said.starts_with("the session has ended") && said.contains("edgewright login"), "{said}");
    }
}
