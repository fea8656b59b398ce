//! Groups: devices under a name, by what a selector says of them.

use super::{App, Error, Page, Result, now, unknown};
use crate::store::Labelled;
use control_core::entity::{Group, Selector};
use serde::{Deserialize, Serialize};

/// Longest name of a group, label or value, in bytes.
const TEXT_BYTES_MAX: usize = 128;
/// Most devices that a group names one by one, and most labels.
const DEVICES_MAX: usize = 10_000;
const LABELS_MAX: usize = 16;

/// What a group shall be.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Letters, digits and `-_.`, beginning with a letter or digit.
    pub name: String,
    pub selector: Selector,
}

/// What a group's devices shall be.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeGroup {
    pub selector: Selector,
}

fn check_name(name: &str) -> Result<()> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = (1..=TEXT_BYTES_MAX).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(inner);
    if good {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "name {name:?} is no name of a group: 1 to {TEXT_BYTES_MAX} letters, digits and -_. beginning with a letter or digit"
    )))
}

fn check_selector(selector: &Selector) -> Result<()> {
    let invalid = |text: String| Err(Error::Invalid(text));
    if selector.devices.len() > DEVICES_MAX {
        return invalid(format!("selector.devices has {}, at most {DEVICES_MAX}", selector.devices.len()));
    }
    if selector.labels.len() > LABELS_MAX {
        return invalid(format!("selector.labels has {}, at most {LABELS_MAX}", selector.labels.len()));
    }
    for text in selector.labels.iter().flat_map(|(key, value)| [key, value]) {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.contains('\0') {
            return invalid(format!("selector.labels: {text:?} is not of 1 to {TEXT_BYTES_MAX} bytes"));
        }
    }
    Ok(())
}

fn counted(group: Group, devices: &Labelled) -> Group {
    let named = devices.iter().filter(|(id, labels)| group.selector.names(id, labels)).count();
    Group { devices: named as u64, ..group }
}

impl App {
    /// Groups by name.
    pub async fn groups(&self, page: &Page) -> Result<Vec<Group>> {
        let groups = self.store.groups(page).await?;
        let devices = self.store.labelled_devices().await?;
        Ok(groups.into_iter().map(|group| counted(group, &devices)).collect())
    }

    /// One group; the error names one that is near.
    pub async fn group(&self, name: &str) -> Result<Group> {
        // What is no name is none that is known, and PostgreSQL takes no NUL.
        let group = match check_name(name) {
            Ok(()) => self.store.group(name).await?,
            Err(_) => None,
        };
        match group {
            Some(group) => Ok(counted(group, &self.store.labelled_devices().await?)),
            None => Err(self.no_such_group(name).await?),
        }
    }

    /// Makes a group. One that no device is in is none that is wrong: devices may come.
    pub async fn create_group(&self, new: NewGroup) -> Result<Group> {
        check_name(&new.name)?;
        check_selector(&new.selector)?;
        self.store.add_group(&new.name, &new.selector, now()).await?;
        self.group(&new.name).await
    }

    /// Has a group name other devices. Rollouts that were made for it keep what it named then.
    pub async fn replace_group(&self, name: &str, change: ChangeGroup) -> Result<Group> {
        check_selector(&change.selector)?;
        let known = check_name(name).is_ok() && self.store.replace_group(name, &change.selector).await?;
        if known { self.group(name).await } else { Err(self.no_such_group(name).await?) }
    }

    /// Removes a group; its devices stay.
    pub async fn remove_group(&self, name: &str) -> Result<()> {
        let known = check_name(name).is_ok() && self.store.remove_group(name).await?;
        if known { Ok(()) } else { Err(self.no_such_group(name).await?) }
    }

    async fn no_such_group(&self, name: &str) -> Result<Error> {
        let known = self.store.groups(&Page::default()).await?;
        let names = known.iter().map(|group| group.name.as_str());
        Ok(Error::NotFound(unknown("group", name, names, "edgewright group list")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing;

    #[tokio::test]
    async fn a_group_counts_the_devices_that_it_names_at_the_moment() {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        for device in ["cam-01", "cam-02", "cam-03"] {
            testing::enrol(&app, device, "x86-64").await;
        }
        let site = |value: &str| [("site".to_owned(), value.to_owned())].into();
        app.label_device(&"cam-01".parse().unwrap(), site("ulm")).await.unwrap();
        let selector = Selector { labels: site("ulm"), ..Selector::default() };
        let made = app.create_group(NewGroup { name: "ulm".to_owned(), selector }).await.unwrap();
        assert_eq!(made.devices, 1);
        app.label_device(&"cam-02".parse().unwrap(), site("ulm")).await.unwrap();
        assert_eq!(app.group("ulm").await.unwrap().devices, 2);
        app.revoke_device(&"cam-02".parse().unwrap()).await.unwrap();
        assert_eq!(app.groups(&Page::default()).await.unwrap()[0].devices, 1);
        let all = ChangeGroup { selector: Selector::default() };
        assert_eq!(app.replace_group("ulm", all).await.unwrap().devices, 2);
        app.remove_group("ulm").await.unwrap();
        assert!(matches!(app.group("ulm").await, Err(Error::NotFound(_))));
    }

    #[tokio::test]
    async fn what_is_no_group_is_refused_with_what_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        for name in ["", "-a", "a b", "a/b", "ä", "a\0", &"a".repeat(129)] {
            let new = NewGroup { name: name.to_owned(), selector: Selector::default() };
            assert!(matches!(app.create_group(new).await, Err(Error::Invalid(_))), "{name:?}");
            assert!(matches!(app.group(name).await, Err(Error::NotFound(_))), "{name:?}");
        }
        let labels = [(String::new(), "x".to_owned())].into();
        let new = NewGroup { name: "a".to_owned(), selector: Selector { labels, ..Selector::default() } };
        let error = app.create_group(new).await.unwrap_err().to_string();
        assert!(error.contains("1 to 128 bytes"), "{error}");
    }
}
