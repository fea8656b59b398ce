//! The signed part of each role as JSON: the one place where its fields are spelled.

use super::{Delegation, Error, Keys, Meta, Root, Snapshot, Target, Targets, TimestampMetadata};
use crate::provider;
use serde_json::{Map, Value, json};
use shared::{Digest, TeamName, Timestamp, id::TOP_LEVEL_ROLES, signing::PublicKey};
use sigstore_tuf::canonical_json;
use std::collections::BTreeMap;

/// The version of the TUF specification that files are written to.
const SPEC_VERSION: &str = "1.0.31";
/// The field of the signed part that says when it was made, in milliseconds since 1970. Other readers ignore it.
pub const ISSUED_AT: &str = "x_edgewright_issued_at";
/// The last second that the format of times can write: the end of the year 9999.
const LAST_SECOND: i64 = 253_402_207_200;

/// The id that metadata knows a key by: the SHA-256 of the key as canonical JSON, in hexadecimal.
pub fn key_id(key: &PublicKey) -> String {
    provider::ensure();
    let canonical = canonical_json::to_canonical_bytes(&of_key(key)).unwrap_or_default();
    Digest::of(&canonical).to_string()
}

fn of_key(key: &PublicKey) -> Value {
    json!({ "keytype": "ed25519", "keyval": { "public": hex::encode(key.as_bytes()) }, "scheme": "ed25519" })
}

/// What can be written of `time`.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp((time.0 / 1000).min(LAST_SECOND.unsigned_abs()) * 1000)
}

fn head(role: &str, version: u64, issued_at: Timestamp, expires: Timestamp) -> Map<String, Value> {
    let seconds = i64::try_from(expires.0 / 1000).unwrap_or(LAST_SECOND).min(LAST_SECOND);
    let expires = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    let mut head = Map::new();
    head.insert("_type".to_owned(), json!(role));
    head.insert("spec_version".to_owned(), json!(SPEC_VERSION));
    head.insert("version".to_owned(), json!(version));
    head.insert("expires".to_owned(), json!(expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    head.insert(ISSUED_AT.to_owned(), json!(issued_at.0));
    head
}

fn with(mut head: Map<String, Value>, fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    head.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Value::Object(head)
}

fn of_keys<'a>(keys: impl IntoIterator<Item = &'a Keys>) -> Value {
    let keys = keys.into_iter().flat_map(|keys| &keys.keys);
    Value::Object(keys.map(|key| (key_id(key), of_key(key))).collect())
}

fn key_ids(keys: &Keys) -> Vec<String> {
    keys.keys.iter().map(key_id).collect()
}

fn of_meta(meta: &Meta) -> Value {
    json!({ "hashes": { "sha256": meta.sha256.to_string() }, "length": meta.length, "version": meta.version })
}

pub(super) fn root(root: &Root) -> Value {
    let roles = [
        ("root", &root.root),
        ("targets", &root.targets),
        ("snapshot", &root.snapshot),
        ("timestamp", &root.timestamp),
    ];
    let keys = of_keys(roles.iter().map(|(_, keys)| *keys));
    let role = |keys: &Keys| json!({ "keyids": key_ids(keys), "threshold": keys.threshold });
    let roles: Map<_, _> = roles.iter().map(|(name, keys)| ((*name).to_owned(), role(keys))).collect();
    with(
        head("root", root.version, root.issued_at, root.expires),
        [("consistent_snapshot", json!(true)), ("keys", keys), ("roles", Value::Object(roles))],
    )
}

pub(super) fn targets(targets: &Targets) -> Value {
    let of_target = |target: &Target| {
        let mut value = json!({ "hashes": { "sha256": target.sha256.to_string() }, "length": target.length });
        if let Some(custom) = &target.custom {
            value["custom"] = custom.clone();
        }
        value
    };
    let listed: Map<_, _> =
        targets.targets.iter().map(|(path, target)| (path.clone(), of_target(target))).collect();
    let mut fields = vec![("targets", Value::Object(listed))];
    if !targets.delegations.is_empty() {
        let keys = of_keys(targets.delegations.iter().map(|delegation| &delegation.keys));
        let role = |delegation: &Delegation| {
            json!({
                "keyids": key_ids(&delegation.keys),
                "name": delegation.name.as_str(),
                "paths": delegation.paths,
                "terminating": delegation.terminating,
                "threshold": delegation.keys.threshold,
            })
        };
        let roles: Vec<_> = targets.delegations.iter().map(role).collect();
        fields.push(("delegations", json!({ "keys": keys, "roles": roles })));
    }
    with(head("targets", targets.version, targets.issued_at, targets.expires), fields)
}

pub(super) fn snapshot(snapshot: &Snapshot) -> Value {
    let meta: Map<_, _> = snapshot.meta.iter().map(|(name, meta)| (name.clone(), of_meta(meta))).collect();
    with(
        head("snapshot", snapshot.version, snapshot.issued_at, snapshot.expires),
        [("meta", Value::Object(meta))],
    )
}

pub(super) fn timestamp(timestamp: &TimestampMetadata) -> Value {
    with(
        head("timestamp", timestamp.version, timestamp.issued_at, timestamp.expires),
        [("meta", json!({ "snapshot.json": of_meta(&timestamp.snapshot) }))],
    )
}

pub(super) fn role(signed: &Value) -> Result<&'static str, Error> {
    let role = signed.get("_type").and_then(Value::as_str).unwrap_or_default();
    let known = TOP_LEVEL_ROLES.into_iter().find(|known| *known == role);
    known.ok_or_else(|| Error::malformed("signed", "its _type is root, targets, snapshot or timestamp"))
}

pub(super) fn number(value: &Value, field: &str) -> Result<u64, Error> {
    value.get(field).and_then(Value::as_u64).ok_or_else(|| Error::malformed(field, "it is a whole number"))
}

pub(super) fn expires(signed: &Value) -> Result<Timestamp, Error> {
    let text = signed.get("expires").and_then(Value::as_str).unwrap_or_default();
    let time: jiff::Timestamp =
        text.parse().map_err(|_| Error::malformed("expires", "it is written 2031-12-31T23:59:59Z"))?;
    Ok(Timestamp(u64::try_from(time.as_second()).unwrap_or(0).saturating_mul(1000)))
}

pub(super) fn issued_at(signed: &Value) -> Option<Timestamp> {
    signed.get(ISSUED_AT).and_then(Value::as_u64).map(Timestamp)
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, Error> {
    value.get(field).and_then(Value::as_str).ok_or_else(|| Error::malformed(field, "it is a text"))
}

fn object<'a>(value: &'a Value, field: &str) -> Result<&'a Map<String, Value>, Error> {
    value.get(field).and_then(Value::as_object).ok_or_else(|| Error::malformed(field, "it is an object"))
}

fn texts(value: &Value, field: &str) -> Result<Vec<String>, Error> {
    let list = value.get(field).and_then(Value::as_array);
    let texts = list.and_then(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect());
    texts.ok_or_else(|| Error::malformed(field, "it is a list of texts"))
}

fn sha256(value: &Value) -> Result<Digest, Error> {
    let hashes = object(value, "hashes")?;
    let digest = hashes.get("sha256").and_then(Value::as_str).and_then(|text| text.parse().ok());
    digest.ok_or_else(|| Error::malformed("hashes", "a sha256 of 64 hexadecimal digits is among them"))
}

/// The keys of a role, from its entry and from the keys beside it.
fn as_keys(role: &Value, keys: &Map<String, Value>) -> Result<Keys, Error> {
    let key = |id: String| {
        let key = keys.get(&id).filter(|key| {
            let is = |field| key.get(field).and_then(Value::as_str) == Some("ed25519");
            is("keytype") && is("scheme")
        });
        let public = key.and_then(|key| key.pointer("/keyval/public")).and_then(Value::as_str);
        let bytes: Option<[u8; 32]> =
            public.and_then(|public| hex::decode(public).ok()).and_then(|bytes| bytes.try_into().ok());
        let public = bytes.map(PublicKey::from_bytes).filter(|public| key_id(public) == id);
        public.ok_or_else(|| Error::malformed("keys", "each is Ed25519 and has its own id"))
    };
    let threshold = u32::try_from(number(role, "threshold")?)
        .map_err(|_| Error::malformed("threshold", "it is at most the number of keys"))?;
    Ok(Keys { threshold, keys: texts(role, "keyids")?.into_iter().map(key).collect::<Result<_, _>>()? })
}

fn as_meta(value: &Value) -> Result<Meta, Error> {
    Ok(Meta { version: number(value, "version")?, length: number(value, "length")?, sha256: sha256(value)? })
}

pub(super) fn as_root(signed: &Value) -> Result<Root, Error> {
    let (keys, roles) = (object(signed, "keys")?, object(signed, "roles")?);
    let role = |name: &str| {
        let role = roles.get(name).ok_or_else(|| Error::malformed("roles", "all four are there"))?;
        as_keys(role, keys)
    };
    Ok(Root {
        version: number(signed, "version")?,
        issued_at: issued_at(signed).unwrap_or_default(),
        expires: expires(signed)?,
        root: role("root")?,
        targets: role("targets")?,
        snapshot: role("snapshot")?,
        timestamp: role("timestamp")?,
    })
}

pub(super) fn as_targets(signed: &Value) -> Result<Targets, Error> {
    let target = |(path, value): (&String, &Value)| {
        let custom = value.get("custom").filter(|custom| !custom.is_null()).cloned();
        let target = Target { length: number(value, "length")?, sha256: sha256(value)?, custom };
        Ok((path.clone(), target))
    };
    let targets: BTreeMap<_, _> =
        object(signed, "targets")?.iter().map(target).collect::<Result<_, Error>>()?;
    let delegations = match signed.get("delegations").filter(|delegations| !delegations.is_null()) {
        None => Vec::new(),
        Some(delegations) => {
            let keys = object(delegations, "keys")?;
            let roles = delegations.get("roles").and_then(Value::as_array);
            let roles = roles.ok_or_else(|| Error::malformed("roles", "it is a list"))?;
            roles.iter().map(|role| as_delegation(role, keys)).collect::<Result<_, _>>()?
        }
    };
    Ok(Targets {
        version: number(signed, "version")?,
        issued_at: issued_at(signed).unwrap_or_default(),
        expires: expires(signed)?,
        targets,
        delegations,
    })
}

fn as_delegation(role: &Value, keys: &Map<String, Value>) -> Result<Delegation, Error> {
    let name: TeamName =
        text(role, "name")?.parse().map_err(|_| Error::malformed("name", "1 to 64 of a-z 0-9 . _ -"))?;
    let terminating = role.get("terminating").and_then(Value::as_bool).unwrap_or(false);
    Ok(Delegation { name, keys: as_keys(role, keys)?, paths: texts(role, "paths")?, terminating })
}

pub(super) fn as_snapshot(signed: &Value) -> Result<Snapshot, Error> {
    let meta = object(signed, "meta")?.iter();
    Ok(Snapshot {
        version: number(signed, "version")?,
        issued_at: issued_at(signed).unwrap_or_default(),
        expires: expires(signed)?,
        meta: meta.map(|(name, meta)| Ok((name.clone(), as_meta(meta)?))).collect::<Result<_, Error>>()?,
    })
}

pub(super) fn as_timestamp(signed: &Value) -> Result<TimestampMetadata, Error> {
    let meta = object(signed, "meta")?.get("snapshot.json");
    let meta = meta.ok_or_else(|| Error::malformed("meta", "snapshot.json is in it"))?;
    Ok(TimestampMetadata {
        version: number(signed, "version")?,
        issued_at: issued_at(signed).unwrap_or_default(),
        expires: expires(signed)?,
        snapshot: as_meta(meta)?,
    })
}

/// Would a reader understand this pattern of paths?
pub(super) fn good_pattern(pattern: &str) -> bool {
    let role = json!({ "name": "x", "keyids": [], "threshold": 1, "paths": [pattern] });
    let role: Result<sigstore_tuf::DelegatedRole, _> = serde_json::from_value(role);
    role.is_ok_and(|role| role.matches_path(pattern).is_ok())
}
