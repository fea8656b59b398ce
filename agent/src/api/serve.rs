//! Listening: on loopback or a Unix socket.

use crate::config::ApiAddress;
use axum::{Router, serve::ListenerExt};
use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Why the API does not listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else does.
    #[error(
        "the address {address} of the local API is in use; stop what uses it, or give another with --api"
    )]
    InUse { address: String },
    /// Another reason.
    #[error("the local API cannot listen on {address}: {source}; give another address with --api")]
    Listen { address: String, source: io::Error },
}

/// A listener that is bound.
#[derive(Debug)]
pub enum Bound {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// Binds `address`. A socket file that nobody answers on is replaced.
pub async fn bind(address: &ApiAddress) -> Result<Bound, Error> {
    let error = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => Error::InUse { address: address.to_string() },
        _ => Error::Listen { address: address.to_string(), source },
    };
    match address {
        ApiAddress::Tcp(tcp) => {
            let listener = TcpListener::bind(tcp).await.map_err(error)?;
            let bound = listener.local_addr().map_err(error)?;
            Ok(Bound::Tcp(listener, bound))
        }
        ApiAddress::Unix(path) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(Error::InUse { address: address.to_string() });
            }
            match fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(source)),
                _ => {}
            }
            let listener = UnixListener::bind(path).map_err(error)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(error)?;
            Ok(Bound::Unix(listener, path.clone()))
        }
    }
}

impl Bound {
    /// The address as a client writes it.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => ApiAddress::Tcp(*address).to_string(),
            Self::Unix(_, path) => ApiAddress::Unix(path.clone()).to_string(),
        }
    }

    /// Answers until `stop`, then finishes the requests that were begun.
    pub async fn serve(
        self,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(listener, _) => {
                let listener = listener.tap_io(|stream| {
                    // Without it a small answer waits for the client's delayed acknowledgement.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY is not set");
                    }
                });
                axum::serve(listener, router).with_graceful_shutdown(stop).await
            }
            Self::Unix(listener, path) => {
                let served = axum::serve(listener, router).with_graceful_shutdown(stop).await;
                let _ = fs::remove_file(path);
                served
            }
        }
    }
}
