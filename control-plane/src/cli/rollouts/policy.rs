//! Policy files.

use crate::cli::Failure;
use control_core::rollout::Policy;
use std::{fs, path::Path};

/// Largest policy file.
const BYTES_MAX: u64 = 256 * 1024;

/// Reads a policy: JSON where the file's name ends in `.json`, TOML otherwise. Ranges are checked by the server.
///
/// # Errors
/// Names the file, the line where it is known, and what is wrong there.
pub(super) fn read(path: &Path) -> Result<Policy, Failure> {
    let name = path.display();
    let bad = |why: String| Failure::Usage(format!("{name}: {why}"));
    let size = fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if size > BYTES_MAX {
        return Err(bad(format!("{size} bytes, a policy has at most {BYTES_MAX}")));
    }
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text).map_err(|error| bad(error.to_string()));
    }
    toml::from_str(&text).map_err(|error| {
        let why = error.message().lines().collect::<Vec<_>>().join(" ");
        let before = error.span().and_then(|span| text.get(..span.start));
        match before {
            Some(before) => bad(format!("line {}: {why}", before.matches('\n').count() + 1)),
            None => bad(why),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_core::rollout::WaveSize;

    fn read_as(name: &str, text: &str) -> Result<Policy, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn both_forms_say_the_same_and_what_is_left_out_has_its_default() {
        let toml = read_as("p.toml", "pause_ms = 5\nwaves = [{ count = 3 }]").unwrap();
        let json = read_as("p.json", r#"{ "pause_ms": 5, "waves": [{ "count": 3 }] }"#).unwrap();
        assert_eq!(toml, json);
        assert_eq!(toml, Policy { pause_ms: 5, waves: vec![WaveSize::Count(3).into()], ..Policy::default() });
        assert_eq!(read_as("p.toml", "").unwrap(), Policy::default());
    }

    #[test]
    fn an_error_is_one_line_with_file_and_place() {
        for (name, text, says) in [
            ("p.toml", "pause_ms = 5\nwave = []", "p.toml: line 2: unknown field `wave`"),
            ("p.toml", "waves = [\n{ count = 1, percent = 2 }]", "a wave has one of"),
            ("p.toml", "[[windows]]\nfrom = \"1:00\"\nto = \"02:00\"", "\"1:00\" is no time of day"),
            ("p.json", "{", "p.json: EOF"),
        ] {
            let Failure::Usage(error) = read_as(name, text).unwrap_err() else { panic!("no usage error") };
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
        let Failure::Usage(error) = read(Path::new("nowhere.toml")).unwrap_err() else { panic!("read") };
        assert!(error.starts_with("nowhere.toml: "), "{error}");
    }
}
