//! `edgewright trust rotate`: the next root or targets, with other keys, written to the folder of a stopped server.

use super::{failed, locked, open_signer, sign_with, usage};
use crate::{
    app::now,
    cli::{Failure, Outcome, output::show},
    repository::{Folder, KeyFolder, OfflineRole, Online, Repository, sign_all},
    signer::{self, Signer},
};
use clap::{Args, ValueEnum};
use shared::{
    Timestamp,
    signing::{PublicKey, Role, SigningKey, TrustedKey},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use trust::{
    author::{Document, Keys},
    catalogue::{key_path, key_target},
};
use zeroize::Zeroizing;

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
    let folder = Folder::at(args.data.join("trust"));
    let repository = folder.read().map_err(|error| usage(&error))?.ok_or_else(|| {
        Failure::Usage(format!(
            "{} has no model repository; see `edgewright trust init`",
            args.data.display()
        ))
    })?;
    let signer = open_signer(&args.data)?;
    let before = Before { repository, signer, offline: KeyFolder::at(&args.keys), now: now() };
    let name = format!("{:?}", args.role).to_lowercase();
    let (next, online_key) = match args.role {
        Rotated::Root => (before.with_root_keys(&new_keys(args)?)?, None),
        Rotated::Targets => (before.with_targets_keys(&new_keys(args)?)?, None),
        Rotated::Snapshot | Rotated::Timestamp | Rotated::Director | Rotated::Release => {
            let key = OnlineKey::make(&args.data, &name)?;
            (before.with_online_key(args.role, &key.key)?, Some(key))
        }
    };
    folder.write(&next).map_err(|error| failed(&error))?;
    if let Some(key) = online_key {
        if args.role == Rotated::Release {
            before.signer.retire_release_key().map_err(|error| failed(&error))?;
        }
        key.put_in_place()?;
    }
    show(json, &serde_json::json!({ "rotated": name }), |_| {
        format!("the keys of {name} are new; start the server: devices hear of it when they connect")
    })
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
        self.accept(document, None, &self.online())
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
        self.accept(document, Some(targets), &self.online())
    }

    fn with_online_key(&self, role: Rotated, key: &SigningKey) -> Result<Repository, Failure> {
        let online = self.online();
        match role {
            Rotated::Snapshot => self.with_signer(Online { snapshot: key, ..online }),
            Rotated::Timestamp => self.with_signer(Online { timestamp: key, ..online }),
            Rotated::Director => self.with_trusted_key(Role::Director, key),
            Rotated::Root | Rotated::Targets | Rotated::Release => self.with_trusted_key(Role::Release, key),
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
        let accepted = self.repository.accept(&OfflineRole::Targets, document, &self.online(), self.now);
        accepted.map_err(|error| failed(&error))
    }

    fn online(&self) -> Online<'_> {
        let (snapshot, timestamp) = self.signer.online();
        Online { snapshot, timestamp }
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

/// A new key of the server, beside the one in force until the metadata that names it is written.
struct OnlineKey {
    path: PathBuf,
    next: PathBuf,
    key: SigningKey,
}

impl OnlineKey {
    fn make(data: &Path, name: &str) -> Result<Self, Failure> {
        let path = data.join("keys").join(format!("{name}.pk8"));
        let next = path.with_extension("next.pk8");
        let bytes = Zeroizing::new(SigningKey::generate_pkcs8().map_err(|error| failed(&error))?);
        let key = SigningKey::from_pkcs8(&bytes).map_err(|error| failed(&error))?;
        signer::write(&next, &bytes).map_err(|error| failed(&error))?;
        Ok(Self { path, next, key })
    }

    /// The old key stays beside it.
    fn put_in_place(&self) -> Outcome {
        let old = self.path.with_extension(format!("{}.old", now().0));
        let moved = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|error| Failure::Failed(format!("{}: {error}", from.display())))
        };
        moved(&self.path, &old)?;
        moved(&self.next, &self.path)
    }
}
