//! Ids as newtypes: a string that is one cannot be mistaken for another, and each is safe in a topic, a file
//! name and a URL.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Longest name in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The roles that every model repository has; no team may be named like one.
pub const TOP_LEVEL_ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the form that names take.
    #[error(
        "{kind} {text:?} is not valid: use 1 to {NAME_BYTES_MAX} characters of a-z, 0-9, '-', '_' and '.', starting with a letter or digit"
    )]
    Name { kind: &'static str, text: String },
    /// Of that form, and taken.
    #[error("{kind} {text:?} is not valid: it names a role that every model repository has")]
    Reserved { kind: &'static str, text: String },
    /// Not a UUID.
    #[error("{kind} {text:?} is not a UUID")]
    Uuid { kind: &'static str, text: String },
    /// Not a version label.
    #[error("version {text:?} is not valid: write v MAJOR . MINOR, as in v1.3")]
    Version { text: String },
}

/// At most this much of a refused text is quoted back.
fn quoted(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal $(, except $reserved:ident)?) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                if !is_name(text) {
                    return Err(Error::Name { kind: $kind, text: quoted(text) });
                }
                $(if $reserved.contains(&text) {
                    return Err(Error::Reserved { kind: $kind, text: quoted(text) });
                })?
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        #[cfg(feature = "schema")]
        $crate::text_schema!($name, stringify!($name), { "pattern": $crate::schema::NAME_PATTERN });
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| Error::Uuid { kind: $kind, text: quoted(text) })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        #[cfg(feature = "schema")]
        $crate::text_schema!($name, stringify!($name), { "format": "uuid" });
    };
}

name_id!(
    /// A device of the fleet; also the common name of its certificate and its MQTT client id.
    DeviceId, "device id"
);
name_id!(
    /// A kind of device, the name of a file in `firmware-configs/`.
    BoardId, "board id"
);
name_id!(
    /// A registered data set.
    DatasetId, "data set id"
);
name_id!(
    /// A model, of which there are versions.
    ModelName, "model name"
);
name_id!(
    /// A role of the model repository that the targets delegate to: a team that signs models of its own. None of
    /// [`TOP_LEVEL_ROLES`].
    TeamName, "team name", except TOP_LEVEL_ROLES
);
name_id!(
    /// A person or a program that uses the API.
    UserName, "user name"
);
name_id!(
    /// A place on a device that holds one model; the name under which the local API serves it.
    SlotName, "slot name"
);
uuid_id!(
    /// A rollout (UUIDv7).
    RolloutId, "rollout id"
);
uuid_id!(
    /// A job of the forge (UUIDv7).
    JobId, "job id"
);
uuid_id!(
    /// A version of a model (UUIDv7).
    ModelVersionId, "model version id"
);

impl UserName {
    /// The user who is always there: whoever has the administrator's token.
    pub fn administrator() -> Self {
        Self("admin".to_owned())
    }
}

/// What people call a version of a model: `v1.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionLabel {
    /// Raised when the architecture was searched anew.
    pub major: u32,
    /// Raised when the same architecture was trained anew.
    pub minor: u32,
}

#[cfg(feature = "schema")]
crate::text_schema!(VersionLabel, "VersionLabel", { "pattern": r"^v(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})$" });

impl fmt::Display for VersionLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)
    }
}

impl FromStr for VersionLabel {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |part: &str| {
            let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            if plain { part.parse::<u32>().ok() } else { None }
        };
        text.strip_prefix('v')
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(major, minor)| Some(Self { major: number(major)?, minor: number(minor)? }))
            .ok_or_else(|| Error::Version { text: quoted(text) })
    }
}

impl TryFrom<String> for VersionLabel {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<VersionLabel> for String {
    fn from(label: VersionLabel) -> Self {
        label.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_names_that_could_leave_a_topic_or_a_folder() {
        for text in
            ["", ".", "..", "../a", "a/b", "a+b", "#", "A", "a b", "$share", "-a", "a\0", &"a".repeat(65)]
        {
            assert!(text.parse::<DeviceId>().is_err(), "{text:?} passed");
        }
        for text in ["a", "cam-01", "0", "x86-64", "a.b_c"] {
            assert_eq!(text.parse::<DeviceId>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_team_is_not_named_like_a_role_that_is_always_there() {
        for text in TOP_LEVEL_ROLES {
            assert!(matches!(text.parse::<TeamName>(), Err(Error::Reserved { .. })), "{text:?} passed");
            assert!(text.parse::<DeviceId>().is_ok());
        }
        for text in ["1.root", "a.b_c-d", "0"] {
            assert_eq!(text.parse::<TeamName>().unwrap().as_str(), text);
        }
        assert!("a%2f".parse::<TeamName>().is_err());
    }

    #[test]
    fn json_goes_through_the_same_check() {
        assert!(serde_json::from_str::<DeviceId>("\"a/b\"").is_err());
        assert_eq!(serde_json::to_string(&"cam-01".parse::<DeviceId>().unwrap()).unwrap(), "\"cam-01\"");
    }

    #[test]
    fn version_labels_have_one_spelling() {
        for text in ["v01.2", "v1", "1.2", "v1.2.3", "v-1.2", "v1.", "v+1.2", "v99999999999.1"] {
            assert!(text.parse::<VersionLabel>().is_err(), "{text:?} passed");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_one_part_of_a_path(text in "\\PC{0,70}") {
            if let Ok(name) = text.parse::<TeamName>() {
                prop_assert_eq!(std::path::Path::new(name.as_str()).components().count(), 1);
                prop_assert_ne!(name.as_str(), "..");
            }
        }

        #[test]
        fn version_labels_round_trip(major: u32, minor: u32) {
            let label = VersionLabel { major, minor };
            prop_assert_eq!(label.to_string().parse::<VersionLabel>().unwrap(), label);
        }
    }
}
