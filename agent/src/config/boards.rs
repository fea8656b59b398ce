//! The boards that the agent knows by name.

use shared::board::{Board, Error};

/// File names and texts of `firmware-configs/`.
const KNOWN: [(&str, &str); 5] = [
    ("generic-arm64.toml", include_str!("../../../firmware-configs/generic-arm64.toml")),
    ("generic-armv7.toml", include_str!("../../../firmware-configs/generic-armv7.toml")),
    ("jetson-orin-nano.toml", include_str!("../../../firmware-configs/jetson-orin-nano.toml")),
    ("raspberry-pi-4.toml", include_str!("../../../firmware-configs/raspberry-pi-4.toml")),
    ("x86-64.toml", include_str!("../../../firmware-configs/x86-64.toml")),
];

/// The board named `id`; `None` where none of that name is known.
pub(super) fn known(id: &str) -> Option<Result<Board, Error>> {
    let (file, text) = KNOWN.iter().find(|(file, _)| file.strip_suffix(".toml") == Some(id))?;
    Some(Board::from_toml(text, file))
}

/// All names.
pub(super) fn names() -> String {
    let names: Vec<_> = KNOWN.iter().filter_map(|(file, _)| file.strip_suffix(".toml")).collect();
    names.join(", ")
}

/// The board that this program was most likely built for.
pub(super) fn default_name() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "x86-64"
    } else if cfg!(target_arch = "arm") {
        "generic-armv7"
    } else {
        "generic-arm64"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_of_firmware_configs_is_known_by_its_file_name() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware-configs");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(id) = name.strip_suffix(".toml") else { continue };
            let board = known(id).unwrap_or_else(|| panic!("{name} is not built in")).unwrap();
            assert_eq!(board.id.as_str(), id);
            count += 1;
        }
        assert_eq!(count, KNOWN.len());
    }
}
