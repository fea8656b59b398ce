use std::error::Error;

/// An error with its causes on one line. What an error has said of its cause already is not said again.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(&'static str, #[source] Option<Box<Said>>);

    #[test]
    fn each_cause_is_said_once_and_all_on_one_line() {
        let said = |text, cause: Option<Said>| Said(text, cause.map(Box::new));
        let innermost = said("refused\n  by the peer", None);
        let error = said("TLS: I/O", Some(said("I/O", Some(innermost))));
        assert_eq!(causes(&error), "TLS: I/O: refused by the peer");
    }
}
