//! What questions about telemetry and feedback have in common: whose numbers, and when. A parameter that is not known, or that
//! comes twice where it may not, is a wrong one.

use super::problem::Problem;
use crate::app::telemetry::Where;
use axum::http::StatusCode;
use shared::Timestamp;
use std::{collections::BTreeMap, fmt::Display, str::FromStr};

/// Most labels to ask for at one time.
const LABELS_MAX: usize = 16;

/// The parameters of a question, each taken once.
pub(super) struct Asked {
    once: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

fn wrong(key: &str, reason: &dyn Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("{key}: {reason}"))
}

impl Asked {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut asked = Self { once: BTreeMap::new(), labels: BTreeMap::new() };
        for (key, value) in pairs {
            if value.contains('\0') {
                return Err(wrong(&key, &"there is no such text"));
            }
            if key == "label" {
                let (name, value) =
                    value.split_once('=').ok_or_else(|| wrong(&key, &"expected KEY=VALUE"))?;
                asked.labels.insert(name.to_owned(), value.to_owned());
                if asked.labels.len() > LABELS_MAX {
                    return Err(wrong(&key, &format!("at most {LABELS_MAX} of them")));
                }
            } else if asked.once.insert(key.clone(), value).is_some() {
                return Err(wrong(&key, &"it is there twice"));
            }
        }
        Ok(asked)
    }

    /// One that may be there.
    pub(super) fn take<T: FromStr<Err: Display>>(&mut self, key: &str) -> Result<Option<T>, Problem> {
        let value = self.once.remove(key);
        value.map(|value| value.parse().map_err(|error: T::Err| wrong(key, &error))).transpose()
    }

    /// One of a few words that may be there.
    pub(super) fn word<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, Problem> {
        let value = self.once.remove(key);
        value
            .map(|value| {
                serde_json::from_value(serde_json::Value::String(value)).map_err(|error| wrong(key, &error))
            })
            .transpose()
    }

    /// One that has to be there.
    pub(super) fn need(&mut self, key: &str, such_as: &str) -> Result<String, Problem> {
        self.once.remove(key).ok_or_else(|| wrong(key, &format!("it is missing; take one as in {such_as}")))
    }

    /// One of a few words that has to be there.
    pub(super) fn needed_word<T: serde::de::DeserializeOwned>(
        &mut self,
        key: &str,
        such_as: &str,
    ) -> Result<T, Problem> {
        self.word(key)?.ok_or_else(|| wrong(key, &format!("it is missing; take one as in {such_as}")))
    }

    /// Whose numbers, and when; nothing else may be left.
    pub(super) fn rest(mut self) -> Result<Where, Problem> {
        let of = Where {
            device: self.take("device")?,
            version: self.take("version")?,
            slot: self.take("slot")?,
            from: self.take("from")?.map(Timestamp),
            to: self.take("to")?.map(Timestamp),
            step: self.take("step")?,
            labels: self.labels,
        };
        match self.once.keys().next() {
            Some(key) => Err(wrong(key, &"it is no parameter of this question")),
            None => Ok(of),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Result<Where, Problem> {
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        Asked::new(pairs.iter().map(owned).collect())?.rest()
    }

    #[test]
    fn what_is_no_question_is_a_bad_request_that_names_the_parameter() {
        for (pairs, says) in [
            (&[("device", "no such/name")][..], "device: "),
            (&[("from", "-1")], "from: "),
            (&[("from", "1"), ("from", "2")], "from: it is there twice"),
            (&[("step", "1w")], "step: "),
            (&[("label", "ring")], "label: expected KEY=VALUE"),
            (&[("slot", "a\0")], "slot: "),
            (&[("frm", "1")], "frm: it is no parameter"),
        ] {
            let problem = asked(pairs).unwrap_err();
            assert!(problem.status == 400 && problem.detail.starts_with(says), "{}", problem.detail);
        }
        let of = asked(&[("label", "a=1"), ("label", "b=x=y"), ("to", "7")]).unwrap();
        assert_eq!((of.labels["b"].as_str(), of.to), ("x=y", Some(Timestamp(7))));
    }
}
