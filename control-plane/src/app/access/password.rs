//! Passwords: argon2id with the crate's recommended costs, off the runtime's threads, a few at a time.

use super::{Access, Secret};
use crate::app::{Error, Result};
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use shared::limits::{PASSWORD_BYTES_MAX, PASSWORD_CHARACTERS_MIN};
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// Checked where there is no password, so that the time of an answer does not say who is known.
static NOBODYS: OnceLock<String> = OnceLock::new();

fn make(password: &[u8]) -> Result<String> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password)
        .map_err(|error| Error::Internal(format!("a password cannot be hashed: {error}")))?;
    Ok(hash.to_string())
}

fn agrees(password: &[u8], hash: Option<String>) -> Result<bool> {
    let known = hash.is_some();
    let hash = match hash {
        Some(hash) => hash,
        None => match NOBODYS.get() {
            Some(hash) => hash.clone(),
            None => NOBODYS.get_or_init(|| make(b"nobody's password").unwrap_or_default()).clone(),
        },
    };
    let parsed = PasswordHash::new(&hash)
        .map_err(|error| Error::Internal(format!("a stored password cannot be read: {error}")))?;
    Ok(Argon2::default().verify_password(password, &parsed).is_ok() && known)
}

impl Access {
    /// What is kept of a password.
    ///
    /// # Errors
    /// It is too short or too long.
    pub(super) async fn hash(&self, password: &Secret) -> Result<String> {
        let text = password.reveal();
        if text.chars().count() < PASSWORD_CHARACTERS_MIN || text.len() > PASSWORD_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "password is not valid: at least {PASSWORD_CHARACTERS_MIN} characters, at most {PASSWORD_BYTES_MAX} bytes"
            )));
        }
        let bytes = Zeroizing::new(text.as_bytes().to_vec());
        self.off_the_loop(move || make(&bytes)).await
    }

    /// Is it the password of which `hash` is kept?
    pub(super) async fn check(&self, password: &str, hash: Option<String>) -> Result<bool> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let bytes = Zeroizing::new(password.as_bytes().to_vec());
        self.off_the_loop(move || agrees(&bytes, hash)).await
    }

    async fn off_the_loop<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let broken =
            |error: &dyn std::fmt::Display| Error::Internal(format!("a password's check broke off: {error}"));
        let permit = Arc::clone(&self.checks).acquire_owned().await.map_err(|error| broken(&error))?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(|error| broken(&error))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_agrees_with_its_hash_only_and_nobody_has_one_that_agrees() {
        let hash = make(b"correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains("horse"));
        assert!(agrees(b"correct horse", Some(hash.clone())).unwrap());
        assert!(!agrees(b"correct hors", Some(hash.clone())).unwrap());
        assert!(!agrees(b"nobody's password", None).unwrap());
        assert_ne!(make(b"correct horse").unwrap(), hash);
        assert!(agrees(b"x", Some("plain".to_owned())).is_err());
    }

    #[tokio::test]
    async fn short_and_endless_passwords_are_refused() {
        let access = Access::default();
        for text in ["", "ninechars", &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
            assert!(matches!(access.hash(&Secret::new(text)).await, Err(Error::Invalid(_))), "{text}");
        }
        assert!(!access.check(&"x".repeat(PASSWORD_BYTES_MAX + 1), None).await.unwrap());
    }
}
