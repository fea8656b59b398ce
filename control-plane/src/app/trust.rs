//! The model repository at work: kept fresh, told to devices, and asked before a version goes out.

use super::{App, Error, Result, chain, now};
use crate::{
    repository::{self, Ceremony, Folder, KeyFolder, OfflineRole, Repository, sign_all},
    signer::Signer,
};
use control_core::entity::Version;
use serde::{Deserialize, Serialize};
use shared::{
    Digest, Timestamp,
    signing::PublicKey,
    topic::{Topic, TrustFile},
};
use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    ops::Deref,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Mutex, MutexGuard};
use trust::{
    author::{Document, Keys, Target, Targets},
    catalogue::model_path,
};

/// How often the metadata's age is looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(600);
/// Offline metadata that ends within this is told to the operator.
const WARN_BEFORE_MS: u64 = 30 * 86_400_000;
/// Locked while the metadata is changed, where several servers work on it.
const LOCK_FILE: &str = "lock";
/// How often a server looks whether another one has done with it, and for how long.
const LOCK_PERIOD: Duration = Duration::from_millis(5);
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// Keys that the first start makes where nobody has held a ceremony.
const KEYS_MADE: usize = 1;

/// The repository, its files, and what the broker has of it.
#[derive(Debug)]
pub struct Trust {
    folder: Folder,
    /// Offline keys that are within reach of this server, if any.
    offline: KeyFolder,
    repository: Mutex<Repository>,
    /// Other servers write the folder too: it is read again each time, under a lock on it.
    shared: bool,
    told: Mutex<BTreeMap<TrustFile, Digest>>,
}

/// The repository while it is used.
struct Held<'a> {
    repository: MutexGuard<'a, Repository>,
    _lock: Option<File>,
}

impl Deref for Held<'_> {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repository
    }
}

/// One role as `edgewright trust status` shows it.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RoleStatus {
    pub role: String,
    pub version: u64,
    pub expires: Timestamp,
    pub threshold: u32,
    pub keys: Vec<PublicKey>,
}

/// The state of trust.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TrustStatus {
    pub roles: Vec<RoleStatus>,
    /// Versions that are vouched for, as in `models/mnist/v1.0`.
    pub targets: Vec<String>,
    /// Keys of the targets are on this server: it signs by itself. Move them away to have the last word.
    pub automatic: bool,
    /// Where those keys are, or would be.
    pub offline_keys: String,
    /// What should be done soon.
    pub warnings: Vec<String>,
}

/// Metadata as files, by the names that TUF gives them.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Metadata {
    pub files: BTreeMap<String, serde_json::Value>,
}

/// Signed metadata of an offline role.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMetadata {
    pub role: String,
    pub document: serde_json::Value,
}

/// What a version needs to be vouched for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Vouching {
    pub path: String,
    pub length: u64,
    pub sha256: Digest,
}

/// What an offline key has to sign to vouch for `version`.
pub fn vouching(version: &Version) -> Vouching {
    Vouching {
        path: model_path(&version.model, version.version),
        length: version.bundle_bytes,
        sha256: version.bundle,
    }
}

impl Trust {
    /// The repository under `data`. Where there is none, one is founded with offline keys of its own, kept in
    /// `data/keys/offline`: the server then vouches for everything by itself until they are moved away.
    pub fn open(data: &Path, signer: &Signer, now: Timestamp) -> Result<Self> {
        let folder = Folder::at(data.join("trust"));
        let offline = KeyFolder::at(data.join("keys/offline"));
        let repository = match folder.read()? {
            Some(repository) => repository,
            None => {
                let repository = found(&offline, KEYS_MADE, 1, signer, now)?;
                folder.write(&repository)?;
                tracing::warn!(
                    "the keys that vouch for models were made in {}; move them to a safe place and sign with \
                     `edgewright trust sign --keys`",
                    offline.path().display()
                );
                repository
            }
        };
        let repository = match repository.renewed(&signer.online(), now) {
            Ok(Some(renewed)) => {
                folder.write(&renewed)?;
                renewed
            }
            Ok(None) => repository,
            // As when the offline keys have not signed for a year: the server starts, so that they can.
            Err(error) => {
                tracing::error!("trust metadata is not renewed: {}", chain(&error));
                repository
            }
        };
        Ok(Self {
            folder,
            offline,
            repository: Mutex::new(repository),
            shared: false,
            told: Mutex::default(),
        })
    }

    /// The same where other servers work on the folder.
    pub fn shared(self, shared: bool) -> Self {
        Self { shared, ..self }
    }

    /// The repository as it is, for nobody else until it is dropped.
    async fn repository(&self) -> Result<Held<'_>> {
        let mut repository = self.repository.lock().await;
        if !self.shared {
            return Ok(Held { repository, _lock: None });
        }
        let lock = self.folder_lock().await?;
        if let Some(newest) = self.folder.read()? {
            *repository = newest;
        }
        Ok(Held { repository, _lock: Some(lock) })
    }

    async fn folder_lock(&self) -> Result<File> {
        let path = self.folder.path().join(LOCK_FILE);
        let failed =
            |error: &dyn std::error::Error| Error::Internal(format!("{}: {}", path.display(), chain(error)));
        let file = File::create(&path).map_err(|error| failed(&error))?;
        let look = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PERIOD).await,
                    Err(TryLockError::Error(error)) => return Err(failed(&error)),
                }
            }
        };
        match tokio::time::timeout(LOCK_LIMIT, look).await {
            Ok(locked) => locked.map(|()| file),
            Err(_) => Err(Error::Unavailable("another server keeps the trust metadata locked".to_owned())),
        }
    }
}

/// Founds a repository: `count` keys each for root and targets are made in `offline`, `threshold` of which must sign.
///
/// # Errors
/// Keys that cannot be written, or that do not add up to the threshold.
pub fn found(
    offline: &KeyFolder,
    count: usize,
    threshold: u32,
    signer: &Signer,
    now: Timestamp,
) -> Result<Repository> {
    let role_keys = |role: OfflineRole| {
        for _ in offline.keys(&role)?.len()..count {
            offline.make(&role)?;
        }
        Ok::<_, Error>(offline.keys(&role)?)
    };
    let (root, targets) = (role_keys(OfflineRole::Root)?, role_keys(OfflineRole::Targets)?);
    let public = |keys: &[shared::signing::SigningKey]| Keys {
        threshold,
        keys: keys.iter().map(|key| key.public().clone()).collect(),
    };
    let online = signer.online();
    let ceremony = Ceremony {
        root: public(&root),
        targets: public(&targets),
        snapshot: online.snapshot.public().clone(),
        timestamp: online.timestamp.public().clone(),
    };
    let (mut first_root, mut first_targets) = Repository::draft(&ceremony, &signer.keyring(), now);
    sign_all(&mut first_root, &root, "root")?;
    sign_all(&mut first_targets, &targets, "targets")?;
    Ok(Repository::found(first_root, first_targets, &online, now)?)
}

impl App {
    /// The first root, which devices are given when they enrol.
    pub async fn root_metadata(&self) -> Vec<u8> {
        // The first one stays the first, whoever writes others.
        self.trust.repository.lock().await.first_root().to_bytes()
    }

    /// All metadata.
    pub async fn trust_metadata(&self) -> Result<Metadata> {
        let files = self.trust.repository().await?.files();
        let parsed = files.into_iter().map(|(name, bytes)| Ok((name, serde_json::from_slice(&bytes)?)));
        let files = parsed.collect::<std::result::Result<_, serde_json::Error>>();
        Ok(Metadata { files: files.map_err(|error| internal(&error))? })
    }

    /// What is in force, and what should be done.
    pub async fn trust_status(&self) -> Result<TrustStatus> {
        let repository = self.trust.repository().await?;
        let (root, targets) = (repository.root()?, repository.targets()?);
        let keys_of = |role: &str| match role {
            "root" => Some(&root.root),
            "targets" => Some(&root.targets),
            "snapshot" => Some(&root.snapshot),
            "timestamp" => Some(&root.timestamp),
            team => targets.delegations.iter().find(|has| has.name.as_str() == team).map(|has| &has.keys),
        };
        let roles: Vec<RoleStatus> = repository
            .documents()
            .map(|(role, document)| {
                let keys = keys_of(&role);
                RoleStatus {
                    version: document.version(),
                    expires: document.expires(),
                    threshold: keys.map_or(0, |keys| keys.threshold),
                    keys: keys.map_or_else(Vec::new, |keys| keys.keys.clone()),
                    role,
                }
            })
            .collect();
        let mut warnings: Vec<String> = roles
            .iter()
            .filter(|role| !matches!(role.role.as_str(), "snapshot" | "timestamp"))
            .filter(|role| role.expires.0 < now().0.saturating_add(WARN_BEFORE_MS))
            .map(|role| {
                format!(
                    "{} ends soon: sign it again with `edgewright trust sign --role {}`",
                    role.role, role.role
                )
            })
            .collect();
        let automatic = self.signs_by_itself(&root.targets)?;
        if automatic {
            warnings.push(format!(
                "the offline keys are on this server, in {}; move them away to keep the last word on what devices run",
                self.trust.offline.path().display()
            ));
        }
        let mut paths: Vec<String> = targets.targets.into_keys().collect();
        for delegation in &targets.delegations {
            let team = repository.delegated(&delegation.name)?;
            paths.extend(team.into_iter().flat_map(|team| team.targets.into_keys()));
        }
        Ok(TrustStatus {
            roles,
            targets: paths.into_iter().filter(|path| path.starts_with("models/")).collect(),
            automatic,
            offline_keys: self.trust.offline.path().display().to_string(),
            warnings,
        })
    }

    /// Takes metadata that offline keys have signed, and tells the devices.
    pub async fn accept_trust(&self, new: NewMetadata) -> Result<TrustStatus> {
        let role: OfflineRole = new.role.parse().map_err(Error::Invalid)?;
        let bytes = serde_json::to_vec(&new.document).map_err(|error| internal(&error))?;
        let document = Document::parse(&bytes)
            .map_err(|error| Error::Invalid(format!("this is no metadata: {error}")))?;
        {
            let mut repository = self.trust.repository().await?;
            let next = repository.accept(&role, document, &self.signer.online(), now()).map_err(|error| {
                self.note_refusal("trust", "metadata_refused", &chain(&error));
                refused(&error)
            })?;
            self.put(&mut repository, next)?;
        }
        self.publish_trust().await;
        self.trust_status().await
    }

    /// Makes sure that the offline keys vouch for `version` before it goes out.
    ///
    /// # Errors
    /// They do not, and are not here to do so now.
    pub async fn vouch(&self, version: &Version) -> Result<()> {
        let wanted = vouching(version);
        {
            let mut repository = self.trust.repository().await?;
            let found = repository.find(&wanted.path, now())?;
            if found.is_some_and(|found| found.sha256 == wanted.sha256) {
                return Ok(());
            }
            let target = Target { length: wanted.length, sha256: wanted.sha256, custom: None };
            let add = BTreeMap::from([(wanted.path, target)]);
            if !self.sign_targets(&mut repository, add, &[])? {
                return Err(Error::Conflict(format!(
                    "nobody vouches for {0} yet; sign it with `edgewright trust sign --keys DIR {0}`",
                    version.name
                )));
            }
        }
        self.publish_trust().await;
        Ok(())
    }

    /// Has devices that hold `version` take an older one again: it is vouched for no more.
    ///
    /// # Errors
    /// The offline keys are not here.
    pub async fn withdraw(&self, version: &Version) -> Result<()> {
        let path = model_path(&version.model, version.version);
        {
            let mut repository = self.trust.repository().await?;
            if repository.find(&path, now())?.is_none() {
                return Ok(());
            }
            let by_targets = repository.targets()?.targets.contains_key(&path);
            if !by_targets || !self.sign_targets(&mut repository, BTreeMap::new(), &[path])? {
                return Err(Error::Conflict(format!(
                    "{0} is still vouched for, so devices that have it go back to no older version; withdraw it with \
                     `edgewright trust sign --keys DIR --withdraw {0}`",
                    version.name
                )));
            }
        }
        self.publish_trust().await;
        Ok(())
    }

    /// Signs the next targets with the keys that are here; `false` where they are not enough.
    fn sign_targets(
        &self,
        repository: &mut Held<'_>,
        add: BTreeMap<String, Target>,
        remove: &[String],
    ) -> Result<bool> {
        let root = repository.root()?;
        if !self.signs_by_itself(&root.targets)? {
            return Ok(false);
        }
        let role = OfflineRole::Targets;
        let now = now();
        let next: Targets = repository.next_targets(&role, add, remove, now)?;
        let mut document = Document::of_targets(&next);
        let keys = self.trust.offline.keys(&role)?;
        sign_all(&mut document, &keys, "targets")?;
        let next = repository.accept(&role, document, &self.signer.online(), now)?;
        self.put(repository, next)?;
        Ok(true)
    }

    /// Are keys of the targets on this server, as many as have to sign?
    pub(super) async fn vouches_by_itself(&self) -> Result<bool> {
        let root = self.trust.repository().await?.root()?;
        self.signs_by_itself(&root.targets)
    }

    fn signs_by_itself(&self, keys: &Keys) -> Result<bool> {
        let here = self.trust.offline.keys(&OfflineRole::Targets)?;
        let of_them = here.iter().filter(|key| keys.keys.contains(key.public())).count();
        Ok(of_them >= keys.threshold as usize)
    }

    fn put(&self, repository: &mut Held<'_>, next: Repository) -> Result<()> {
        self.trust.folder.write(&next)?;
        self.trust.folder.forget_others(&next)?;
        *repository.repository = next;
        Ok(())
    }

    /// The broker may have lost what it had.
    pub(super) async fn forget_told_trust(&self) {
        self.trust.told.lock().await.clear();
    }

    /// Publishes what the broker does not have, the timestamp last: who hears it can have the rest. What fails is
    /// tried again by the next call; `false` where a broker that is there does not have everything.
    pub async fn publish_trust(&self) -> bool {
        let Some(broker) = self.broker() else { return true };
        // Held to the end: older metadata never overtakes newer.
        let mut told = self.trust.told.lock().await;
        let files = match self.trust.repository().await {
            Ok(repository) => repository.files(),
            Err(error) => {
                tracing::error!("trust metadata cannot be read: {}", chain(&error));
                return false;
            }
        };
        let files: BTreeMap<TrustFile, Vec<u8>> =
            files.into_iter().filter_map(|(name, bytes)| Some((TrustFile::of_file(&name)?, bytes))).collect();
        let mut all = true;
        for (file, bytes) in files {
            let digest = Digest::of(&bytes);
            if told.get(&file) == Some(&digest) {
                continue;
            }
            if !broker.is_connected() {
                // It is told everything when it is back.
                return true;
            }
            match broker.publish(&Topic::Trust(file.clone()), bytes.into(), true).await {
                Ok(()) => {
                    told.insert(file, digest);
                }
                Err(error) => {
                    tracing::error!("trust metadata does not reach the devices: {}", chain(&error));
                    all = false;
                }
            }
        }
        all
    }

    /// Keeps the online metadata fresh until the application stops.
    pub async fn run_trust(self: Arc<Self>) {
        loop {
            if let Err(error) = self.renew_trust().await {
                tracing::error!("trust metadata is not renewed: {}", chain(&error));
            }
            self.publish_trust().await;
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD) => {}
                () = self.stopped() => return,
            }
        }
    }

    async fn renew_trust(&self) -> Result<()> {
        let mut repository = self.trust.repository().await?;
        if let Some(next) = repository.renewed(&self.signer.online(), now())? {
            self.put(&mut repository, next)?;
        }
        Ok(())
    }
}

fn refused(error: &repository::Error) -> Error {
    use repository::Error as Repository;
    match error {
        Repository::Version { .. } => Error::Conflict(error.to_string()),
        Repository::Malformed { .. } | Repository::Refused { .. } => Error::Invalid(chain(error)),
        Repository::Sign { .. } => Error::Internal(chain(error)),
    }
}

fn internal(error: &dyn std::error::Error) -> Error {
    Error::Internal(chain(error))
}

impl From<repository::Error> for Error {
    fn from(error: repository::Error) -> Self {
        internal(&error)
    }
}

impl From<repository::FileError> for Error {
    fn from(error: repository::FileError) -> Self {
        internal(&error)
    }
}

impl From<repository::KeyError> for Error {
    fn from(error: repository::KeyError) -> Self {
        internal(&error)
    }
}

#[cfg(test)]
mod tests;
