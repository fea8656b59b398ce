//! What a role may. An operation of the API is named as in its document; one that has no line here is for admins.

use serde::{Deserialize, Serialize};
use shared::{Timestamp, UserName};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// What somebody may do. Each may all that those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks at everything that is no secret.
    Viewer,
    /// Makes models and rolls them out.
    Operator,
    /// Decides who is who: users, tokens, devices' certificates, keys, what is kept.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no role: viewer, operator or admin"))
    }
}

/// What an operation asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// What devices have: an enrolment token or a certificate. The operation looks at it by itself.
    Device,
    /// At least this role.
    Role(Role),
}

impl Need {
    /// As the document says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Device => "device",
            Self::Role(role) => role.as_str(),
        }
    }
}

const NOTHING: &[&str] = &["openapi", "health", "login"];

const DEVICE: &[&str] = &["list_est_authorities", "enrol_device", "renew_device", "register_device"];

const VIEWER: &[&str] = &[
    "acting_user",
    "logout",
    "stream_changes",
    "show_status",
    "show_metrics",
    "show_overview",
    "list_boards",
    "show_board",
    "show_board_profile",
    "list_datasets",
    "show_dataset",
    "list_jobs",
    "show_job",
    "show_job_plot",
    "list_versions",
    "show_version",
    "show_lineage",
    "download_version_file",
    "list_keys",
    "list_devices",
    "show_device",
    "list_device_events",
    "list_events",
    "list_security_events",
    "list_groups",
    "show_group",
    "list_rollouts",
    "show_rollout",
    "plan_rollout",
    "why",
    "list_metrics",
    "query_telemetry",
    "query_feedback",
    "show_retention",
    "list_incidents",
    "show_incident",
    "list_authorities",
    "show_trust",
    "show_trust_metadata",
    "show_revocation_lists",
];

const OPERATOR: &[&str] = &[
    "profile_board",
    "add_dataset",
    "start_search",
    "start_retraining",
    "start_training",
    "cancel_job",
    "begin_upload",
    "upload_file",
    "publish_version",
    "import_version",
    "label_device",
    "create_group",
    "replace_group",
    "delete_group",
    "create_rollout",
    "approve_rollout",
    "waive_rollout",
    "order_rollout",
    "acknowledge_incident",
    "resolve_incident",
];

const ADMIN: &[&str] = &[
    "list_users",
    "create_user",
    "show_user",
    "change_user",
    "delete_user",
    "list_api_tokens",
    "create_api_token",
    "delete_api_token",
    "list_enrolment_tokens",
    "create_enrolment_token",
    "revoke_device",
    "list_audit",
    "rotate_authority",
    "retire_authorities",
    "accept_trust_metadata",
    "create_broker_certificate",
    "replace_retention",
    "back_up",
];

/// What `operation` asks for.
pub fn need(operation: &str) -> Need {
    if NOTHING.contains(&operation) {
        Need::Nothing
    } else if DEVICE.contains(&operation) {
        Need::Device
    } else if VIEWER.contains(&operation) {
        Need::Role(Role::Viewer)
    } else if OPERATOR.contains(&operation) {
        Need::Role(Role::Operator)
    } else {
        Need::Role(Role::Admin)
    }
}

/// Does `operation` have a line of its own?
pub fn is_named(operation: &str) -> bool {
    [NOTHING, DEVICE, VIEWER, OPERATOR, ADMIN].iter().any(|names| names.contains(&operation))
}

/// A user, without the password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct User {
    pub name: UserName,
    pub role: Role,
    pub created_at: Timestamp,
    /// Cannot log in, and its sessions and tokens are good for nothing.
    pub disabled: bool,
    pub last_login_at: Option<Timestamp>,
}

/// A token for programs, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApiToken {
    pub id: Uuid,
    pub name: String,
    /// Who made it; it goes with its user.
    pub user: UserName,
    /// At most this; never more than its user.
    pub role: Role,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
}

/// One request that was to change something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    pub id: Uuid,
    pub at: Timestamp,
    /// Empty where nobody was known.
    pub user: String,
    pub role: Option<Role>,
    /// As the API's document names it.
    pub operation: String,
    /// What it was about, as in `cam-01`.
    pub target: String,
    /// Of the answer; 0 while there is none, and where the server ended before there was one.
    pub status: u16,
    /// The address that it came from.
    pub from: String,
    /// What was asked, without secrets, or why it was refused; cut where it is long.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_what_those_before_it_may() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn an_operation_that_is_not_named_is_for_admins() {
        assert_eq!(need("drop_everything"), Need::Role(Role::Admin));
        assert!(!is_named("drop_everything"));
        assert_eq!(need("list_devices"), Need::Role(Role::Viewer));
        assert_eq!(need("create_rollout"), Need::Role(Role::Operator));
        assert_eq!(need("register_device"), Need::Device);
        assert_eq!(need("login"), Need::Nothing);
    }

    #[test]
    fn no_operation_is_named_twice() {
        let mut all: Vec<&str> = [NOTHING, DEVICE, VIEWER, OPERATOR, ADMIN].concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
