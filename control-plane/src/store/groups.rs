//! Groups of devices, and settings of the fleet.

use super::{Error, Page, Reader, Result, Store, json, time};
use control_core::entity::{Group, Selector};
use serde::{Serialize, de::DeserializeOwned};
use shared::{DeviceId, Timestamp};
use sqlx::any::AnyRow;
use std::collections::BTreeMap;

/// Most groups of a fleet.
pub const GROUPS_MAX: u64 = 1000;

/// Devices with their labels.
pub type Labelled = Vec<(DeviceId, BTreeMap<String, String>)>;

fn read(row: &AnyRow) -> Result<Group> {
    let row = Reader::new("device_groups", row);
    Ok(Group {
        name: row.text("name")?,
        selector: row.json("selector", "selector")?,
        devices: 0,
        created_at: row.time("created_at")?,
    })
}

impl Store {
    /// Groups by name; nobody has counted their devices.
    pub async fn groups(&self, page: &Page) -> Result<Vec<Group>> {
        let rows = sqlx::query("SELECT * FROM device_groups WHERE name > $1 ORDER BY name LIMIT $2")
            .bind(page.after())
            .bind(page.sql_limit())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// One group; nobody has counted its devices.
    pub async fn group(&self, name: &str) -> Result<Option<Group>> {
        let row = sqlx::query("SELECT * FROM device_groups WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Adds a group. A name that is taken is a conflict, and so is one group too many.
    pub async fn add_group(&self, name: &str, selector: &Selector, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        let added = sqlx::query(
            "INSERT INTO device_groups (name, selector, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(name)
        .bind(json(selector)?)
        .bind(time(now))
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() == 0 {
            return Err(Error::Conflict(format!("there is a group {name:?} already")));
        }
        let row = sqlx::query("SELECT count(*) AS number FROM device_groups").fetch_one(&mut *tx).await?;
        if Reader::new("device_groups", &row).number("number")? > GROUPS_MAX {
            return Err(Error::Conflict(format!("there are {GROUPS_MAX} groups, which is the most")));
        }
        Ok(tx.commit().await?)
    }

    /// Has a group name other devices; `false` if there is none of that name.
    pub async fn replace_group(&self, name: &str, selector: &Selector) -> Result<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query("UPDATE device_groups SET selector = $2 WHERE name = $1")
            .bind(name)
            .bind(json(selector)?)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes a group; `false` if there is none of that name.
    pub async fn remove_group(&self, name: &str) -> Result<bool> {
        let mut tx = self.begin().await?;
        let done =
            sqlx::query("DELETE FROM device_groups WHERE name = $1").bind(name).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Devices that are not revoked, by id, with their labels.
    pub async fn labelled_devices(&self) -> Result<Labelled> {
        let rows = sqlx::query("SELECT id, labels FROM devices WHERE revoked_at IS NULL ORDER BY id")
            .fetch_all(&self.readers)
            .await?;
        Reader::each("devices", &rows, |row| {
            Ok((row.parse("id", "device id")?, row.json("labels", "labels")?))
        })
    }

    /// A setting of the fleet.
    pub async fn setting<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>> {
        let row = sqlx::query("SELECT value FROM fleet_settings WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(|row| Reader::new("fleet_settings", row).json("value", name)).transpose()
    }

    /// Changes a setting of the fleet.
    pub async fn set_setting<T: Serialize + Sync>(&self, name: &'static str, value: &T) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO fleet_settings (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(json(value)?)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::stores;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    #[tokio::test]
    async fn a_group_is_there_once_until_it_is_removed() {
        for (_folder, store) in stores().await {
            let selector =
                Selector { labels: [("site".to_owned(), "ulm".to_owned())].into(), ..Selector::default() };
            store.add_group("ulm", &selector, NOW).await.unwrap();
            let taken = store.add_group("ulm", &selector, NOW).await.unwrap_err();
            assert_eq!(taken.to_string(), "there is a group \"ulm\" already");
            assert!(store.replace_group("ulm", &Selector::default()).await.unwrap());
            assert!(!store.replace_group("bonn", &selector).await.unwrap());
            let kept = store.group("ulm").await.unwrap().unwrap();
            assert_eq!((kept.selector, kept.created_at), (Selector::default(), NOW));
            assert_eq!(store.groups(&Page::default()).await.unwrap().len(), 1);
            assert!(store.remove_group("ulm").await.unwrap());
            assert!(!store.remove_group("ulm").await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_setting_is_what_it_was_set_to_last() {
        for (_folder, store) in stores().await {
            assert_eq!(store.setting::<u64>("horizon").await.unwrap(), None);
            for value in [7u64, 9] {
                store.set_setting("horizon", &value).await.unwrap();
            }
            assert_eq!(store.setting::<u64>("horizon").await.unwrap(), Some(9));
        }
    }
}
