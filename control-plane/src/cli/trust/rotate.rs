//! `edgewright trust rotate`: the next root or targets, with other keys, written to the folder of a stopped server.

mod online;

pub(in crate::cli) use online::settle;

use super::{failed, locked, open_signer, sign_with, usage};
use crate::{
    app::now,
    cli::{Failure, Outcome, output::show},
    repository::{Folder, KeyFolder, OfflineRole, Repository, sign_all},
    signer::{Online, Signer},
};
use clap::{Args, ValueEnum};
use online::{OnlineKey, OnlineRole};
use shared::{
    Timestamp,
    signing::{PublicKey, Role, SigningKey, TrustedKey},
};
use std::{collections::BTreeMap, path::PathBuf};
use trust::{
    author::{Document, Keys},
    catalogue::{key_path, key_target},
};

/// A role whose keys are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rotated {
    Root,
    Targets,
    Snapshot,
    Timestamp,
    Director,
    Release,
}

/// How keys are replaced.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Whose keys
    role: Rotated,
    /// Data folder of the stopped server
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of the offline keys that are in force
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Folder that the new keys of root or targets are made in
    #[arg(long, value_name = "DIR")]
    new_keys: Option<PathBuf>,
}

/// What a rotation begins from.
struct Before {
    repository: Repository,
    signer: Signer,
    offline: KeyFolder,
    now: Timestamp,
}

pub(super) fn run(args: &RotateArgs, json: bool) -> Outcome {
    let _lock = locked(&args.data)?;
    let rotation = Rotation::prepare(args)?;
    rotation.write()?;
    rotation.end()?;
    let name = format!("{:?}", args.role).to_lowercase();
    show(json, &serde_json::json!({ "rotated": name }), |_| {
        format!("the keys of {name} are new; start the server: devices hear of it when they connect")
    })
}

/// What is about to change. A crash after [`Rotation::write`] is put right by [`settle`].
struct Rotation {
    folder: Folder,
    next: Repository,
    /// Where the key is the server's.
    online_key: Option<OnlineKey>,
}

impl Rotation {
    /// Makes the new keys, and signs what names them.
    fn prepare(args: &RotateArgs) -> Result<Self, Failure> {
        let folder = Folder::at(args.data.join("trust"));
        let repository = folder.read().map_err(|error| usage(&error))?.ok_or_else(|| {
            Failure::Usage(format!(
                "{} has no model repository; see `edgewright trust init`",
                args.data.display()
            ))
        })?;
        let signer = open_signer(&args.data)?;
        let before = Before { repository, signer, offline: KeyFolder::at(&args.keys), now: now() };
        let role = match args.role {
            Rotated::Root => {
                let next = before.with_root_keys(&new_keys(args)?)?;
                return Ok(Self { folder, next, online_key: None });
            }
            Rotated::Targets => {
                let next = before.with_targets_keys(&new_keys(args)?)?;
                return Ok(Self { folder, next, online_key: None });
            }
            Rotated::Snapshot => OnlineRole::Snapshot,
            Rotated::Timestamp => OnlineRole::Timestamp,
            Rotated::Director => OnlineRole::Director,
            Rotated::Release => OnlineRole::Release,
        };
        let key = OnlineKey::make(&args.data, role)?;
        Ok(Self { folder, next: before.with_online_key(role, &key.key)?, online_key: Some(key) })
    }

    /// From here on the new keys count.
    fn write(&self) -> Outcome {
        self.folder.write(&self.next).map_err(|error| failed(&error))
    }

    fn end(&self) -> Outcome {
        self.online_key.as_ref().map_or(Ok(()), OnlineKey::put_in_place)
    }
}

fn new_keys(args: &RotateArgs) -> Result<KeyFolder, Failure> {
    let folder = args.new_keys.as_ref();
    let folder = folder
        .ok_or_else(|| Failure::Usage("give --new-keys DIR, where the new keys are made".to_owned()))?;
    Ok(KeyFolder::at(folder))
}

impl Before {
    /// Signed by the old keys and by the new.
    fn with_root_keys(&self, folder: &KeyFolder) -> Result<Repository, Failure> {
        let mut root = self.repository.next_root(self.now).map_err(|error| failed(&error))?;
        let (made, keys) = make_keys(folder, &OfflineRole::Root, &root.root)?;
        root.root = keys;
        let mut document = Document::of_root(&root);
        sign_with(&mut document, &self.offline, &OfflineRole::Root)?;
        sign_all(&mut document, &made, "root").map_err(|error| failed(&error))?;
        self.accept(document, None, &self.signer.online())
    }

    /// The root names the new keys, which sign the targets anew.
    fn with_targets_keys(&self, folder: &KeyFolder) -> Result<Repository, Failure> {
        let mut root = self.repository.next_root(self.now).map_err(|error| failed(&error))?;
        let (made, keys) = make_keys(folder, &OfflineRole::Targets, &root.targets)?;
        root.targets = keys;
        let mut document = Document::of_root(&root);
        sign_with(&mut document, &self.offline, &OfflineRole::Root)?;
        let next = self.repository.next_targets(&OfflineRole::Targets, BTreeMap::new(), &[], self.now);
        let mut targets = Document::of_targets(&next.map_err(|error| failed(&error))?);
        sign_all(&mut targets, &made, "targets").map_err(|error| failed(&error))?;
        self.accept(document, Some(targets), &self.signer.online())
    }

    fn with_online_key(&self, role: OnlineRole, key: &SigningKey) -> Result<Repository, Failure> {
        let online = self.signer.online();
        match role {
            OnlineRole::Snapshot => self.with_signer(Online { snapshot: key, ..online }),
            OnlineRole::Timestamp => self.with_signer(Online { timestamp: key, ..online }),
            OnlineRole::Director => self.with_trusted_key(Role::Director, key),
            OnlineRole::Release => self.with_trusted_key(Role::Release, key),
        }
    }

    /// The root names what signs snapshot and timestamp from now on.
    fn with_signer(&self, online: Online<'_>) -> Result<Repository, Failure> {
        let mut root = self.repository.next_root(self.now).map_err(|error| failed(&error))?;
        let one = |key: &PublicKey| Keys { threshold: 1, keys: vec![key.clone()] };
        root.snapshot = one(online.snapshot.public());
        root.timestamp = one(online.timestamp.public());
        let mut document = Document::of_root(&root);
        sign_with(&mut document, &self.offline, &OfflineRole::Root)?;
        self.accept(document, None, &online)
    }

    /// The targets vouch for the new key in place of the old.
    fn with_trusted_key(&self, role: Role, key: &SigningKey) -> Result<Repository, Failure> {
        let new = TrustedKey { role, key: key.public().clone() };
        let old = self.signer.keyring();
        let remove: Vec<String> = old.keys().iter().filter(|key| key.role == role).map(key_path).collect();
        let add = BTreeMap::from([(key_path(&new), key_target(&new))]);
        let targets = self.repository.next_targets(&OfflineRole::Targets, add, &remove, self.now);
        let mut document = Document::of_targets(&targets.map_err(|error| failed(&error))?);
        sign_with(&mut document, &self.offline, &OfflineRole::Targets)?;
        let accepted =
            self.repository.accept(&OfflineRole::Targets, document, &self.signer.online(), self.now);
        accepted.map_err(|error| failed(&error))
    }

    fn accept(
        &self,
        root: Document,
        targets: Option<Document>,
        online: &Online<'_>,
    ) -> Result<Repository, Failure> {
        self.repository.accept_rotation(root, targets, online, self.now).map_err(|error| failed(&error))
    }
}

/// As many keys as there were, and as many of them that have to sign.
fn make_keys(
    folder: &KeyFolder,
    role: &OfflineRole,
    before: &Keys,
) -> Result<(Vec<SigningKey>, Keys), Failure> {
    for _ in 0..before.keys.len() {
        folder.make(role).map_err(|error| failed(&error))?;
    }
    let mut made = folder.keys(role).map_err(|error| failed(&error))?;
    made.retain(|key| !before.keys.contains(key.public()));
    let keys = made.iter().map(|key| key.public().clone()).collect();
    Ok((made, Keys { threshold: before.threshold, keys }))
}

#[cfg(test)]
mod tests;
