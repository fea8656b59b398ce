//! What the device reports: retained, on every change, many changes at once as one.

use crate::link::{Link, Refused, Token};
use shared::{
    BoardId, DeviceId, Timestamp,
    topic::Topic,
    wire::{self, Reported, SlotReport},
};

/// Changes within this time go out together.
const COALESCE_MS: u64 = 200;
/// After a refusal.
const RETRY_MS: u64 = 5_000;

/// The newest report and whether the broker has it.
#[derive(Debug)]
pub(super) struct Reporter {
    newest: Reported,
    known: bool,
    unsent: bool,
    on_its_way: Option<Token>,
    not_before: Timestamp,
}

impl Reporter {
    pub(super) fn new(device: DeviceId, board: BoardId, api: String) -> Self {
        let newest = Reported {
            device,
            board,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            at: Timestamp(0),
            generation: 0,
            slots: Vec::new(),
            disk_free_bytes: None,
            api: Some(api),
        };
        Self { newest, known: false, unsent: true, on_its_way: None, not_before: Timestamp(0) }
    }

    /// Takes the state in, with the time on the wall; gives the report where it changed.
    pub(super) fn update(
        &mut self,
        generation: u64,
        slots: Vec<SlotReport>,
        disk_free_bytes: impl FnOnce() -> Option<u64>,
        at: Timestamp,
    ) -> Option<Reported> {
        if self.known && self.newest.generation == generation && self.newest.slots == slots {
            return None;
        }
        self.known = true;
        self.unsent = true;
        self.newest.generation = generation;
        self.newest.slots = slots;
        self.newest.disk_free_bytes = disk_free_bytes();
        self.newest.at = at;
        Some(self.newest.clone())
    }

    /// Publishes what has not been published, not too often.
    pub(super) fn publish(&mut self, link: &dyn Link, now: Timestamp) {
        if !self.unsent || !self.known || self.not_before > now {
            return;
        }
        let payload = match wire::encode_json("report", &self.newest) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%error, "the report was not sent");
                self.unsent = false;
                return;
            }
        };
        self.not_before = now.plus_ms(COALESCE_MS);
        if let Ok(token) =
            link.publish(Topic::Reported(self.newest.device.clone()).to_string(), payload, true)
        {
            self.on_its_way = Some(token);
            self.unsent = false;
        }
    }

    pub(super) fn published(&mut self, token: Token, result: &Result<(), Refused>) {
        if self.on_its_way != Some(token) {
            return;
        }
        self.on_its_way = None;
        if let Err(reason) = result {
            tracing::warn!(%reason, "the broker refused the report; trying again later");
            self.unsent = true;
            self.not_before = self.not_before.plus_ms(RETRY_MS);
        }
    }

    pub(super) fn connected(&mut self) {
        self.unsent = true;
        self.not_before = Timestamp(0);
    }

    pub(super) fn disconnected(&mut self) {
        self.on_its_way = None;
        self.unsent = true;
    }

    /// When what is unsent may be sent.
    pub(super) fn due(&self) -> Option<Timestamp> {
        (self.unsent && self.known).then_some(self.not_before)
    }
}
