//! `edgewright context`: servers by name.

use super::{
    Failure, Global, Outcome,
    config::{self, Config, ContextName, Saved, server_of, token_of},
    output::{facts, moment, show, table},
    secret,
    target::{read_context, read_text},
};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use shared::Timestamp;
use std::path::{Path, PathBuf};
use trust::est;

/// Contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Keep a server under a name
    #[command(after_help = "\
Examples:
  edgewright context add home --file fleet/context.json
  edgewright context add shop --server https://fleet.example:8443 --ca ca.pem
  edgewright context use shop && edgewright login --user anna

The first context is used from then on; `edgewright context use` changes that.")]
    Add(AddArgs),
    /// Use a context from now on, where no other is named
    Use { name: ContextName },
    /// List them; the one in use is marked
    List,
    /// Show one; its token is not printed
    Show {
        /// The one in use where not given
        name: Option<ContextName>,
    },
    /// Forget one, with its token
    Remove { name: ContextName },
}

/// What is kept.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Letters, digits, - and _
    name: ContextName,
    /// The context.json of the server's data folder, of which a copy is kept
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// File with a token, or - for standard input; without one, `edgewright login` gets one
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    token_file: Option<PathBuf>,
    /// In place of a context of that name
    #[arg(long)]
    replace: bool,
}

/// A context as it is shown: without its secret.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    name: &'a ContextName,
    current: bool,
    server: &'a str,
    /// `none`, `session` or `token`.
    access: &'static str,
    user: Option<&'a str>,
    role: Option<&'a str>,
    expires_at: Option<Timestamp>,
}

pub(super) fn run(command: &ContextCommand, global: &Global) -> Outcome {
    let path = config::path()?;
    let json = global.json;
    match command {
        ContextCommand::Add(args) => {
            let saved = saved(args, global)?;
            let used = add(&path, args, saved)?;
            show(json, &json!({ "context": args.name, "current": used, "file": path }), |_| {
                let next = if used {
                    "it is in use".to_owned()
                } else {
                    format!("`edgewright context use {0}` or --context {0} uses it", args.name)
                };
                format!("{} is kept in {}; {next}", args.name, path.display())
            })
        }
        ContextCommand::Use { name } => {
            Config::change(&path, |config| {
                config.get(name)?;
                config.current = Some(name.clone());
                Ok(())
            })?;
            show(json, &json!({ "current": name }), |_| format!("{name} is in use"))
        }
        ContextCommand::List => {
            let config = Config::read(&path)?;
            let all: Vec<_> =
                config.contexts.iter().map(|(name, saved)| shown(&config, name, saved)).collect();
            show(json, &all, |all| {
                let rows = all.iter().map(|one| {
                    vec![
                        if one.current { "*" } else { "" }.to_owned(),
                        one.name.to_string(),
                        one.server.to_owned(),
                        whom(one),
                        one.expires_at.map(ends).unwrap_or_default(),
                    ]
                });
                table(&["", "context", "server", "as", "until"], rows)
            })
        }
        ContextCommand::Show { name } => {
            let config = Config::read(&path)?;
            let name = name.as_ref().or(config.current.as_ref()).ok_or_else(|| {
                Failure::Usage(format!("no context is in use; there are {}", config.names()))
            })?;
            show(json, &shown(&config, name, config.get(name)?), |one| {
                facts(&[
                    ("context", one.name.to_string()),
                    ("in use", if one.current { "yes" } else { "no" }.to_owned()),
                    ("server", one.server.to_owned()),
                    ("token", if one.access == "none" { "none" } else { "kept, not shown" }.to_owned()),
                    ("as", whom(one)),
                    ("until", one.expires_at.map(ends).unwrap_or_default()),
                    ("file", path.display().to_string()),
                ])
            })
        }
        ContextCommand::Remove { name } => {
            Config::change(&path, |config| {
                config.get(name)?;
                config.contexts.remove(name);
                config.current.take_if(|current| current == name);
                Ok(())
            })?;
            show(json, &json!({ "removed": name }), |_| format!("{name} is forgotten"))
        }
    }
}

/// What the arguments name, checked as far as that goes without the server.
fn saved(args: &AddArgs, global: &Global) -> Result<Saved, Failure> {
    let mut saved = match &args.file {
        Some(file) => Saved::from(read_context(file)?),
        None => Saved {
            server: String::new(),
            ca_pem: String::new(),
            token: args.token_file.as_deref().map(|file| secret::given(Some(file), "token")).transpose()?,
            user: None,
            role: None,
            expires_at: None,
        },
    };
    if let Some(server) = &global.server {
        server.clone_into(&mut saved.server);
    }
    if let Some(ca) = &global.ca {
        saved.ca_pem = read_text(ca)?;
    }
    if saved.server.is_empty() {
        return Err(Failure::Usage(
            "the server is not known: give --file with its context.json, or --server URL and --ca FILE"
                .to_owned(),
        ));
    }
    if saved.ca_pem.is_empty() {
        return Err(Failure::Usage(
            "the server's CA is not known: give --ca FILE, or --file with the server's context.json"
                .to_owned(),
        ));
    }
    saved.server = server_of(&saved.server).map_err(Failure::Usage)?;
    saved.token = saved.token.map(|token| token_of(&token)).transpose().map_err(Failure::Usage)?;
    est::from_pem(&saved.ca_pem)
        .map_err(|error| Failure::Usage(format!("the CA is no certificate: {error}")))?;
    Ok(saved)
}

/// Whether the context is the one in use.
fn add(path: &Path, args: &AddArgs, saved: Saved) -> Result<bool, Failure> {
    Config::change(path, |config| {
        if config.contexts.contains_key(&args.name) && !args.replace {
            return Err(Failure::Usage(format!("there is a context {} already; see --replace", args.name)));
        }
        config.contexts.insert(args.name.clone(), saved);
        let current = config.current.get_or_insert_with(|| args.name.clone());
        Ok(*current == args.name)
    })
}

fn shown<'a>(config: &'a Config, name: &'a ContextName, saved: &'a Saved) -> Shown<'a> {
    Shown {
        name,
        current: config.current.as_ref() == Some(name),
        server: &saved.server,
        access: match (&saved.token, saved.expires_at) {
            (None, _) => "none",
            (Some(_), Some(_)) => "session",
            (Some(_), None) => "token",
        },
        user: saved.user.as_deref(),
        role: saved.role.as_deref(),
        expires_at: saved.expires_at,
    }
}

fn whom(one: &Shown) -> String {
    match (one.access, one.user, one.role) {
        ("none", _, _) => "nobody is logged in".to_owned(),
        (_, Some(user), Some(role)) => format!("{user}, {role}"),
        (_, Some(user), None) => user.to_owned(),
        (_, None, _) => "the holder of a token".to_owned(),
    }
}

fn ends(at: Timestamp) -> String {
    if at <= crate::app::now() { "ended".to_owned() } else { moment(at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        Saved {
            server: "https://it:1".to_owned(),
            ca_pem: "pem".to_owned(),
            token: Some("secret-token".to_owned()),
            user: None,
            role: None,
            expires_at: None,
        }
    }

    fn args(name: &str, replace: bool) -> AddArgs {
        AddArgs { name: name.parse().unwrap(), file: None, token_file: None, replace }
    }

    #[test]
    fn the_first_context_is_in_use_and_none_is_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/config.toml");
        assert_eq!(add(&path, &args("home", false), saved()), Ok(true));
        assert_eq!(add(&path, &args("shop", false), saved()), Ok(false));
        let Err(Failure::Usage(said)) = add(&path, &args("shop", false), saved()) else {
            panic!("overwritten")
        };
        assert!(said.contains("--replace"), "{said}");
        assert_eq!(add(&path, &args("shop", true), saved()), Ok(false));
        assert_eq!(Config::read(&path).unwrap().names(), "home, shop");
    }

    #[test]
    fn a_shown_context_holds_no_token() {
        let name: ContextName = "home".parse().unwrap();
        let config = Config { current: None, contexts: [(name.clone(), saved())].into() };
        let text = serde_json::to_string(&shown(&config, &name, &config.contexts[&name])).unwrap();
        assert!(!text.contains("secret-token") && text.contains("\"access\":\"token\""), "{text}");
    }
}
