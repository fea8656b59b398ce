//! What devices said, as it came: written and committed before it is acknowledged, and read again after a kill.

use super::super::{Error, Reader, Result, Store, devices::Words, number, time};
use bytes::Bytes;
use shared::{
    DeviceId, Timestamp,
    wire::{self, Batch, Event, Feedback, Reported, Telemetry},
};
use sqlx::Row;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Records that are held in memory until they are taken apart; what has no room is read again.
const RECENT_RECORDS_MAX: u64 = 500_000;

/// Records of one message.
#[derive(Clone, Debug, PartialEq)]
pub enum Records {
    Events(Vec<Event>),
    Feedback(Vec<Feedback>),
    Telemetry(Vec<Telemetry>),
}

impl Records {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Events(records) => records.len(),
            Self::Feedback(records) => records.len(),
            Self::Telemetry(records) => records.len(),
        }
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message with records from a device: its bytes, and what they say.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub device: DeviceId,
    /// Empty once it has been written.
    pub payload: Bytes,
    pub records: Records,
}

impl Message {
    /// Reads events that `device` sent.
    pub fn events(device: &DeviceId, payload: Bytes) -> std::result::Result<Self, wire::Error> {
        let records = Records::Events(Batch::decode(&payload, device)?.records);
        Ok(Self { device: device.clone(), payload, records })
    }

    /// Reads feedback that `device` sent.
    pub fn feedback(device: &DeviceId, payload: Bytes) -> std::result::Result<Self, wire::Error> {
        let records = Records::Feedback(Batch::decode(&payload, device)?.records);
        Ok(Self { device: device.clone(), payload, records })
    }

    /// Reads telemetry that `device` sent.
    pub fn telemetry(device: &DeviceId, payload: Bytes) -> std::result::Result<Self, wire::Error> {
        let records = Records::Telemetry(Batch::decode(&payload, device)?.records);
        Ok(Self { device: device.clone(), payload, records })
    }
}

/// Something that a device said and that has to be kept before it is acknowledged.
#[derive(Clone, Debug)]
pub enum Input {
    Records(Message),
    /// What it said of itself; it was `seen` by that, unless nobody knows when it said so.
    Reported {
        reported: Box<Reported>,
        seen: Option<Timestamp>,
    },
    /// Whether it is connected.
    Presence {
        device: DeviceId,
        online: bool,
        seen: Option<Timestamp>,
    },
}

/// When something came: by the wall clock, and by the one that does not jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    pub received: Timestamp,
    pub steady: Timestamp,
}

/// Messages that are in the journal and that need not be read from there.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    messages: BTreeMap<u64, Vec<Message>>,
    records: u64,
}

impl Recent {
    /// Holds what was taken in under a number, where there is room.
    pub fn keep(&self, number: u64, inputs: Vec<Input>) {
        let messages = inputs.into_iter().filter_map(|input| match input {
            // Its bytes are in the journal.
            Input::Records(message) => Some(Message { payload: Bytes::new(), ..message }),
            Input::Reported { .. } | Input::Presence { .. } => None,
        });
        let messages: Vec<Message> = messages.collect();
        let records = count(&messages);
        let mut held = self.held();
        if held.records + records <= RECENT_RECORDS_MAX {
            held.records += records;
            held.messages.insert(number, messages);
        }
    }

    /// Holds nothing up to a number any more: it was taken apart, in part before it was held.
    pub(super) fn drop_until(&self, last: u64) {
        let mut held = self.held();
        let later = held.messages.split_off(&last.saturating_add(1));
        held.records = later.values().map(count).sum();
        held.messages = later;
    }

    /// Holds nothing any more.
    pub fn clear(&self) {
        *self.held() = Held::default();
    }

    pub(super) fn take(&self, number: u64) -> Option<Vec<Message>> {
        let mut held = self.held();
        let messages = held.messages.remove(&number)?;
        held.records -= count(&messages);
        Some(messages)
    }

    /// Counting does not panic, so what the lock guards is whole.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count<'a>(messages: impl IntoIterator<Item = &'a Message>) -> u64 {
    messages.into_iter().map(|message| message.records.len() as u64).sum()
}

impl Store {
    /// Keeps all of it or nothing, in its order; it is on the disk when this returns. Gives the number in the journal, where
    /// there are records among it: they wait to be taken apart.
    pub async fn take_in(&self, inputs: &[Input], came: Came) -> Result<Option<u64>> {
        let mut tx = self.begin_as_leader().await?;
        let (mut messages, mut words) = (Vec::new(), Words::default());
        for input in inputs {
            match input {
                Input::Records(message) => messages.push(message),
                Input::Reported { reported, seen } => words.reported(reported, *seen),
                Input::Presence { device, online, seen } => words.presence(device, *online, *seen),
            }
        }
        words.write(&mut tx).await?;
        if messages.is_empty() {
            tx.commit().await?;
            return Ok(None);
        }
        let row = sqlx::query(
            "INSERT INTO intake (received_at, steady_at, records, messages) VALUES ($1, $2, $3, $4) RETURNING number",
        )
        .bind(time(came.received))
        .bind(time(came.steady))
        .bind(number(count(messages.iter().copied())))
        .bind(written(messages))
        .fetch_one(&mut *tx)
        .await?;
        let at = Reader::new("intake", &row).number("number")?;
        tx.commit().await?;
        Ok(Some(at))
    }

    /// Records that wait to be taken apart.
    pub async fn waiting_records(&self) -> Result<u64> {
        let row = sqlx::query(
            "SELECT CAST(coalesce(sum(records), 0) AS BIGINT) AS records FROM intake WHERE broken = 0",
        )
        .fetch_one(&self.readers)
        .await?;
        Reader::new("intake", &row).number("records")
    }

    /// The messages under a number, from their bytes.
    pub(super) async fn read_messages(&self, at: u64) -> Result<Vec<Message>> {
        let row = sqlx::query("SELECT messages FROM intake WHERE number = $1")
            .bind(number(at))
            .fetch_one(&self.readers)
            .await?;
        let bytes: Vec<u8> = row.try_get("messages")?;
        read(bytes.into()).map_err(|reason| Error::Corrupt {
            table: "intake",
            column: format!("messages of number {at}"),
            expected: "list of messages",
            reason,
        })
    }
}

/// Of each message one byte for its kind, the length of the device's name in two, that of the payload in four, and both.
fn written<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let kind = match message.records {
            Records::Events(_) => EVENTS,
            Records::Feedback(_) => FEEDBACK,
            Records::Telemetry(_) => TELEMETRY,
        };
        let device = message.device.as_str().as_bytes();
        bytes.push(kind);
        // Names and payloads are capped far below.
        bytes.extend(u16::try_from(device.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(u32::try_from(message.payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(device);
        bytes.extend(&message.payload);
    }
    bytes
}

const EVENTS: u8 = 1;
const FEEDBACK: u8 = 2;
const TELEMETRY: u8 = 3;

fn read(mut bytes: Bytes) -> std::result::Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let head: [u8; 7] = part(&mut bytes, 7)?[..].try_into().map_err(|_| "ends early".to_owned())?;
        let [kind, device @ .., p0, p1, p2, p3] = head;
        let device = part(&mut bytes, usize::from(u16::from_le_bytes(device)))?;
        let device = std::str::from_utf8(&device).map_err(|error| error.to_string())?;
        let device: DeviceId = device.parse().map_err(|error: shared::id::Error| error.to_string())?;
        let payload = part(&mut bytes, u32::from_le_bytes([p0, p1, p2, p3]) as usize)?;
        let message = match kind {
            EVENTS => Message::events(&device, payload),
            FEEDBACK => Message::feedback(&device, payload),
            TELEMETRY => Message::telemetry(&device, payload),
            other => return Err(format!("kind {other} is not known")),
        };
        messages.push(message.map_err(|error| error.to_string())?);
    }
    Ok(messages)
}

fn part(bytes: &mut Bytes, length: usize) -> std::result::Result<Bytes, String> {
    if bytes.len() < length {
        return Err("ends early".to_owned());
    }
    Ok(bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::wire::EventKind;
    use uuid::Uuid;

    fn message(device: &str, number: u128) -> Message {
        let device: DeviceId = device.parse().unwrap();
        let event = Event {
            id: Uuid::from_u128(number),
            at: Timestamp(5),
            slot: None,
            bundle: None,
            kind: EventKind::AgentStarted,
            detail: String::new(),
        };
        let batch = Batch { device: device.clone(), records: vec![event] };
        Message::events(&device, batch.encode().unwrap().into()).unwrap()
    }

    #[test]
    fn messages_come_back_from_their_bytes_and_no_cut_of_them_passes_for_whole() {
        let messages = [message("cam-01", 1), message("cam-02", 2)];
        let bytes = written(&messages);
        assert_eq!(read(bytes.clone().into()).unwrap(), messages);
        let first = written(&messages[..1]).len();
        for length in (1..bytes.len()).filter(|length| *length != first) {
            assert!(read(Bytes::copy_from_slice(&bytes[..length])).is_err(), "{length}");
        }
    }
}
