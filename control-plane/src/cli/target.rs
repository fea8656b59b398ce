//! Which server is meant, and as whom it is asked.
//!
//! What a flag says goes before the environment, and that before the current context of the [`config`].

use super::{
    Failure, Global,
    config::{self, Config, ContextName, Saved, server_of, token_of},
};
use crate::serve::ContextFile;
use shared::read;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Largest context file and CA file in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A server and a token for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) server: String,
    pub(super) ca_pem: String,
    /// None before anybody has logged in.
    pub(super) token: Option<String>,
    /// The context of the config that this comes from, where it comes from one.
    pub(super) context: Option<ContextName>,
}

impl Target {
    /// What `global` and the config say.
    pub(super) fn of(global: &Global) -> Result<Self, Failure> {
        Self::resolve(global, || {
            let path = config::path()?;
            Ok((Config::read(&path)?, path))
        })
    }

    /// The same; `config` is read only where it matters.
    fn resolve(
        global: &Global,
        config: impl FnOnce() -> Result<(Config, PathBuf), Failure>,
    ) -> Result<Self, Failure> {
        let (name, saved) = match &global.context {
            Some(named) => of_name(named, config)?,
            None if global.server.is_some() && global.ca.is_some() && global.token.is_some() => (None, None),
            // Where nobody has a home, everything can still be given by flags.
            None => match config() {
                Ok((config, _)) => {
                    let saved = config.current.as_ref().and_then(|name| config.contexts.get(name)).cloned();
                    (config.current, saved)
                }
                Err(error) if global.server.is_none() || global.ca.is_none() => return Err(error),
                Err(_) => (None, None),
            },
        };
        let lacking = |what: &str| {
            Failure::Usage(format!(
                "{what} is not known; give --context FILE (context.json in the server's data folder) or set \
                 EDGEWRIGHT_CONTEXT, or keep it: edgewright context add NAME --file FILE"
            ))
        };
        let server = global.server.as_ref().or(saved.as_ref().map(|saved| &saved.server));
        let server = server_of(server.ok_or_else(|| lacking("the server"))?).map_err(Failure::Usage)?;
        let ca_pem = match (&global.ca, &saved) {
            (Some(path), _) => read_text(path)?,
            (None, Some(saved)) => saved.ca_pem.clone(),
            (None, None) => return Err(lacking("the server's CA")),
        };
        let token = global.token.clone().or(saved.and_then(|saved| saved.token));
        let token = token.map(|token| token_of(&token)).transpose().map_err(Failure::Usage)?;
        Ok(Self { server, ca_pem, token, context: name })
    }
}

/// What `--context` names: a context of the config, or a file.
fn of_name(
    named: &Path,
    config: impl FnOnce() -> Result<(Config, PathBuf), Failure>,
) -> Result<(Option<ContextName>, Option<Saved>), Failure> {
    let name: Option<ContextName> = named.to_str().and_then(|text| text.parse().ok());
    let Some(name) = name else { return Ok((None, Some(read_context(named)?.into()))) };
    let (config, path) = config()?;
    match config.contexts.get(&name) {
        Some(saved) => Ok((Some(name), Some(saved.clone()))),
        None if named.exists() => Ok((None, Some(read_context(named)?.into()))),
        None => Err(Failure::Usage(format!(
            "{name} is neither a file nor a context of {}, which has {}",
            path.display(),
            config.names()
        ))),
    }
}

/// A file of text that may be as large as a context's.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: String| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
    let bytes = fs::File::open(path)
        .and_then(|file| read::at_most(file, FILE_BYTES_MAX))
        .map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))
}

/// The file that the server writes into its data folder.
pub(super) fn read_context(path: &Path) -> Result<ContextFile, Failure> {
    serde_json::from_str(&read_text(path)?).map_err(|error| {
        Failure::Usage(format!(
            "{} is no context file: {error}; context.json in the server's data folder is one",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global() -> Global {
        Global { context: None, server: None, ca: None, token: None, json: false, watch: None }
    }

    fn saved(server: &str, token: Option<&str>) -> Saved {
        Saved {
            server: server.to_owned(),
            ca_pem: "of the config".to_owned(),
            token: token.map(str::to_owned),
            user: None,
            role: None,
            expires_at: None,
        }
    }

    fn config() -> Result<(Config, PathBuf), Failure> {
        let home: ContextName = "home".parse().unwrap();
        let away: ContextName = "away".parse().unwrap();
        let contexts = [
            (home.clone(), saved("https://home:1", Some("home-token"))),
            (away, saved("https://away:1", None)),
        ];
        Ok((Config { current: Some(home), contexts: contexts.into() }, PathBuf::from("c.toml")))
    }

    #[test]
    fn a_flag_goes_before_the_named_context_and_that_before_the_current_one() {
        let target = Target::resolve(&global(), config).unwrap();
        assert_eq!((target.server.as_str(), target.token.as_deref()), ("https://home:1", Some("home-token")));
        let named = Global { context: Some("away".into()), ..global() };
        let target = Target::resolve(&named, config).unwrap();
        assert_eq!((target.server.as_str(), target.token), ("https://away:1", None));
        let flags =
            Global { token: Some("mine".to_owned()), server: Some("https://it:2/".to_owned()), ..named };
        let target = Target::resolve(&flags, config).unwrap();
        assert_eq!((target.server.as_str(), target.token.as_deref()), ("https://it:2", Some("mine")));
        assert_eq!(target.ca_pem, "of the config");
    }

    #[test]
    fn a_context_file_and_flags_need_no_config() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("context.json");
        let content = r#"{"server": "https://127.0.0.1:8443", "ca_pem": "of the file", "token": "t"}"#;
        fs::write(&file, content).unwrap();
        let broken = || Err(Failure::Usage("the config is broken".to_owned()));
        let target = Target::resolve(&Global { context: Some(file.clone()), ..global() }, broken).unwrap();
        assert_eq!((target.ca_pem.as_str(), target.context), ("of the file", None));
        let (server, token) = (Some("https://it:2".to_owned()), Some("t".to_owned()));
        let flags = Global { server, ca: Some(file), token, ..global() };
        assert_eq!(Target::resolve(&flags, broken).unwrap().ca_pem, content);
        assert!(Target::resolve(&global(), broken).is_err());
    }

    #[test]
    fn what_names_nothing_is_told_what_there_is() {
        let Err(Failure::Usage(said)) =
            Target::resolve(&Global { context: Some("hmoe".into()), ..global() }, config)
        else {
            panic!("accepted")
        };
        assert!(said.contains("away, home") && said.contains("c.toml"), "{said}");
    }

    #[test]
    fn without_a_server_the_error_says_how_to_name_one() {
        let none = || Ok((Config::default(), PathBuf::from("c.toml")));
        let Failure::Usage(text) = Target::resolve(&global(), none).unwrap_err() else {
            panic!("not a usage error")
        };
        assert!(text.contains("--context FILE") && text.contains("edgewright context add"), "{text}");
    }

    #[test]
    fn a_server_or_token_that_no_request_can_carry_is_refused() {
        for server in ["", "http://plain:1", "https://", "https://a b", "https://h/path", "ftp://x"] {
            let wrong = Global { server: Some(server.to_owned()), ..global() };
            assert!(matches!(Target::resolve(&wrong, config), Err(Failure::Usage(_))), "{server:?}");
        }
        for token in ["", "a b", "a\nb"] {
            let wrong = Global { token: Some(token.to_owned()), ..global() };
            assert!(matches!(Target::resolve(&wrong, config), Err(Failure::Usage(_))), "{token:?}");
        }
    }
}
