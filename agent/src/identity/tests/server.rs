//! A server of EST that answers as it is told.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    PublicKeyData,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
};
use trust::est;

/// What comes back.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    Certificate,
    CertificateOfAnotherKey,
    CertificateOfAnotherName,
    /// Two CAs with it.
    CertificateAndNewCa,
    /// No certificates at all.
    Nonsense,
    /// It says what is wrong.
    Refusal,
    /// The board is not one.
    RefusedBoard,
}

pub(super) struct Server {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    /// The public keys of the requests.
    keys: Mutex<Vec<Vec<u8>>>,
}

impl Server {
    pub(super) fn start() -> Self {
        let (issuer, ca_pem) = authority();
        let own = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&own, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(own.serialize_der()).unwrap(),
            )
            .unwrap();
        Self {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            tls: Arc::new(tls),
            issuer,
            ca_pem,
            keys: Mutex::default(),
        }
    }

    /// The file that leads here.
    pub(super) fn enrolment(&self) -> String {
        let server = format!("https://{}", self.listener.local_addr().unwrap());
        json!({ "server": server, "ca_pem": self.ca_pem, "token": "once", "device": "cam-01" }).to_string()
    }

    pub(super) fn keys(&self) -> Vec<Vec<u8>> {
        self.keys.lock().unwrap().clone()
    }

    /// Answers the requests that `client` makes; `requests` is how many.
    pub(super) fn answer<T>(&self, answer: Answer, requests: usize, client: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..requests).for_each(|_| self.serve(answer)));
            client()
        })
    }

    fn serve(&self, answer: Answer) {
        let (stream, _) = self.listener.accept().unwrap();
        let connection = ServerConnection::new(self.tls.clone()).unwrap();
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let (status, body) = match first.split_whitespace().nth(1).unwrap().rsplit('/').next().unwrap() {
            "self" => self.register(answer),
            "cacerts" => self.authorities(answer),
            _ => self.certificate(answer, &body),
        };
        let mut stream = reader.into_inner();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    }

    fn register(&self, answer: Answer) -> (&'static str, String) {
        if let Answer::RefusedBoard = answer {
            return ("400 Bad Request", json!({ "detail": "board \"x\" is not known" }).to_string());
        }
        let told = json!({ "mqtt_host": "127.0.0.1", "mqtt_port": 8883, "root": {} });
        ("200 OK", told.to_string())
    }

    fn authorities(&self, answer: Answer) -> (&'static str, String) {
        let pem = match answer {
            Answer::CertificateAndNewCa => format!("{}{}", self.ca_pem, authority().1),
            _ => self.ca_pem.clone(),
        };
        ("200 OK", est::write_certificates(&pem).unwrap())
    }

    fn certificate(&self, answer: Answer, body: &[u8]) -> (&'static str, String) {
        let der = est::decode(body).unwrap();
        let request = CertificateSigningRequestParams::from_der(&der.into()).unwrap();
        self.keys.lock().unwrap().push(request.public_key.der_bytes().to_vec());
        let certificate = match answer {
            Answer::CertificateOfAnotherKey => {
                let mut params = CertificateParams::default();
                params.distinguished_name = request.params.distinguished_name.clone();
                params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap()
            }
            Answer::CertificateOfAnotherName => {
                let mut request = request;
                request.params.distinguished_name.push(DnType::CommonName, "cam-99");
                request.signed_by(&self.issuer).unwrap()
            }
            Answer::Nonsense => return ("200 OK", "AAAA".to_owned()),
            Answer::Refusal => return ("401 Unauthorized", "the token\nhas expired\n".to_owned()),
            Answer::Certificate | Answer::CertificateAndNewCa | Answer::RefusedBoard => {
                request.signed_by(&self.issuer).unwrap()
            }
        };
        ("200 OK", est::write_certificates(&certificate.pem()).unwrap())
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}
