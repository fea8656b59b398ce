//! The boards of `firmware-configs/`.

use crate::cache::root;
use anyhow::{Context, Result, bail};
use shared::board::Board;
use std::{fs, path::PathBuf};

fn folder() -> PathBuf {
    root().join("firmware-configs")
}

/// The names of all boards.
pub(crate) fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder()).context("reading firmware-configs")? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "toml")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The board `name`.
pub(crate) fn load(name: &str) -> Result<Board> {
    let names = names()?;
    if !names.iter().any(|known| known == name) {
        bail!("there is no board {name:?} in firmware-configs; known are {}", names.join(", "));
    }
    let path = folder().join(format!("{name}.toml"));
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let board = Board::from_toml(&text, &format!("firmware-configs/{name}.toml"))?;
    if board.id.as_str() != name {
        bail!("firmware-configs/{name}.toml: id is {}, allowed is the file's name", board.id);
    }
    Ok(board)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_of_the_repository_loads() {
        let names = names().unwrap();
        for name in ["generic-arm64", "raspberry-pi-4", "jetson-orin-nano", "x86-64"] {
            assert!(names.iter().any(|known| known == name), "{name} is missing");
        }
        for name in names {
            load(&name).unwrap();
        }
    }

    #[test]
    fn an_unknown_board_is_refused_with_the_known_ones() {
        let error = load("abacus").unwrap_err().to_string();
        assert!(error.contains("abacus") && error.contains("x86-64"), "{error}");
    }
}
