//! Secrets that a person gives: from a file, from standard input, or at the terminal without an echo.

use super::Failure;
use shared::read;
use std::{
    fmt, fs,
    io::{self, IsTerminal, Write},
    path::Path,
};

/// Longest secret in bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// The secret from `file` where one is given; else from whoever is at the terminal, who sees `prompt`, or from what
/// standard input is in its place.
pub(super) fn given(file: Option<&Path>, prompt: &str) -> Result<String, Failure> {
    match file {
        Some(file) => from(file),
        None if io::stdin().is_terminal() => ask(prompt),
        None => from(Path::new("-")),
    }
}

/// A secret from a file, or from standard input where the file is `-`; its last line end does not belong to it.
fn from(file: &Path) -> Result<String, Failure> {
    let unreadable =
        |error: &dyn fmt::Display| Failure::Usage(format!("{} cannot be read: {error}", file.display()));
    let bytes = match file.to_str() {
        Some("-") => read::at_most(io::stdin().lock(), SECRET_BYTES_MAX),
        _ => fs::File::open(file).and_then(|file| read::at_most(file, SECRET_BYTES_MAX)),
    };
    let text = String::from_utf8(bytes.map_err(|error| unreadable(&error))?)
        .map_err(|_| unreadable(&"it is not UTF-8"))?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    match secret.is_empty() || secret.contains(char::is_control) {
        true => Err(unreadable(&"it has to hold one line with the secret")),
        false => Ok(secret.to_owned()),
    }
}

/// Asks the person at the terminal, without showing what is typed.
fn ask(prompt: &str) -> Result<String, Failure> {
    let failed =
        |error: io::Error| Failure::Failed(format!("nothing can be asked at this terminal: {error}"));
    let mut stderr = io::stderr();
    write!(stderr, "{prompt}: ").and_then(|()| stderr.flush()).map_err(failed)?;
    let secret = console::Term::stderr().read_secure_line().map_err(failed)?;
    match secret.is_empty() {
        true => Err(Failure::Usage("the password is empty".to_owned())),
        false => Ok(secret),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_one_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for (content, secret) in [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("  a ", "  a ")] {
            fs::write(&file, content).unwrap();
            assert_eq!(given(Some(&file), "").as_deref(), Ok(secret), "{content:?}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused_with_the_name_of_the_file_and_not_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let long = vec![b'x'; 5000];
        for content in [&b""[..], b"\n", b"hidden\nhidden", b"hidden\0", b"hidden\xff", &long] {
            fs::write(&file, content).unwrap();
            let Failure::Usage(said) = given(Some(&file), "").unwrap_err() else {
                panic!("not a usage error")
            };
            assert!(said.contains("secret cannot be read") && !said.contains("hidden"), "{said}");
            assert_eq!(said.lines().count(), 1);
        }
        assert!(matches!(given(Some(&folder.path().join("none")), ""), Err(Failure::Usage(_))));
    }
}
