//! The network of one device: passes its connections on, counts what comes, and can be cut or led elsewhere.

use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Listens on a loopback port for as long as it lives.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    received_bytes: AtomicU64,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Where connections go; none while the network is cut.
    to: Option<u16>,
    open: Vec<TcpStream>,
}

/// Bytes that are passed on at once.
const BLOCK_BYTES: usize = 16 * 1024;

impl Proxy {
    /// Listens; the network is cut until [`Proxy::lead_to`].
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port for the proxy")?;
        let port = listener.local_addr().context("the proxy's port")?.port();
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let listening = thread::spawn(move || of_thread.listen(&listener));
        Ok(Self { port, shared, listening: Some(listening) })
    }

    /// Connections go to loopback port `port` from here on; those that are open are cut.
    pub fn lead_to(&self, port: u16) {
        self.shared.lead(Some(port));
    }

    /// Cuts all connections, and takes none.
    pub fn cut(&self) {
        self.shared.lead(None);
    }

    /// Bytes that the device has received since the start.
    pub fn received_bytes(&self) -> u64 {
        self.shared.received_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.cut();
        // Wakes the thread that waits for a connection.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let (Ok(_), Some(listening)) = (woken, self.listening.take()) {
            let _ = listening.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lead(&self, to: Option<u16>) {
        let mut state = self.state();
        state.to = to;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        for device in listener.incoming() {
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            // A connection that cannot be passed on is closed: the device tries again.
            if let Ok(device) = device {
                let _ = self.pass(device);
            }
        }
    }

    fn pass(self: &Arc<Self>, device: TcpStream) -> std::io::Result<()> {
        let mut state = self.state();
        let Some(to) = state.to else { return Ok(()) };
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to))?;
        for stream in [&device, &server] {
            stream.set_nodelay(true)?;
            state.open.push(stream.try_clone()?);
        }
        drop(state);
        let (from_device, from_server) = (device.try_clone()?, server.try_clone()?);
        let shared = Arc::clone(self);
        thread::spawn(move || copy(from_device, server, |_| {}));
        thread::spawn(move || {
            copy(from_server, device, |count| {
                shared.received_bytes.fetch_add(count, Ordering::Relaxed);
            });
        });
        Ok(())
    }
}

/// Passes on until one side is closed, then closes both.
fn copy(mut from: TcpStream, mut to: TcpStream, mut count: impl FnMut(u64)) {
    let mut block = [0; BLOCK_BYTES];
    while let Ok(read) = from.read(&mut block) {
        // Before they go out: whoever has the bytes finds them counted.
        count(read as u64);
        if read == 0 || to.write_all(&block[..read]).is_err() {
            break;
        }
    }
    for stream in [&from, &to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let from = stream.try_clone().unwrap();
                thread::spawn(move || copy(from, stream, |_| {}));
            }
        });
        port
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<[u8; 3]> {
        let mut answer = [0; 3];
        stream.write_all(b"abc")?;
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn it_passes_on_and_counts_and_a_cut_ends_what_was_open() {
        let proxy = Proxy::start().unwrap();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        assert!(ask(&mut connect()).is_err(), "cut from the start");
        proxy.lead_to(echo());
        let mut stream = connect();
        assert_eq!(&ask(&mut stream).unwrap(), b"abc");
        assert_eq!(proxy.received_bytes(), 3);
        proxy.cut();
        assert!(ask(&mut stream).is_err());
        assert!(ask(&mut connect()).is_err());
        proxy.lead_to(echo());
        assert_eq!(&ask(&mut connect()).unwrap(), b"abc");
    }
}
