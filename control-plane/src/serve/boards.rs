//! Reading the boards' folder.

use anyhow::{Context, Result, bail};
use control_core::entity::BOARD_UNKNOWN;
use shared::{BoardId, board::Board};
use std::{collections::BTreeMap, fs, path::Path};

/// The boards of a folder, one `.toml` file each. Every such file has to be a board that is named as its file.
pub(super) fn read(folder: &Path) -> Result<BTreeMap<BoardId, Board>> {
    let mut boards = BTreeMap::new();
    let entries = fs::read_dir(folder).with_context(|| {
        format!("the boards' folder {} cannot be read; name it with --boards", folder.display())
    })?;
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") || !path.is_file() {
            continue;
        }
        let origin = path.display().to_string();
        let text = fs::read_to_string(&path).with_context(|| origin.clone())?;
        let board = Board::from_toml(&text, &origin)?;
        if path.file_stem().is_none_or(|stem| stem != board.id.as_str()) {
            bail!("{origin}: id is {:?}; it has to be the file's name without .toml", board.id.as_str());
        }
        if board.id.as_str() == BOARD_UNKNOWN {
            bail!(
                "{origin}: no board is named {BOARD_UNKNOWN:?}: that is a device that has not said what it is"
            );
        }
        boards.insert(board.id.clone(), board);
    }
    if boards.is_empty() {
        bail!("{} has no board; name the folder with --boards", folder.display());
    }
    Ok(boards)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &str = include_str!("../../../firmware-configs/x86-64.toml");

    fn error(name: &str, text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x86-64.toml"), BOARD).unwrap();
        fs::write(folder.path().join("notes.txt"), "not a board").unwrap();
        assert_eq!(read(folder.path()).unwrap().len(), 1);
        fs::write(folder.path().join(name), text).unwrap();
        format!("{:#}", read(folder.path()).unwrap_err())
    }

    #[test]
    fn the_boards_that_come_along_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-configs");
        assert!(read(&folder).unwrap().len() >= 5);
    }

    #[test]
    fn a_board_without_its_limits_or_under_a_wrong_name_is_an_error_that_names_the_file() {
        let other = BOARD.replace("x86-64", "other");
        let text = error("other.toml", &other.replace("[limits]", "[limit]"));
        assert!(text.contains("other.toml") && text.contains("limit"), "{text}");
        let text = error("copy.toml", &other);
        assert!(text.contains("copy.toml: id is \"other\""), "{text}");
        let text = error("unknown.toml", &BOARD.replace("id = \"x86-64\"", "id = \"unknown\""));
        assert!(text.contains("no board is named \"unknown\""), "{text}");
    }
}
