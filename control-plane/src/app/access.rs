//! Who asks: users with passwords, their sessions, tokens for programs, and how often anybody may ask.

mod password;
mod throttles;

use super::{App, Error, Page, Result, chain, now};
use crate::{
    signer,
    store::{Holder, UserChange},
};
use control_core::access::{ApiToken, Role, User};
use serde::{Deserialize, Serialize};
use shared::{Digest, Timestamp, UserName, limits};
use std::{fmt, net::IpAddr};
use uuid::Uuid;
use zeroize::Zeroize;

pub(super) use throttles::Access;

/// A secret on its way in or out. Its `Debug` shows nothing, and its memory is cleared.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text for a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

shared::text_schema!(Secret, "Secret", { "format": "password", "maxLength": limits::PASSWORD_BYTES_MAX });

/// Somebody who is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub user: UserName,
    pub role: Role,
    /// None where what was shown does not expire.
    pub expires_at: Option<Timestamp>,
}

/// Who wants to log in.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub user: UserName,
    pub password: Secret,
}

/// A session that has begun.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Session {
    /// For `Authorization: Bearer`; the cookie holds the same.
    pub token: Secret,
    pub expires_at: Timestamp,
    pub user: UserName,
    pub role: Role,
}

/// Who one is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Me {
    pub user: UserName,
    pub role: Role,
    /// When what was shown is good no more; none where it does not expire.
    pub expires_at: Option<Timestamp>,
}

/// A user to add.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub name: UserName,
    pub role: Role,
    pub password: Secret,
}

/// What is to change of a user. What is not given stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// A token for a program to make.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiToken {
    /// What it is for.
    pub name: String,
    pub role: Role,
    /// Days that it is good for.
    pub days: u32,
}

/// A token as it is shown once.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NewTokenGiven {
    pub token: ApiToken,
    pub secret: Secret,
}

impl App {
    /// Who shows `token`, if it is good: the administrator's, a session's or an API token.
    pub async fn principal(&self, token: &str) -> Result<Option<Principal>> {
        if self.is_admin(token) {
            let user = UserName::administrator();
            return Ok(Some(Principal { user, role: Role::Admin, expires_at: None }));
        }
        let now = now();
        let Some(holder) = self.store.holder(&Digest::of(token.as_bytes()), now).await? else {
            return Ok(None);
        };
        let Holder { user, role, expires_at, token } = holder;
        if let Some(id) = token.filter(|id| self.access.is_use_due(*id, now))
            && let Err(error) = self.store.note_token_uses(&[(id, now)]).await
        {
            tracing::warn!("the use of token {id} is not on record: {}", chain(&error));
        }
        Ok(Some(Principal { user, role, expires_at: Some(expires_at) }))
    }

    /// Begins a session. The administrator's token is good as a password too. Whoever fails too often waits.
    pub async fn login(&self, login: &Login, peer: IpAddr) -> Result<Session> {
        let user = &login.user;
        self.access.begin_login(user, peer, now()).inspect_err(|_| {
            self.note_refusal(user.as_str(), "login_flood", &format!("too many failed log-ins, from {peer}"));
        })?;
        let password = login.password.reveal();
        let good = (*user == UserName::administrator() && self.is_admin(password))
            || self.access.check(password, self.store.password(user).await?).await?;
        let known = if good { self.store.user(user).await? } else { None };
        let Some(known) = known.filter(|known| !known.disabled) else {
            self.note_refusal(
                user.as_str(),
                "login_refused",
                &format!("user or password is wrong, from {peer}"),
            );
            return Err(Error::Unauthorized("user or password is wrong".to_owned()));
        };
        self.access.end_login(user, peer);
        self.begin_session(known.name, known.role).await
    }

    async fn begin_session(&self, user: UserName, role: Role) -> Result<Session> {
        let token = Secret::new(signer::secret().map_err(|error| Error::Internal(chain(&error)))?);
        let now = now();
        let expires_at = now.plus_ms(limits::SESSION_MS);
        let hash = Digest::of(token.reveal().as_bytes());
        self.store.add_session(&user, &hash, now, expires_at, limits::SESSIONS_PER_USER_MAX).await?;
        Ok(Session { token, expires_at, user, role })
    }

    /// Ends the session of `token`. What is no session stays as it is.
    pub async fn logout(&self, token: &str) -> Result<()> {
        Ok(self.store.delete_session(&Digest::of(token.as_bytes())).await?)
    }

    /// Users by name.
    pub async fn users(&self, page: &Page) -> Result<Vec<User>> {
        Ok(self.store.users(page).await?)
    }

    /// One user.
    pub async fn user(&self, name: &UserName) -> Result<User> {
        self.store.user(name).await?.ok_or_else(|| no_user(name))
    }

    /// Adds a user.
    pub async fn create_user(&self, new: &NewUser) -> Result<User> {
        let hash = self.access.hash(&new.password).await?;
        let user = User {
            name: new.name.clone(),
            role: new.role,
            created_at: now(),
            disabled: false,
            last_login_at: None,
        };
        self.store.add_user(&user, &hash).await?;
        Ok(user)
    }

    /// Changes a user. With another password, or disabled, the user's sessions end.
    pub async fn change_user(&self, name: &UserName, change: &ChangeUser) -> Result<User> {
        let user = self.user(name).await?;
        let loses = change.disabled == Some(true) || change.role.is_some_and(|role| role != user.role);
        if *name == UserName::administrator() && loses {
            return Err(administrator());
        }
        let hash = match &change.password {
            Some(password) => Some(self.access.hash(password).await?),
            None => None,
        };
        let change = UserChange { role: change.role, password: hash.as_deref(), disabled: change.disabled };
        if !self.store.change_user(name, change).await? {
            return Err(no_user(name));
        }
        self.user(name).await
    }

    /// Removes a user with sessions and tokens.
    pub async fn delete_user(&self, name: &UserName) -> Result<()> {
        if *name == UserName::administrator() {
            return Err(administrator());
        }
        if self.store.delete_user(name).await? { Ok(()) } else { Err(no_user(name)) }
    }

    /// API tokens, the newest first.
    pub async fn api_tokens(&self, page: &Page) -> Result<Vec<ApiToken>> {
        Ok(self.store.api_tokens(page).await?)
    }

    /// Makes an API token of `user`. Its secret is in the answer and nowhere else.
    pub async fn create_api_token(&self, user: &Principal, new: &NewApiToken) -> Result<NewTokenGiven> {
        let days = new.days;
        if !(1..=limits::API_TOKEN_DAYS_MAX).contains(&days) {
            let text = format!("days is {days}, allowed are 1 to {}", limits::API_TOKEN_DAYS_MAX);
            return Err(Error::Invalid(text));
        }
        let (name, most) = (new.name.trim(), limits::API_TOKEN_NAME_BYTES_MAX);
        if name.is_empty() || name.len() > most || name.chars().any(char::is_control) {
            let text = format!("name is not valid: 1 to {most} bytes without control characters");
            return Err(Error::Invalid(text));
        }
        if new.role > user.role {
            return Err(Error::Forbidden(format!("a token of {} is at most {}", user.user, user.role)));
        }
        let secret = Secret::new(signer::secret().map_err(|error| Error::Internal(chain(&error)))?);
        let created_at = now();
        let token = ApiToken {
            id: Uuid::now_v7(),
            name: name.to_owned(),
            user: user.user.clone(),
            role: new.role,
            created_at,
            expires_at: created_at.plus_ms(u64::from(days) * 86_400_000),
            used_at: None,
        };
        self.store.add_api_token(&token, &Digest::of(secret.reveal().as_bytes())).await?;
        Ok(NewTokenGiven { token, secret })
    }

    /// Removes an API token.
    pub async fn delete_api_token(&self, id: Uuid) -> Result<()> {
        if self.store.delete_api_token(id).await? {
            Ok(())
        } else {
            Err(Error::NotFound(format!("token {id} is not known")))
        }
    }

    /// Counts a request of `user`, or of somebody unknown, from `peer`.
    ///
    /// # Errors
    /// There were too many.
    pub fn admit(&self, user: Option<&UserName>, peer: IpAddr) -> Result<()> {
        self.access.admit(user, peer, now())
    }

    /// Room for one more listener to changes, for as long as it is held.
    pub fn admit_stream(&self) -> Result<tokio::sync::OwnedSemaphorePermit> {
        self.access.admit_stream()
    }

    /// Forgets sessions and tokens that have expired, and entries of the audit log older than `audit_days`.
    pub async fn purge_access(&self, audit_days: u32) -> Result<()> {
        let now = now();
        let days = |days: u32| Timestamp(now.0.saturating_sub(u64::from(days) * 86_400_000));
        self.store.delete_expired_access(days(1)).await?;
        let gone = self.store.delete_audit(days(audit_days)).await?;
        if gone > 0 {
            tracing::info!("{gone} entries of the audit log were older than {audit_days} days and are gone");
        }
        Ok(())
    }
}

fn no_user(name: &UserName) -> Error {
    Error::NotFound(format!("user {name} is not known"))
}

fn administrator() -> Error {
    Error::Conflict("admin is whoever has the administrator's token, and stays as it is".to_owned())
}

#[cfg(test)]
mod tests;
