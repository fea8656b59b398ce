//! What the commands about users and tokens share.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use control_core::access::Role;

/// Reads a role, and has completion know all of them.
pub(super) fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(|text| text.parse::<Role>())
}
