//! `edgewright login`, `logout`, `whoami`: sessions, which are kept in a context.

use super::{
    Failure, Global, Outcome,
    client::Client,
    config::{self, Config, ContextName},
    output::{facts, moment, show},
    secret,
    target::Target,
};
use crate::app::access::{Login, Me, Secret, Session};
use clap::Args;
use console::Term;
use serde_json::json;
use shared::UserName;
use std::{env, path::PathBuf};

/// Who logs in.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Asked for where not given; the one of the context's last session before that
    #[arg(long, value_name = "NAME")]
    user: Option<UserName>,
    /// File with the password, or - for standard input; asked for where not given, without an echo
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

pub(super) fn login(args: &LoginArgs, global: &Global) -> Outcome {
    let path = config::path()?;
    let (target, name) = kept(global)?;
    let last = Config::read(&path)?.get(&name)?.user.clone();
    let user = match (&args.user, last) {
        (Some(user), _) => user.clone(),
        (None, Some(last)) => named(&last)?,
        (None, None) => named(&ask_user()?)?,
    };
    let password =
        secret::given(args.password_file.as_deref(), &format!("password of {user} at {}", target.server))?;
    let client = Client::to(&Target { token: None, ..target }, global.json)?;
    let session: Session = client.log_in(&Login { user, password: Secret::new(password) })?;
    let begun = json!({
        "context": name, "user": session.user, "role": session.role, "expires_at": session.expires_at,
    });
    let said = format!("{}, {}, until {}", session.user, session.role, moment(session.expires_at));
    Config::change(&path, |config| {
        // Removed meanwhile: the session ends by itself.
        let saved = config.contexts.get_mut(&name).ok_or_else(|| gone(&name))?;
        saved.token = Some(session.token.reveal().to_owned());
        saved.user = Some(session.user.to_string());
        saved.role = Some(session.role.to_string());
        saved.expires_at = Some(session.expires_at);
        Ok(())
    })?;
    if env::var_os("EDGEWRIGHT_TOKEN").is_some() {
        eprintln!("warning: EDGEWRIGHT_TOKEN is set and goes before the session; unset it");
    }
    show(global.json, &begun, |_| said)
}

pub(super) fn logout(global: &Global) -> Outcome {
    let path = config::path()?;
    let (target, name) = kept(global)?;
    let session = Config::read(&path)?.get(&name)?.clone();
    if session.token.is_none() {
        return Err(Failure::Usage(format!("nobody is logged in in context {name}")));
    }
    if session.expires_at.is_none() {
        return Err(Failure::Usage(format!(
            "context {name} holds a token and no session; `edgewright context remove {name}` forgets it"
        )));
    }
    let told = match Client::to(&Target { token: session.token, ..target }, false)?.order("/logout") {
        // It has ended already.
        Err(Failure::Refused(_)) => Ok(()),
        told => told,
    };
    Config::change(&path, |config| {
        let saved = config.contexts.get_mut(&name).ok_or_else(|| gone(&name))?;
        (saved.token, saved.role, saved.expires_at) = (None, None, None);
        Ok(())
    })?;
    match told {
        Ok(()) => show(global.json, &json!({ "context": name }), |_| format!("{name}: logged out")),
        Err(Failure::Usage(said) | Failure::Failed(said) | Failure::Refused(said)) => {
            Err(Failure::Failed(format!(
                "the session is forgotten here, but the server was not told and keeps it to its end: {said}"
            )))
        }
    }
}

pub(super) fn whoami(client: &Client) -> Outcome {
    let me: Me = client.get("/me")?;
    show(client.json, &me, |me| {
        facts(&[
            ("user", me.user.to_string()),
            ("role", me.role.to_string()),
            ("until", me.expires_at.map(moment).unwrap_or_default()),
        ])
    })
}

/// The context that a session is kept in.
fn kept(global: &Global) -> Result<(Target, ContextName), Failure> {
    if global.server.is_some() || global.ca.is_some() {
        return Err(Failure::Usage(
            "a session is kept with its server: `edgewright context add NAME --server URL --ca FILE` first, \
             then log in with --context NAME"
                .to_owned(),
        ));
    }
    let target = Target::of(global)?;
    let name = target.context.clone().ok_or_else(|| {
        Failure::Usage(
            "a session is kept in a context, and a file is none: `edgewright context add NAME --file FILE` \
             first, then log in with --context NAME"
                .to_owned(),
        )
    })?;
    Ok((target, name))
}

fn named(user: &str) -> Result<UserName, Failure> {
    user.parse::<UserName>().map_err(|error| Failure::Usage(format!("{error}; give --user NAME")))
}

fn ask_user() -> Result<String, Failure> {
    let lacking = || Failure::Usage("who logs in? give --user NAME".to_owned());
    let terminal = Term::stderr();
    if !(console::user_attended() && terminal.is_term()) {
        return Err(lacking());
    }
    terminal
        .write_str("user: ")
        .and_then(|()| terminal.read_line())
        .map(|user| user.trim().to_owned())
        .ok()
        .filter(|user| !user.is_empty())
        .ok_or_else(lacking)
}

fn gone(name: &ContextName) -> Failure {
    Failure::Failed(format!("context {name} was removed meanwhile"))
}
