//! The spelling of requests' paths and queries.

use std::fmt::{self, Write};

/// `name=value&…`, with what has a meaning of its own escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(String);

impl Query {
    /// And `name`, where there is a value.
    pub(super) fn with(mut self, name: &str, value: Option<impl fmt::Display>) -> Self {
        if let Some(value) = value {
            let between = if self.0.is_empty() { "" } else { "&" };
            self.0.extend([between, name, "=", &escaped(&value.to_string())]);
        }
        self
    }

    /// And `name` once for each value.
    pub(super) fn with_all(self, name: &str, values: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        values.into_iter().fold(self, |query, value| query.with(name, Some(value)))
    }

    /// Labels as `label=KEY=VALUE`.
    pub(super) fn with_labels(self, labels: &[(String, String)]) -> Self {
        self.with_all("label", labels.iter().map(|(key, value)| format!("{key}={value}")))
    }
}

/// Behind a path: with its question mark, or nothing.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "?{}", self.0) }
    }
}

/// One part of a path or a query: everything but letters, digits and `-._~` as `%XX`.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_cannot_become_another_parameter() {
        let query = Query::default().with("search", Some("a&b=c d/ä")).with("online", None::<bool>);
        assert_eq!(query.to_string(), "?search=a%26b%3Dc%20d%2F%C3%A4");
        assert_eq!(Query::default().to_string(), "");
    }

    #[test]
    fn labels_come_once_each() {
        let labels = [("ring".to_owned(), "1".to_owned()), ("site".to_owned(), "x=y".to_owned())];
        let query = Query::default().with("limit", Some(5)).with_labels(&labels);
        assert_eq!(query.to_string(), "?limit=5&label=ring%3D1&label=site%3Dx%3Dy");
    }
}
