//! What the targets vouch for: versions of models by the digest of their bundle, and the online keys that devices obey.

use crate::author::Target;
use shared::{
    Digest, ModelName, VersionLabel,
    signing::{Keyring, PublicKey, Role, TrustedKey},
};

/// The path of a version.
pub fn model_path(model: &ModelName, version: VersionLabel) -> String {
    format!("models/{model}/{version}")
}

/// The path of a key: the director's signs which device runs what, the release key signs manifests.
pub fn key_path(key: &TrustedKey) -> String {
    format!("keys/{}/{}", role_name(key.role), key.key.id())
}

/// The target of a key: its digest is the digest of the key's 32 bytes, which stand beside it.
pub fn key_target(key: &TrustedKey) -> Target {
    let bytes = key.key.as_bytes();
    let custom = serde_json::json!({ "ed25519": String::from(key.key.clone()) });
    Target { length: bytes.len() as u64, sha256: Digest::of(bytes), custom: Some(custom) }
}

/// The keys among targets. What is no key, or another than its path and digest say, is left out.
pub fn keyring<'a>(targets: impl IntoIterator<Item = (&'a str, Target)>) -> Keyring {
    Keyring::new(targets.into_iter().filter_map(|(path, target)| key(path, &target)))
}

fn key(path: &str, target: &Target) -> Option<TrustedKey> {
    let (role, id) = path.strip_prefix("keys/")?.split_once('/')?;
    let role = [Role::Director, Role::Release].into_iter().find(|known| role_name(*known) == role)?;
    let text = target.custom.as_ref()?.get("ed25519")?.as_str()?;
    let key = PublicKey::try_from(text.to_owned()).ok()?;
    (key.id() == target.sha256 && key.id().to_string() == id).then_some(TrustedKey { role, key })
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Director => "director",
        Role::Release => "release",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::signing::SigningKey;

    fn some_key(role: Role) -> TrustedKey {
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        TrustedKey { role, key: key.public().clone() }
    }

    #[test]
    fn keys_come_back_from_their_targets_and_nothing_else_does() {
        let (director, release) = (some_key(Role::Director), some_key(Role::Release));
        let good: Vec<_> = [&director, &release].map(|key| (key_path(key), key_target(key))).into();
        let mut all = good.clone();
        // Under the path of another, in another role, with another digest, without the key, a model.
        all.push((key_path(&some_key(Role::Director)), key_target(&director)));
        all.push((key_path(&director).replace("director", "root"), key_target(&director)));
        all.push((key_path(&release), Target { sha256: Digest::of(b"x"), ..key_target(&release) }));
        all.push((key_path(&release), Target { custom: None, ..key_target(&release) }));
        all.push(("models/keys/v1.0".to_owned(), key_target(&release)));
        let keyring = keyring(all.iter().map(|(path, target)| (path.as_str(), target.clone())));
        assert_eq!(keyring.keys(), [director, release]);
    }
}
