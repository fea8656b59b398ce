//! Writing to the audit log together: while one transaction is under way what comes meanwhile gathers, and goes into the
//! next one. Each caller waits for its own.

use crate::{
    app::{Error, Result, chain},
    store::{self, AuditWrite, Store},
};
use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{Mutex as Turn, oneshot};

type Waiting = (AuditWrite, oneshot::Sender<std::result::Result<(), Failed>>);

/// Why nothing of a transaction is on record, for each that waited for it.
#[derive(Clone, Debug)]
enum Failed {
    Full,
    Unavailable(String),
    Other(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::Full => Self::Full,
            Error::Unavailable(text) => Self::Unavailable(text),
            error => Self::Other(chain(&error)),
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Full => Self::Full,
            Failed::Unavailable(text) => Self::Unavailable(text),
            Failed::Other(text) => Self::Internal(text),
        }
    }
}

/// What waits to be written.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct Ledger(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Vec<Waiting>>,
    /// Whoever has it writes.
    turn: Turn<()>,
}

impl Ledger {
    /// Returns when it is on record. Once begun it is written whether or not the caller waits.
    pub(super) async fn write(&self, store: &Store, write: AuditWrite) -> Result<()> {
        let (done, written) = oneshot::channel();
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((write, done));
        let (ledger, store) = (self.clone(), store.clone());
        tokio::spawn(async move { ledger.write_waiting(&store).await });
        match written.await {
            Ok(written) => Ok(written?),
            Err(_) => Err(Error::Internal("the audit log is not written any more".to_owned())),
        }
    }

    async fn write_waiting(&self, store: &Store) {
        let _turn = self.0.turn.lock().await;
        let waiting = mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() {
            // Whoever had the turn before has written it.
            return;
        }
        let (writes, callers): (Vec<AuditWrite>, Vec<_>) = waiting.into_iter().unzip();
        let written: store::Result<()> = store.write_audit(&writes).await;
        let written = written.map_err(|error| Failed::from(Error::from(error)));
        for caller in callers {
            // Nobody may wait any more.
            let _ = caller.send(written.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::AuditFilter;
    use control_core::access::AuditEntry;
    use shared::Timestamp;
    use uuid::Uuid;

    #[tokio::test]
    async fn many_at_one_time_are_all_on_record_when_they_return() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let ledger = Ledger::default();
        let entry = |number: u64| AuditEntry {
            id: Uuid::now_v7(),
            at: Timestamp(number),
            user: String::new(),
            role: None,
            operation: "login".to_owned(),
            target: number.to_string(),
            status: 401,
            from: "127.0.0.1".to_owned(),
            detail: String::new(),
        };
        let writes = (0..100).map(|number| ledger.write(&store, AuditWrite::Begin(entry(number))));
        for written in futures::future::join_all(writes).await {
            written.unwrap();
        }
        let page = crate::app::Page { limit: 200, after: None };
        assert_eq!(store.audit(&AuditFilter::default(), &page).await.unwrap().len(), 100);
        store.close().await;
        assert!(ledger.write(&store, AuditWrite::Begin(entry(100))).await.is_err());
    }
}
