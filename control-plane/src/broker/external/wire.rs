//! Packets over TLS. How a packet is written is rumqttc's; when something is read and when written is decided by whoever
//! holds the two halves, since rumqttc's own event loop writes one acknowledgement for every read of many messages (ADR 46).

use super::Address;
use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::{self, v5::Packet};
use rustls::{ClientConfig, pki_types::ServerName};
use shared::{causes, limits};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A broker that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for a read.
const READ_BYTES: usize = 64 * 1024;
/// First byte of a DISCONNECT.
const GOODBYE: u8 = 0xE0;
const CLOSED: &str = "the broker closed the connection";

/// Opens a connection over TLS.
///
/// # Errors
/// In one line, why there is none.
pub(super) async fn open(address: &Address, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, String> {
    let failed = |error: std::io::Error| format!("I/O: {}", causes(&error));
    let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    TlsConnector::from(tls).connect(name, stream).await.map_err(failed)
}

/// What comes from the broker.
#[derive(Debug)]
pub(super) struct Reading<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next packet that has been read as a whole.
    ///
    /// # Errors
    /// What came is none, or larger than it may be.
    pub(super) fn next(&mut self) -> Result<Option<Packet>, String> {
        if let Some(goodbye) = self.short_goodbye() {
            return Ok(Some(goodbye));
        }
        let before = self.buffer.len();
        match Packet::read(&mut self.buffer, Some(limits::MQTT_PACKET_BYTES_MAX)) {
            Ok(packet) => Ok(Some(packet)),
            // Said of a whole packet too, where what it holds is cut short.
            Err(mqttbytes::Error::InsufficientBytes(_)) if self.buffer.len() == before => Ok(None),
            Err(error) => Err(format!("the broker's packet is not understood: {error}")),
        }
    }

    /// A DISCONNECT that leaves out its properties, or its reason too (MQTT 5, section 3.14.2), which the library takes for cut
    /// short.
    fn short_goodbye(&mut self) -> Option<Packet> {
        let reason = match *self.buffer {
            [GOODBYE, 0, ..] => 0,
            [GOODBYE, 1, reason, ..] => reason,
            _ => return None,
        };
        let mut long = BytesMut::from([GOODBYE, 2, reason, 0].as_slice());
        let goodbye = Packet::read(&mut long, None).ok()?;
        let whole = 2 + usize::from(self.buffer[1]);
        self.buffer.advance(whole);
        Some(goodbye)
    }

    /// Reads on. Nothing is lost where this is dropped before it is through.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn fill(&mut self) -> Result<(), String> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(CLOSED.to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("I/O: {}", causes(&error))),
        }
    }
}

/// What goes to the broker.
#[derive(Debug)]
pub(super) struct Writing<W> {
    stream: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Writing<W> {
    pub(super) fn new(stream: W) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// To be sent with the next [`Self::flush`].
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn put(&mut self, packet: &Packet) -> Result<(), String> {
        let written = packet.write(&mut self.buffer, None);
        written.map(drop).map_err(|error| format!("a packet cannot be written: {error}"))
    }

    /// Sends all that was put.
    ///
    /// # Errors
    /// The connection has ended, or the broker takes nothing.
    pub(super) async fn flush(&mut self) -> Result<(), String> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let sending = async {
            self.stream.write_all_buf(&mut self.buffer).await?;
            self.stream.flush().await
        };
        match timeout(WRITE_TIMEOUT, sending).await {
            Ok(sent) => sent.map_err(|error| format!("I/O: {}", causes(&error))),
            Err(_) => Err("the broker takes nothing".to_owned()),
        }
    }

    /// Says that nothing more comes, after what was put.
    pub(super) async fn close(mut self) {
        // The broker may have gone, or take nothing more: then there is nobody to tell.
        if self.flush().await.is_ok() {
            let _ = timeout(WRITE_TIMEOUT, self.stream.shutdown()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::{QoS, v5::Publish};

    #[tokio::test]
    async fn packets_come_out_as_they_went_in_however_they_are_cut() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut writing = Writing::new(near);
        let sent: Vec<Packet> = (1..=3)
            .map(|number| {
                let mut publish = Publish::new("t", QoS::AtLeastOnce, vec![7; 300], None);
                publish.pkid = number;
                Packet::Publish(publish)
            })
            .collect();
        sent.iter().for_each(|packet| writing.put(packet).unwrap());
        writing.close().await;
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).await.unwrap();
        for cut in [1, 5, 310, bytes.len() - 1] {
            let (first, second) = bytes.split_at(cut);
            let mut reading = Reading::new(AsyncReadExt::chain(first, second));
            let mut found = Vec::new();
            let ended = loop {
                while let Some(packet) = reading.next().unwrap() {
                    found.push(packet);
                }
                if let Err(ended) = reading.fill().await {
                    break ended;
                }
            };
            assert_eq!((found.len(), ended.as_str()), (3, CLOSED), "{cut}");
            assert_eq!(found[2], sent[2]);
        }
    }

    #[tokio::test]
    async fn what_is_no_packet_or_a_too_large_one_ends_the_connection() {
        let cut_short = [0x30, 4, 0, 9, b't', b'x', 0, 0];
        for bytes in
            [[0u8; 8], [0x30, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0], [0x20, 0, 0, 0, 0, 0, 0, 0], cut_short]
        {
            let mut reading = Reading::new(bytes.as_slice());
            reading.fill().await.unwrap();
            assert!(reading.next().is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_goodbye_is_understood_however_short_it_is() {
        use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode::{NormalDisconnection, SessionTakenOver};
        let cases: [(&[u8], _); 4] = [
            (&[0xE0, 0], NormalDisconnection),
            (&[0xE0, 1, 0x8E], SessionTakenOver),
            (&[0xE0, 2, 0x8E, 0], SessionTakenOver),
            (&[0xE0, 0, 0xE0], NormalDisconnection),
        ];
        for (bytes, wanted) in cases {
            let mut reading = Reading::new(bytes);
            reading.fill().await.unwrap();
            let Some(Packet::Disconnect(goodbye)) = reading.next().unwrap() else { panic!("{bytes:?}") };
            assert_eq!(goodbye.reason_code, wanted, "{bytes:?}");
            assert_eq!(reading.next().unwrap(), None, "nothing more, or not enough of it");
        }
    }
}
