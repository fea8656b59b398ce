//! Listening: on loopback or a Unix socket.

use super::connections::Bounded;
use crate::config::ApiAddress;
use axum::{Router, serve::ListenerExt};
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
};
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
    #[error("the local API cannot listen on {address}; give another address with --api")]
    Listen { address: String, source: io::Error },
    /// The path belongs to something else.
    #[error("{path} is no socket and is not replaced by one; give another path with --api")]
    NoSocket { path: PathBuf },
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
            match fs::symlink_metadata(path) {
                Ok(meta) if !meta.file_type().is_socket() => {
                    return Err(Error::NoSocket { path: path.clone() });
                }
                Ok(_) if UnixStream::connect(path).await.is_ok() => {
                    return Err(Error::InUse { address: address.to_string() });
                }
                Ok(_) => fs::remove_file(path).map_err(error)?,
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(error(source)),
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
                axum::serve(Bounded::new(listener), router).with_graceful_shutdown(stop).await
            }
            Self::Unix(listener, path) => {
                let served = axum::serve(Bounded::new(listener), router).with_graceful_shutdown(stop).await;
                let _ = fs::remove_file(path);
                served
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_nobody_answers_on_is_replaced_and_anything_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        let address = ApiAddress::Unix(path.clone());
        fs::write(&path, "precious").unwrap();
        let message = bind(&address).await.unwrap_err().to_string();
        assert!(message.contains("is no socket") && message.contains("--api"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();

        let bound = bind(&address).await.unwrap();
        assert!(matches!(bind(&address).await, Err(Error::InUse { .. })));
        drop(bound);
        bind(&address).await.unwrap();
    }
}
