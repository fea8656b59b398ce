//! An enrolment server that answers one request at a time, as it is told.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    PublicKeyData,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
};

/// What comes back.
pub(super) enum Answer {
    Certificate,
    CertificateOfAnotherKey,
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
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
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
            ca_pem: ca.pem(),
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

    /// Answers the one request that `client` makes.
    pub(super) fn answer<T>(&self, answer: Answer, client: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| self.serve(&answer));
            client()
        })
    }

    fn serve(&self, answer: &Answer) {
        let (stream, _) = self.listener.accept().unwrap();
        let connection = ServerConnection::new(self.tls.clone()).unwrap();
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        let mut length = 0;
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
        let request: Value = serde_json::from_slice(&body).unwrap();
        let request =
            CertificateSigningRequestParams::from_pem(request["csr_pem"].as_str().unwrap()).unwrap();
        self.keys.lock().unwrap().push(request.public_key.der_bytes().to_vec());
        let certificate = match answer {
            Answer::Certificate => request.signed_by(&self.issuer).unwrap(),
            Answer::CertificateOfAnotherKey => {
                CertificateParams::default().signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap()
            }
        };
        let identity = json!({
            "device": "cam-01",
            "certificate_pem": certificate.pem(),
            "ca_pem": self.ca_pem,
            "mqtt_host": "127.0.0.1",
            "mqtt_port": 8883,
            "keyring": { "keys": [] },
        })
        .to_string();
        let mut stream = reader.into_inner();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{identity}",
            identity.len()
        )
        .unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    }
}
