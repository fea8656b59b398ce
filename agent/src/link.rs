//! The link to the broker, behind a trait so that the updater can be tested without one.

pub mod mqtt;

use bytes::Bytes;

/// What the link does for the updater. No call waits.
pub trait Link: Send + Sync {
    /// Publishes with QoS 1; [`LinkEvent::Published`] tells how it went. `Err` where there is no connection or no
    /// room: nothing was sent, and nothing will be.
    fn publish(&self, topic: String, payload: Vec<u8>, retain: bool) -> Result<Token, NotSent>;
    /// Subscribes with QoS 1. One that does not go out ends the connection, and so does a refusal of the one to
    /// what the device shall run; any other refusal is only told in the log.
    fn subscribe(&self, filter: String);
    /// Takes a subscription back.
    fn unsubscribe(&self, filter: String);
    /// Acknowledges a message. Where that does not go out the connection ends: the broker sends the message again
    /// on the next one.
    fn acknowledge(&self, receipt: Receipt);
    /// Sends what is queued and closes the connection, without the last will. The channel of events ends when that
    /// is done.
    fn close(&self);
}

/// Names a publish until it is acknowledged or the connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// No connection, or no room in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not connected to the broker, or its queue is full")]
pub struct NotSent;

/// What an acknowledgement needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Counts connections: a receipt of an earlier one is worth nothing.
    pub connection: u64,
    /// Packet id; zero where none is asked for.
    pub packet: u16,
}

/// What comes over the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// Connected. Without a session the subscriptions are gone.
    Up { session_present: bool },
    /// The connection is lost, and with it every publish that was not acknowledged.
    Down { reason: String },
    /// A message that waits for its acknowledgement.
    Message { topic: String, payload: Bytes, receipt: Receipt },
    /// The broker took a publish over, or refused it.
    Published { token: Token, result: Result<(), Refused> },
}

/// Why the broker did not take a publish over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody there understands it, nor will when it comes again.
    #[error("{0}")]
    Malformed(String),
    /// For a reason that may pass.
    #[error("{0}")]
    Busy(String),
}
