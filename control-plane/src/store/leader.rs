//! Which of several servers on one database acts. The lease is a row, its end is by the database's clock, and each holder
//! has an epoch of its own: what a holder writes is refused once another one has taken the lease (ADR 37).

use super::{Dialect, Error, Reader, Result, Store};
use sqlx::{Any, Transaction};
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

/// What this server may write for the fleet.
#[derive(Debug)]
pub(super) struct Fence(AtomicI64);

/// There is no other server.
const ALONE: i64 = -1;
/// The lease is not this server's.
const NOT_HELD: i64 = -2;

impl Fence {
    pub(super) fn new(alone: bool) -> Self {
        Self(AtomicI64::new(if alone { ALONE } else { NOT_HELD }))
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, epoch: i64) {
        self.0.store(epoch, Ordering::Release);
    }
}

/// Who has the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    pub epoch: u64,
    /// Its broker is in its own process, so no other server can act beside it or after it for its devices.
    pub embedded: bool,
    /// The lease has not ended.
    pub holds: bool,
}

impl Store {
    /// Can there be other servers on this database?
    pub fn is_shared(&self) -> bool {
        self.dialect() == Dialect::Postgres
    }

    /// May this server write for the fleet, as far as it knows?
    pub fn leads(&self) -> bool {
        self.fence.get() != NOT_HELD
    }

    /// Begins a transaction of a loop that acts for the fleet. As long as it lasts no other server takes the lease.
    pub(super) async fn begin_as_leader(&self) -> Result<Transaction<'static, Any>> {
        let epoch = self.fence.get();
        if epoch == NOT_HELD {
            return Err(Error::NotLeader);
        }
        let mut tx = self.begin().await?;
        if epoch == ALONE {
            return Ok(tx);
        }
        let ours = sqlx::query("SELECT epoch FROM leader WHERE id = 1 AND epoch = $1")
            .bind(epoch)
            .fetch_optional(&mut *tx)
            .await?;
        match ours {
            Some(_) => Ok(tx),
            None => {
                self.fence.set(NOT_HELD);
                Err(Error::NotLeader)
            }
        }
    }

    /// Takes the lease if nobody has it; gives its epoch. No transaction of the holder before is under way then, and none
    /// begins any more.
    pub async fn take_lead(&self, holder: &str, embedded: bool, lease: Duration) -> Result<Option<u64>> {
        let now = self.dialect().now_ms();
        let mut tx = self.begin().await?;
        let taken = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE leader SET holder = $1, embedded = $2, epoch = epoch + 1, expires_at = {now} + $3 \
             WHERE id = 1 AND expires_at <= {now} RETURNING epoch"
        )))
        .bind(holder)
        .bind(i64::from(embedded))
        .bind(milliseconds(lease))
        .fetch_optional(&mut *tx)
        .await?;
        let Some(taken) = taken else { return Ok(None) };
        let epoch = Reader::new("leader", &taken).number("epoch")?;
        tx.commit().await?;
        self.fence.set(super::number(epoch));
        Ok(Some(epoch))
    }

    /// Has the lease end later; `false` if it is another one's by now. One that has ended and that nobody has taken since
    /// goes on.
    pub async fn renew_lead(&self, epoch: u64, lease: Duration) -> Result<bool> {
        let now = self.dialect().now_ms();
        let done = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE leader SET expires_at = {now} + $2 WHERE id = 1 AND epoch = $1"
        )))
        .bind(super::number(epoch))
        .bind(milliseconds(lease))
        // Not behind the writers: a long transaction is no reason to lose the lease.
        .execute(&self.readers)
        .await?;
        let held = done.rows_affected() == 1;
        if !held {
            self.fence.set(NOT_HELD);
        }
        Ok(held)
    }

    /// Writes nothing for the fleet any more.
    pub fn lay_down_lead(&self) {
        if self.fence.get() != ALONE {
            self.fence.set(NOT_HELD);
        }
    }

    /// Lets another server take the lease at once.
    pub async fn give_up_lead(&self, epoch: u64) -> Result<()> {
        self.lay_down_lead();
        sqlx::query("UPDATE leader SET expires_at = 0 WHERE id = 1 AND epoch = $1")
            .bind(super::number(epoch))
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    /// Who took the lease last; nobody before the first.
    pub async fn holder(&self) -> Result<Option<Holder>> {
        let now = self.dialect().now_ms();
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT holder, epoch, embedded, CASE WHEN expires_at > {now} THEN 1 ELSE 0 END AS holds \
             FROM leader WHERE id = 1 AND epoch > 0"
        )))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = &row else { return Ok(None) };
        let row = Reader::new("leader", row);
        Ok(Some(Holder {
            name: row.text("holder")?,
            epoch: row.number("epoch")?,
            embedded: row.flag("embedded")?,
            holds: row.flag("holds")?,
        }))
    }
}

fn milliseconds(lease: Duration) -> i64 {
    i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    const LONG: Duration = Duration::from_secs(3600);
    const OVER: Duration = Duration::ZERO;

    #[tokio::test]
    async fn of_two_servers_one_has_the_lease_and_the_other_gets_it_when_it_is_given_up_or_ends() {
        for database in testing::databases().await {
            let (folder, one) = testing::open_without_lead(&database).await;
            let two = testing::open_again(folder.path(), &database).await;
            assert_eq!(one.holder().await.unwrap(), None);
            assert_eq!(one.take_lead("one", false, LONG).await.unwrap(), Some(1));
            assert_eq!(two.take_lead("two", false, LONG).await.unwrap(), None);
            let holder = two.holder().await.unwrap().unwrap();
            assert_eq!((holder.name.as_str(), holder.epoch, holder.holds), ("one", 1, true));
            one.give_up_lead(1).await.unwrap();
            assert_eq!(two.take_lead("two", true, LONG).await.unwrap(), Some(2));
            assert!(one.holder().await.unwrap().unwrap().embedded);
            assert!(!one.renew_lead(1, LONG).await.unwrap(), "it is another one's");
            assert!(two.renew_lead(2, OVER).await.unwrap());
            assert_eq!(one.take_lead("one", false, LONG).await.unwrap(), Some(3), "it has ended");
        }
    }

    #[tokio::test]
    async fn a_lease_that_nobody_took_goes_on_after_its_end() {
        for database in testing::databases().await {
            let (_folder, store) = testing::open_without_lead(&database).await;
            assert_eq!(store.take_lead("one", false, OVER).await.unwrap(), Some(1));
            assert!(!store.holder().await.unwrap().unwrap().holds);
            assert!(store.renew_lead(1, LONG).await.unwrap());
            assert!(store.leads() && store.holder().await.unwrap().unwrap().holds);
        }
    }

    #[tokio::test]
    async fn a_server_whose_lease_another_one_took_writes_nothing_for_the_fleet() {
        for database in testing::databases().await {
            let (folder, one) = testing::open_without_lead(&database).await;
            let two = testing::open_again(folder.path(), &database).await;
            one.take_lead("one", false, OVER).await.unwrap();
            one.begin_as_leader().await.unwrap().rollback().await.unwrap();
            two.take_lead("two", false, LONG).await.unwrap();
            assert!(matches!(one.begin_as_leader().await, Err(Error::NotLeader)));
            assert!(!one.leads() && two.leads());
            // What it is asked for by people it still does.
            one.begin().await.unwrap().rollback().await.unwrap();
        }
    }

    #[tokio::test]
    async fn nobody_takes_the_lease_while_its_holder_writes() {
        let Some(database) =
            testing::databases().await.into_iter().find(super::super::database::Database::is_shared)
        else {
            return;
        };
        let (folder, one) = testing::open_without_lead(&database).await;
        let two = testing::open_again(folder.path(), &database).await;
        one.take_lead("one", false, OVER).await.unwrap();
        let tx = one.begin_as_leader().await.unwrap();
        let mut take = Box::pin(two.take_lead("two", false, LONG));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut take).await;
        assert!(early.is_err(), "taken in the middle of a transaction");
        tx.commit().await.unwrap();
        assert_eq!(take.await.unwrap(), Some(2));
    }
}
