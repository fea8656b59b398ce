//! JSON Schemas of types whose JSON is a text of a certain form. Only the control plane asks for them (feature
//! `schema`): everything else describes itself by its derive.

/// Describes a type as a string: `text_schema!(Type, "Type", { "pattern": "..." })`. The crate that uses it depends on
/// `schemars`.
#[macro_export]
macro_rules! text_schema {
    ($type:ty, $name:expr, { $($key:literal : $value:expr),* $(,)? }) => {
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed($name)
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", $($key: $value),* })
            }
        }
    };
}

/// What a name is, as [`crate::id`] reads it.
pub const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9._-]{0,63}$";

#[cfg(all(test, feature = "schema"))]
mod tests {
    use crate::{DeviceId, Digest, RolloutId, VersionLabel};
    use schemars::schema_for;

    #[test]
    fn ids_are_texts_of_a_named_form() {
        let device = schema_for!(DeviceId);
        assert_eq!(device.get("pattern").unwrap(), super::NAME_PATTERN);
        assert_eq!(device.get("title").unwrap(), "DeviceId");
        assert_eq!(schema_for!(Digest).get("pattern").unwrap(), "^[0-9a-f]{64}$");
        assert_eq!(schema_for!(RolloutId).get("format").unwrap(), "uuid");
        assert_eq!(schema_for!(VersionLabel).get("type").unwrap(), "string");
    }
}
