//! What was changed by whom, on record before anybody is told that it was done; and requests that come twice.

mod ledger;

use super::{App, Page, Result, access::Principal, chain, now};
use crate::store::AuditWrite;
use control_core::access::AuditEntry;
use shared::{Digest, UserName, wire};
use std::net::IpAddr;
use uuid::Uuid;

pub(super) use ledger::Ledger;

pub use crate::store::{AuditFilter, Earlier};

/// A request that is to change something.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub by: Option<Principal>,
    /// As the API's document names it.
    pub operation: &'static str,
    pub target: String,
    pub from: IpAddr,
    /// What is asked, without secrets.
    pub detail: String,
}

impl Attempt {
    fn entry(&self, status: u16) -> AuditEntry {
        AuditEntry {
            id: Uuid::now_v7(),
            at: now(),
            user: self.by.as_ref().map(|by| by.user.to_string()).unwrap_or_default(),
            role: self.by.as_ref().map(|by| by.role),
            operation: self.operation.to_owned(),
            target: wire::cut(&self.target),
            status,
            from: self.from.to_string(),
            detail: wire::cut(&self.detail),
        }
    }
}

impl App {
    /// Puts on record that something is to be changed. Without the record nothing is.
    pub async fn begin_audit(&self, attempt: &Attempt) -> Result<Uuid> {
        let entry = attempt.entry(0);
        let id = entry.id;
        self.ledger.write(&self.store, AuditWrite::Begin(entry)).await?;
        Ok(id)
    }

    /// Says how that ended. What cannot be written is in the log; the record of the attempt stays.
    pub async fn end_audit(&self, id: Uuid, attempt: &Attempt, status: u16) {
        let (target, detail) = (wire::cut(&attempt.target), wire::cut(&attempt.detail));
        let end = AuditWrite::End { id, status, target, detail };
        if let Err(error) = self.ledger.write(&self.store, end).await {
            let (operation, target) = (attempt.operation, &attempt.target);
            tracing::error!(
                "{operation} of {target:?} gave {status}, which is not on record: {}",
                chain(&error)
            );
        }
    }

    /// Counts a refused request among the security events.
    pub fn note_refused(&self, attempt: &Attempt) {
        let subject = attempt.by.as_ref().map_or_else(|| attempt.from.to_string(), |by| by.user.to_string());
        self.note_refusal(&subject, "request_refused", &format!("{}: {}", attempt.operation, attempt.detail));
    }

    /// Puts on record that somebody was refused, unless many are.
    pub async fn audit_refusal(&self, attempt: &Attempt, status: u16) {
        if !self.access.is_audited_refusal(now()) {
            return;
        }
        if let Err(error) = self.ledger.write(&self.store, AuditWrite::Begin(attempt.entry(status))).await {
            tracing::error!("a refused {} is not on record: {}", attempt.operation, chain(&error));
        }
    }

    /// The audit log, the newest first.
    pub async fn audit(&self, filter: &AuditFilter, page: &Page) -> Result<Vec<AuditEntry>> {
        Ok(self.store.audit(filter, page).await?)
    }

    /// Begins a request under an idempotency key, or tells what became of it when it came before.
    pub async fn begin_idempotent(&self, user: &UserName, key: &str, request: &Digest) -> Result<Earlier> {
        Ok(self.store.begin_idempotent(user, key, request, now()).await?)
    }

    /// Keeps the answer to a request under a key, or forgets the key where the request came to nothing.
    pub async fn end_idempotent(&self, user: &UserName, key: &str, status: u16, answer: Option<&str>) {
        let kept = if status < 500 && status != 429 {
            self.store.end_idempotent(user, key, status, answer).await
        } else {
            self.store.forget_idempotent(user, key).await
        };
        if let Err(error) = kept {
            tracing::error!("the answer to key {key:?} of {user} is not kept: {}", chain(&error));
        }
    }
}
