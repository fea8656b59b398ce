//! The same file over HTTPS from nginx, to each device on its own. A piece that is lost is asked for again by its range.

use super::write;
use crate::harness::{Process, free_port};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use shared::backoff::Jitter;
use std::{
    net::Ipv4Addr,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, runtime::Runtime};
use tokio_rustls::TlsConnector;

const START_LIMIT: Duration = Duration::from_secs(20);
/// Devices that fetch beside each other are all of them.
const BACKLOG: u32 = 4096;
/// The file as nginx names it.
const FILE: &str = "model.onnx";

/// A running nginx with one file.
#[derive(Debug)]
pub struct Nginx {
    port: u16,
    folder: PathBuf,
    client: Arc<ClientConfig>,
    runtime: Runtime,
    process: Option<Process>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Fetched {
    /// Bytes of bodies that came to all devices together, pieces that were then lost included.
    pub bytes: u64,
    pub seconds: f64,
}

impl Nginx {
    /// Starts it in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join("files"))
            .with_context(|| format!("making {}", folder.display()))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
        write(&folder.join("server.pem"), certificate.pem().as_bytes())?;
        write(&folder.join("server.key.pem"), key.serialize_pem().as_bytes())?;
        let port = free_port()?;
        write(&folder.join("nginx.conf"), configuration(folder, port).as_bytes())?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "error.log"]);
        let mut process = Process::start("nginx", command, &folder.join("nginx.log"))
            .context("nginx is not there; `cargo xtask setup --peers` brings it")?;
        process.wait_for("nginx to listen", START_LIMIT, || {
            Ok(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(|_| ()))
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).context("nginx's certificate")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Devices are strangers to each other: none goes on with another's session.
        client.resumption = rustls::client::Resumption::disabled();
        let runtime = Runtime::new().context("starting the clients' runtime")?;
        let folder = folder.to_path_buf();
        Ok(Self { port, folder, client: Arc::new(client), runtime, process: Some(process) })
    }

    /// Has `devices` devices fetch `file` at once, in pieces of `piece_bytes` of which each loses `loss_permille` in a
    /// thousand.
    pub fn serve(
        &self,
        file: &Arc<Vec<u8>>,
        devices: usize,
        piece_bytes: usize,
        loss_permille: u64,
    ) -> Result<Fetched> {
        write(&self.folder.join("files").join(FILE), file)?;
        let delivered = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        self.runtime.block_on(async {
            let fetching: Vec<_> = (0..devices)
                .map(|number| {
                    let fetch = Fetch {
                        port: self.port,
                        tls: TlsConnector::from(self.client.clone()),
                        file: file.clone(),
                        piece_bytes,
                        loss_permille,
                        delivered: delivered.clone(),
                    };
                    tokio::spawn(fetch.run(Jitter::new(number as u64)))
                })
                .collect();
            for task in fetching {
                task.await.context("a client broke off")??;
            }
            anyhow::Ok(())
        })?;
        let seconds = began.elapsed().as_secs_f64();
        Ok(Fetched { bytes: delivered.load(Ordering::Relaxed), seconds })
    }
}

impl Drop for Nginx {
    /// Asked to, it takes its workers along; killed, it would leave them.
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let _ = process.stop();
        }
    }
}

/// What one device does.
struct Fetch {
    port: u16,
    tls: TlsConnector,
    file: Arc<Vec<u8>>,
    piece_bytes: usize,
    loss_permille: u64,
    delivered: Arc<AtomicU64>,
}

impl Fetch {
    async fn run(self, mut lots: Jitter) -> Result<()> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.context("reaching nginx")?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from("localhost")?, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driving = tokio::spawn(connection);
        let mut lost = self.get(&mut sender, 0..self.file.len(), &mut lots).await?;
        while let Some(piece) = lost.pop() {
            let start = piece * self.piece_bytes;
            let end = (start + self.piece_bytes).min(self.file.len());
            lost.extend(self.get(&mut sender, start..end, &mut lots).await?);
        }
        driving.abort();
        Ok(())
    }

    /// Fetches a range that begins with a piece, and gives the pieces of it that were lost.
    async fn get(
        &self,
        sender: &mut http1::SendRequest<Empty<Bytes>>,
        range: Range<usize>,
        lots: &mut Jitter,
    ) -> Result<Vec<usize>> {
        let whole = range.len() == self.file.len();
        let mut request = Request::get(format!("/{FILE}")).header(header::HOST, "localhost");
        if !whole {
            request = request.header(header::RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        sender.ready().await?;
        let mut answer = sender.send_request(request.body(Empty::new())?).await?;
        let expected = if whole { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        ensure!(answer.status() == expected, "nginx answered {}", answer.status());
        let mut at = range.start;
        while let Some(frame) = answer.frame().await {
            let Ok(bytes) = frame?.into_data() else { continue };
            let end = at + bytes.len();
            ensure!(self.file.get(at..end) == Some(&bytes[..]), "nginx sent other bytes");
            self.delivered.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            at = end;
        }
        ensure!(at == range.end, "nginx sent {} bytes of {}", at - range.start, range.len());
        let pieces = range.start / self.piece_bytes..range.end.div_ceil(self.piece_bytes);
        Ok(pieces.filter(|_| lots.next_u64() % 1000 < self.loss_permille).collect())
    }
}

/// As one would run it: a worker for each processor, sendfile, no log of requests.
fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    // Started by root, the workers would otherwise be nobody, who may not reach the folder.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    format!(
        "{user}daemon off;\nworker_processes auto;\npid nginx.pid;\nworker_rlimit_nofile 16384;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 100000;\n\
         client_body_temp_path tmp-body;\n  proxy_temp_path tmp-proxy;\n  fastcgi_temp_path tmp-fastcgi;\n\
         uwsgi_temp_path tmp-uwsgi;\n  scgi_temp_path tmp-scgi;\n\
         server {{\n    listen 127.0.0.1:{port} ssl backlog={BACKLOG};\n    ssl_certificate {folder}/server.pem;\n\
         ssl_certificate_key {folder}/server.key.pem;\n    ssl_protocols TLSv1.3;\n    root {folder}/files;\n  }}\n}}\n"
    )
}
