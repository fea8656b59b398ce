//! Who is at the other end: the certificate that a TLS client shows, if it shows one, handed on to the handlers.

use crate::app::{App, Error};
use anyhow::{Context, Result};
use axum::{
    Extension,
    extract::{ConnectInfo, FromRequestParts},
    http::request::Parts,
};
use axum_server::{accept::Accept, tls_rustls::RustlsAcceptor};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower::Layer;

/// The certificate of a client (DER). TLS has verified that it is one of our CAs' for clients and has not expired.
#[derive(Clone, Debug)]
pub(super) struct Certificate(pub Option<Arc<[u8]>>);

/// The server's certificate as it is in its file, and a client's wanted but not asked to be there: people come without.
pub(super) fn tls(app: &App) -> Result<Arc<ServerConfig>> {
    let signer = app.signer();
    let mut roots = RootCertStore::empty();
    let ca_pem = signer.ca_pem();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.context("the CAs")?).context("the CAs")?;
    }
    let chain = CertificateDer::pem_file_iter(signer.server_certificate_path())
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .context("the server's certificate")?;
    let key = PrivateKeyDer::from_pem_file(signer.server_key_path()).context("the server's key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .context("the CAs")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .context("the server's certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts TLS, and gives each connection's requests the certificate of its client.
#[derive(Clone, Debug)]
pub(super) struct Acceptor(pub RustlsAcceptor);

type Accepting<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = TlsStream<TcpStream>;
    type Service =
        <Extension<Certificate> as Layer<<RustlsAcceptor as Accept<TcpStream, S>>::Service>>::Service;
    type Future = Accepting<(Self::Stream, Self::Service)>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepting = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = Certificate(shown.map(|certificate| certificate.as_ref().into()));
            Ok((stream, Extension(certificate).layer(service)))
        })
    }
}

/// Where a request comes from. Without a socket, as in tests, all come from one place and show nothing.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: IpAddr,
    certificate: Option<Arc<[u8]>>,
}

impl Peer {
    /// The certificate that a device has shown (DER).
    ///
    /// # Errors
    /// It came without.
    pub(super) fn own_certificate(&self) -> Result<&[u8], Error> {
        self.certificate.as_deref().ok_or_else(|| {
            let text = "the device's own certificate is needed as TLS client certificate";
            Error::Unauthorized(text.to_owned())
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
        let certificate = parts.extensions.get::<Certificate>().and_then(|shown| shown.0.clone());
        Ok(Self { address, certificate })
    }
}
