//! `edgewright user`: who may log in, and as what.

use super::{
    Outcome, PageArgs, access,
    client::Client,
    output::{ago, facts, show, table},
    query::{Query, escaped},
    secret,
};
use crate::{
    api::List,
    app::access::{ChangeUser, NewUser, Secret},
};
use clap::{Args, Subcommand};
use control_core::access::{Role, User};
use serde_json::json;
use shared::UserName;
use std::path::PathBuf;

/// Users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List them
    List(#[command(flatten)] PageArgs),
    /// Show one
    Show { name: UserName },
    /// Let somebody log in
    #[command(after_help = "\
Examples:
  edgewright user add anna --role operator                  # the password is asked for
  pass show anna | edgewright user add anna --role viewer --password-file -")]
    Add(AddArgs),
    /// Change role or password, or keep somebody out for a while
    #[command(after_help = "\
Examples:
  edgewright user change anna --role admin
  edgewright user change anna --disable                     # sessions and tokens end at once
  edgewright user change anna --password                    # the new one is asked for")]
    Change(ChangeArgs),
    /// Remove one, with sessions and tokens
    Remove { name: UserName },
}

/// Who is added.
#[derive(Debug, Args)]
pub struct AddArgs {
    name: UserName,
    /// What the user may do; each may all that those before it may
    #[arg(long, value_parser = access::role())]
    role: Role,
    /// File with the password, or - for standard input; asked for where not given
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// What is changed.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct ChangeArgs {
    name: UserName,
    /// What the user may do from now on
    #[arg(long, value_parser = access::role(), group = "what")]
    role: Option<Role>,
    /// Ask for a password in place of the one that there is
    #[arg(long, group = "what", conflicts_with = "password_file")]
    password: bool,
    /// File with that password, or - for standard input
    #[arg(long, value_name = "FILE", group = "what")]
    password_file: Option<PathBuf>,
    /// Let the user do nothing
    #[arg(long, group = "what", conflicts_with = "enable")]
    disable: bool,
    /// Let a disabled user in again
    #[arg(long, group = "what")]
    enable: bool,
}

pub(super) fn run(command: &UserCommand, client: &Client) -> Outcome {
    match command {
        UserCommand::List(page) => {
            let list: List<User> = page.list(client, "/users", Query::default())?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|user| {
                    vec![
                        user.name.to_string(),
                        user.role.to_string(),
                        standing(user).to_owned(),
                        user.last_login_at.map(ago).unwrap_or_default(),
                        ago(user.created_at),
                    ]
                });
                table(&["user", "role", "", "logged in", "added"], rows)
            })
        }
        UserCommand::Show { name } => {
            let user: User = client.get(&path(name))?;
            show(client.json, &user, describe)
        }
        UserCommand::Add(args) => {
            let password =
                secret::given(args.password_file.as_deref(), &format!("password for {}", args.name))?;
            let new = NewUser { name: args.name.clone(), role: args.role, password: Secret::new(password) };
            let user: User = client.create("/users", &new)?;
            show(client.json, &user, describe)
        }
        UserCommand::Change(args) => {
            let file = args.password_file.as_deref();
            let password = (args.password || file.is_some())
                .then(|| secret::given(file, &format!("new password for {}", args.name)))
                .transpose()?;
            let user: User = client.patch(&path(&args.name), &args.change(password))?;
            show(client.json, &user, describe)
        }
        UserCommand::Remove { name } => {
            client.delete(&path(name))?;
            show(client.json, &json!({ "removed": name }), |_| format!("{name} is removed"))
        }
    }
}

impl ChangeArgs {
    /// Only what changes is sent.
    fn change(&self, password: Option<String>) -> ChangeUser {
        ChangeUser {
            role: self.role,
            password: password.map(Secret::new),
            disabled: (self.disable || self.enable).then_some(self.disable),
        }
    }
}

fn path(name: &UserName) -> String {
    format!("/users/{}", escaped(name.as_str()))
}

fn standing(user: &User) -> &'static str {
    if user.disabled { "disabled" } else { "" }
}

fn describe(user: &User) -> String {
    facts(&[
        ("user", user.name.to_string()),
        ("role", user.role.to_string()),
        ("state", standing(user).to_owned()),
        ("logged in", user.last_login_at.map(ago).unwrap_or_default()),
        ("added", ago(user.created_at)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_sent() {
        let nothing = ChangeArgs {
            name: "anna".parse().unwrap(),
            role: None,
            password: false,
            password_file: None,
            disable: false,
            enable: false,
        };
        let sent = |args: &ChangeArgs, password: Option<&str>| {
            serde_json::to_value(args.change(password.map(str::to_owned))).unwrap()
        };
        assert_eq!(sent(&nothing, None), json!({}));
        let enabled = ChangeArgs { enable: true, ..nothing };
        assert_eq!(sent(&enabled, None), json!({ "disabled": false }));
        let all = ChangeArgs { role: Some(Role::Admin), disable: true, enable: false, ..enabled };
        let expected = json!({ "role": "admin", "password": "x", "disabled": true });
        assert_eq!(sent(&all, Some("x")), expected);
    }
}
