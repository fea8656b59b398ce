//! The search for one target through the delegations.

use super::{Client, Error, Listed, Source, instant};
use shared::{Timestamp, id::TOP_LEVEL_ROLES};
use sigstore_tuf::{TrustedMetadataSet, metadata::Role};
use std::collections::{BTreeSet, VecDeque};

impl Client {
    /// What is known of the target at `path` with whatever hashes it is listed, by the first role on the way that
    /// lists it: depth first, in the order of the delegations, each role once, at most
    /// [`Limits::roles`](super::Limits::roles) of them (5.6.7).
    ///
    /// # Errors
    /// As [`Client::refresh`], which has to have succeeded.
    pub fn find(&mut self, path: &str, source: &dyn Source, now: Timestamp) -> Result<Option<Listed>, Error> {
        let now = instant(now);
        self.check_complete(now)?;
        // Delegated roles enter a copy, so that each search checks them against the roles that lead to them.
        let mut set = self.set.clone();
        let mut seen = BTreeSet::new();
        let mut ahead = VecDeque::from([("targets".to_owned(), String::new())]);
        while let Some((role, by)) = ahead.pop_front() {
            if seen.contains(&role) {
                continue;
            }
            if seen.len() >= self.limits.roles {
                break;
            }
            if role != "targets" && !self.enter(&mut set, &role, &by, source, now)? {
                continue;
            }
            let targets = set.targets_role(&role).ok_or(Error::Incomplete)?;
            if let Some(target) = targets.target(path) {
                return Ok(Some(Listed::of(target)));
            }
            let delegated = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
            let mut next = Vec::new();
            for delegation in
                delegated.filter(|delegation| !TOP_LEVEL_ROLES.contains(&delegation.name.as_str()))
            {
                if delegation.matches_path(path).map_err(|error| Error::of(&role, error))? {
                    next.push((delegation.name.clone(), role.clone()));
                    if delegation.terminating {
                        ahead.clear();
                        break;
                    }
                }
            }
            for child in next.into_iter().rev() {
                ahead.push_front(child);
            }
            seen.insert(role);
        }
        Ok(None)
    }

    /// Takes in the metadata of every delegated role that `source` has, to be kept with the rest; what it does not have,
    /// or what does not fit, is left for later.
    ///
    /// # Errors
    /// A refresh has not succeeded, or what it brought has expired.
    pub fn keep_delegated(&mut self, source: &dyn Source, now: Timestamp) -> Result<(), Error> {
        let now = instant(now);
        self.check_complete(now)?;
        let mut set = self.set.clone();
        let mut seen = BTreeSet::new();
        let mut ahead = VecDeque::from([("targets".to_owned(), String::new())]);
        while let Some((role, by)) = ahead.pop_front() {
            if seen.len() >= self.limits.roles || !seen.insert(role.clone()) {
                continue;
            }
            if role != "targets" && !matches!(self.enter(&mut set, &role, &by, source, now), Ok(true)) {
                continue;
            }
            let targets = set.targets_role(&role).ok_or(Error::Incomplete)?;
            let delegated = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
            let names = delegated.map(|delegation| &delegation.name);
            let names = names.filter(|name| !TOP_LEVEL_ROLES.contains(&name.as_str()));
            ahead.extend(names.map(|name| (name.clone(), role.clone())));
        }
        Ok(())
    }

    /// Does the repository put hashes into the names of targets?
    pub fn consistent_snapshot(&self) -> bool {
        self.set.root().consistent_snapshot
    }

    /// Takes the metadata of a delegated role in, kept or fetched; `false` where the snapshot does not name it.
    fn enter(
        &mut self,
        set: &mut TrustedMetadataSet,
        role: &str,
        by: &str,
        source: &dyn Source,
        now: jiff::Timestamp,
    ) -> Result<bool, Error> {
        let Some(pin) = self.pin(&format!("{role}.json")) else { return Ok(false) };
        let kept = self.accepted.delegated.get(role);
        if kept.is_some_and(|kept| set.update_delegated_targets(kept, role, by, now).is_ok()) {
            return Ok(true);
        }
        let bytes = self.fetch(source, role, &pin, self.limits.targets_bytes)?;
        set.update_delegated_targets(&bytes, role, by, now).map_err(|error| Error::of(role, error))?;
        let delegated = &mut self.accepted.delegated;
        if delegated.len() < self.limits.roles || delegated.contains_key(role) {
            delegated.insert(role.to_owned(), bytes);
        }
        Ok(true)
    }

    /// Targets count while the whole chain above them is in force and fits together, which a refresh that was cut
    /// short may have changed.
    fn check_complete(&self, now: jiff::Timestamp) -> Result<(), Error> {
        let refused = |role| move |error| Error::of(role, error);
        let set = &self.set;
        set.check_root_expired(now).map_err(refused("root"))?;
        set.check_timestamp_expired(now).map_err(refused("timestamp"))?;
        set.check_snapshot_expired(now).map_err(refused("snapshot"))?;
        let (Some(timestamp), Some(snapshot), Some(targets)) =
            (set.timestamp(), set.snapshot(), set.targets_role("targets"))
        else {
            return Err(Error::Incomplete);
        };
        if targets.is_expired(now) {
            return Err(Error::Expired {
                role: "targets".to_owned(),
                expires: super::milliseconds(targets.expires()),
            });
        }
        let named = timestamp.snapshot_meta().map(|pin| pin.version) == Some(snapshot.version)
            && snapshot.meta.get("targets.json").map(|pin| pin.version) == Some(targets.version);
        if named { Ok(()) } else { Err(Error::Incomplete) }
    }
}
