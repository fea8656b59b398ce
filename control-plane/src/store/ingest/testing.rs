//! Batches that are taken in and apart at once, for tests.

use super::{
    super::Result,
    Store,
    journal::{Came, Input, Message, Recent, Records},
};
use shared::{
    Timestamp,
    wire::{Batch, Event, Feedback, Record, Telemetry},
};

fn message<R: Record + Clone>(batch: &Batch<R>, records: fn(Vec<R>) -> Records) -> Message {
    Message {
        device: batch.device.clone(),
        payload: batch.encode().unwrap().into(),
        records: records(batch.records.clone()),
    }
}

impl Store {
    /// Keeps a batch of events; gives how many were new.
    pub(crate) async fn ingest_events(&self, batch: &Batch<Event>, now: Timestamp) -> Result<u64> {
        self.ingest(vec![message(batch, Records::Events)], now).await
    }

    /// Keeps a batch of feedback; gives how many were new.
    pub(crate) async fn ingest_feedback(&self, batch: &Batch<Feedback>, now: Timestamp) -> Result<u64> {
        self.ingest(vec![message(batch, Records::Feedback)], now).await
    }

    /// Keeps a batch of telemetry; gives how many were new.
    pub(crate) async fn ingest_telemetry(&self, batch: &Batch<Telemetry>, now: Timestamp) -> Result<u64> {
        self.ingest(vec![message(batch, Records::Telemetry)], now).await
    }

    /// Takes messages in and apart; gives how many records were new.
    pub(crate) async fn ingest(&self, messages: Vec<Message>, now: Timestamp) -> Result<u64> {
        let (recent, came) = (Recent::default(), Came { received: now, steady: now });
        let inputs: Vec<Input> = messages.into_iter().map(Input::Records).collect();
        if let Some(number) = self.take_in(&inputs, came).await? {
            recent.keep(number, inputs);
        }
        self.fold_all(&recent).await
    }

    /// Takes apart all that waits; gives how many records were new.
    pub(crate) async fn fold_all(&self, recent: &Recent) -> Result<u64> {
        let mut added = 0;
        loop {
            let folded = self.fold(recent).await?;
            added += folded.added;
            if folded.waiting == 0 {
                return Ok(added);
            }
        }
    }
}
