//! Which database a command works on.

use super::Failure;
use crate::store::{Address, Database};
use clap::Args;
use std::path::PathBuf;

/// SQLite in the data folder, unless another is named.
#[derive(Debug, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL in place of SQLite in the data folder
    #[arg(
        long,
        value_name = "postgres://USER@HOST/NAME",
        env = "EDGEWRIGHT_DATABASE",
        hide_env_values = true
    )]
    database: Option<Address>,
    /// File with the password for it; PGPASSWORD and PGPASSFILE are read too
    #[arg(long, value_name = "FILE", requires = "database")]
    database_password_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// Which one, with the password from its file.
    pub(super) fn chosen(&self) -> Result<Database, Failure> {
        let Some(address) = &self.database else { return Ok(Database::Folder) };
        let Some(path) = &self.database_password_file else { return Ok(Database::Address(address.clone())) };
        let read = std::fs::read_to_string(path);
        let text =
            read.map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
        let password = text.trim_end_matches(['\r', '\n']);
        address.clone().with_password(password).map(Database::Address).map_err(Failure::Usage)
    }
}
