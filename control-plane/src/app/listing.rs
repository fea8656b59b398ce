//! The keys that lists are ordered by: a page begins after the key of the last entry of the one before.

use control_core::{
    access::{ApiToken, AuditEntry, User},
    entity::{Dataset, Device, DeviceEvent, Job, RolloutSummary, SecurityEvent, Token, Version},
};

/// An entry of a list.
pub trait Keyed {
    /// Its place in the list, as the store reads it in [`super::Page`].
    fn key(&self) -> String;
}

impl Keyed for Dataset {
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Keyed for Device {
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Keyed for DeviceEvent {
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Keyed for Job {
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Keyed for RolloutSummary {
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Keyed for SecurityEvent {
    fn key(&self) -> String {
        self.number.to_string()
    }
}

impl Keyed for Token {
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Keyed for Version {
    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Keyed for User {
    fn key(&self) -> String {
        self.name.to_string()
    }
}

impl Keyed for ApiToken {
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Keyed for AuditEntry {
    fn key(&self) -> String {
        self.id.to_string()
    }
}
